//! What a phone will do later by itself: read, play, type, answer.

use std::collections::BTreeMap;

use super::behaviour::Answer;
use super::content::Outgoing;
use super::outbox::ChatState;
use super::port::PhonePort;
use super::screen::ScreenMessage;
use super::{Phone, ScriptRule};
use crate::jid::Jid;
use crate::world::Millis;

/// More than that many waiting jobs and new ones are dropped: a flood, not a conversation.
const JOBS_MAX: usize = 20_000;
/// Ids of automatic answers begin so (an iPhone's form); what an owner sends looks like Android's.
pub(super) const AUTO_PREFIX: &str = "3A";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Job {
    Read {
        chat: String,
        from: String,
        id: String,
    },
    Play {
        chat: String,
        from: String,
        id: String,
    },
    Answer {
        to: Jid,
        text: String,
    },
}

/// Jobs by due time, in order of their making among equals.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: BTreeMap<(Millis, u64), Job>,
    next: u64,
}

impl Jobs {
    pub(super) fn add(&mut self, due: Millis, job: Job) {
        if self.waiting.len() >= JOBS_MAX {
            tracing::warn!("a phone has too much to do and drops a job");
            return;
        }
        self.next += 1;
        self.waiting.insert((due, self.next), job);
    }

    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Job> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }
}

/// Whether a message was an automatic answer, by the form of its id.
pub(super) fn is_automatic(id: &str) -> bool {
    id.starts_with(AUTO_PREFIX) && id.len() == 20
}

impl Phone {
    /// Plans what a new message of somebody else calls for.
    pub(super) fn plan(&mut self, now: Millis, message: &ScreenMessage, port: &mut dyn PhonePort) {
        let due = |after: u64| now.saturating_add(i64::try_from(after).unwrap_or(i64::MAX));
        let job = |make: fn(String, String, String) -> Job| {
            make(
                message.chat.clone(),
                message.from.clone(),
                message.id.clone(),
            )
        };
        if let Some(after) = self.behaviour.read_after_ms {
            self.jobs.add(
                due(after),
                job(|chat, from, id| Job::Read { chat, from, id }),
            );
        }
        if let Some(after) = self.behaviour.play_after_ms
            && message.kind == "voice"
        {
            self.jobs.add(
                due(after),
                job(|chat, from, id| Job::Play { chat, from, id }),
            );
        }
        if is_automatic(&message.id) || message.kind == "reaction" {
            return;
        }
        let Some((text, delay, typing)) = self.answer_to(message) else {
            return;
        };
        let Ok(to) = message.chat.parse::<Jid>() else {
            return;
        };
        if typing {
            self.chat_state(&to, ChatState::Composing, port);
        }
        self.jobs.add(due(delay), Job::Answer { to, text });
    }

    /// The text, its delay, and whether to show "typing".
    fn answer_to(&self, message: &ScreenMessage) -> Option<(String, u64, bool)> {
        let heard = message.text.as_deref();
        match &self.behaviour.answer {
            Answer::Silent => None,
            Answer::Echo { delay_ms, typing } => {
                let text = heard.map_or_else(|| format!("[{}]", message.kind), str::to_owned);
                Some((text, *delay_ms, *typing))
            }
            Answer::Fixed {
                text,
                delay_ms,
                typing,
            } => Some((text.clone(), *delay_ms, *typing)),
            Answer::Script { rules } => {
                let rule = rules
                    .iter()
                    .find(|rule| applies(rule, heard.unwrap_or_default()))?;
                Some((rule.reply.clone(), rule.delay_ms, false))
            }
        }
    }

    pub(super) fn run(&mut self, now: Millis, job: Job, port: &mut dyn PhonePort) {
        match job {
            Job::Read { chat, from, id } => self.confirm(&chat, &from, &[id], "read", port),
            Job::Play { chat, from, id } => self.confirm(&chat, &from, &[id], "played", port),
            Job::Answer { to, text } => {
                let id = self.message_id(true);
                if let Err(error) = self.send_as(now, &id, &to, &Outgoing::Text { text }, port) {
                    tracing::warn!(%error, "a phone cannot answer");
                }
            }
        }
    }
}

fn applies(rule: &ScriptRule, heard: &str) -> bool {
    heard.to_lowercase().contains(&rule.contains.to_lowercase())
}
