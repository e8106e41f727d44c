//! What WhatsApp said about sent messages, until it is committed (MP-3, MP-5).
//!
//! The library acknowledges a receipt to WhatsApp as soon as it has told us of it, so WhatsApp does not
//! say it again: while the database is away, the news is here and nowhere else. It is merged by message
//! and rank, bounded (BD-1), and forgotten only after its commit. What an actor leaves behind, since its
//! lease ended or it had to start over, waits for the session's next actor in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wagate_domain::message::MessageInput;
use wagate_domain::{ReceiptKind, SessionId, Timestamp, WaMessageId};
use wagate_engine::EngineEvent;
use wagate_store::messages::Update;

/// News of one session that may wait for the database.
const NEWS_MAX: usize = 10_000;
/// News that ended actors may leave behind, of all sessions together.
const LEFT_MAX: usize = 100_000;
/// A session that is not taken up here again for so long is somebody else's.
const LEFT_FOR: Duration = Duration::from_secs(3600);

/// The news of one session, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    updates: Vec<Update>,
    /// Which ranks of a message are among them, one bit each.
    known: HashMap<WaMessageId, u8>,
}

impl Unsaved {
    /// Notes what an event says about messages, if it is an acknowledgement or a receipt.
    pub(crate) fn note(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::ServerAck {
                wa_id,
                error: None,
                at,
                ..
            } => self.add(wa_id, MessageInput::ServerAck, *at),
            EngineEvent::Receipt { ids, kind, at, .. } => {
                for wa_id in ids {
                    self.add(wa_id, MessageInput::Receipt(*kind), *at);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, wa_id: &WaMessageId, input: MessageInput, at: Timestamp) {
        let known = self.known.get(wa_id).copied().unwrap_or(0);
        if known & bit(input) != 0 {
            return;
        }
        if self.updates.len() >= NEWS_MAX {
            missed(1);
            return;
        }
        self.known.insert(wa_id.clone(), known | bit(input));
        self.updates.push(Update {
            wa_id: wa_id.clone(),
            input,
            at,
            failure: None,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// The oldest news, `max` at most.
    pub(crate) fn oldest(&self, max: usize) -> Vec<Update> {
        self.updates.iter().take(max).cloned().collect()
    }

    /// Forgets the oldest `count`: they are committed, or can never be.
    pub(crate) fn forget(&mut self, count: usize) {
        for update in self.updates.drain(..count.min(self.updates.len())) {
            if let Some(known) = self.known.get_mut(&update.wa_id) {
                *known &= !bit(update.input);
                if *known == 0 {
                    self.known.remove(&update.wa_id);
                }
            }
        }
        if self.updates.is_empty() && self.updates.capacity() > 64 {
            *self = Unsaved::default();
        }
    }
}

/// Each rank that news can have.
fn bit(input: MessageInput) -> u8 {
    match input {
        MessageInput::Receipt(ReceiptKind::Delivered) => 2,
        MessageInput::Receipt(ReceiptKind::Read) => 4,
        MessageInput::Receipt(ReceiptKind::Played) => 8,
        _ => 1,
    }
}

fn missed(count: usize) {
    metrics::counter!("wagate_receipts_missed_total").increment(count as u64);
}

/// What ended actors have left behind for their successors.
#[derive(Debug, Default)]
pub(crate) struct LeftBehind(Mutex<HashMap<SessionId, (Instant, Unsaved)>>);

impl LeftBehind {
    /// Keeps what an actor could not commit.
    pub(crate) fn put(&self, session: &SessionId, news: Unsaved, now: Instant) {
        if news.is_empty() {
            return;
        }
        let mut left = self.lock();
        left.retain(|_, (since, _)| now.duration_since(*since) < LEFT_FOR);
        let held: usize = left.values().map(|(_, news)| news.updates.len()).sum();
        if held + news.updates.len() > LEFT_MAX {
            missed(news.updates.len());
            return;
        }
        tracing::info!(
            session.id = %session,
            count = news.updates.len(),
            "acknowledgements and receipts wait for the database"
        );
        left.insert(session.clone(), (now, news));
    }

    /// Gives it to the next actor.
    pub(crate) fn take(&self, session: &SessionId) -> Unsaved {
        let left = self.lock().remove(session);
        left.map(|(_, news)| news).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, (Instant, Unsaved)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use wagate_domain::Jid;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn ack(wa_id: &WaMessageId, error: Option<u32>) -> EngineEvent {
        EngineEvent::ServerAck {
            wa_id: wa_id.clone(),
            chat: None,
            error,
            at: at(1),
        }
    }

    fn receipt(ids: &[WaMessageId], kind: ReceiptKind, secs: i64) -> EngineEvent {
        EngineEvent::Receipt {
            chat: Jid::pn("6281234567890"),
            sender: Jid::pn("6281234567890"),
            ids: ids.to_vec(),
            kind,
            at: at(secs),
        }
    }

    fn inputs(news: &Unsaved) -> Vec<MessageInput> {
        news.oldest(NEWS_MAX).iter().map(|one| one.input).collect()
    }

    #[test]
    fn each_rank_of_a_message_is_kept_once_as_it_came_first() {
        let id = WaMessageId::generate();
        let ids = std::slice::from_ref(&id);
        let mut news = Unsaved::default();
        for secs in 2..50 {
            news.note(&receipt(ids, ReceiptKind::Delivered, secs));
            news.note(&ack(&id, None));
            news.note(&receipt(ids, ReceiptKind::Read, secs));
        }
        news.note(&ack(&id, Some(503)));
        let delivered = MessageInput::Receipt(ReceiptKind::Delivered);
        let read = MessageInput::Receipt(ReceiptKind::Read);
        assert_eq!(inputs(&news), [delivered, MessageInput::ServerAck, read]);
        assert_eq!(news.oldest(1)[0].at, at(2));
    }

    #[test]
    fn a_refusal_is_no_acknowledgement_and_playing_is_more_than_reading() {
        let id = WaMessageId::generate();
        let ids = std::slice::from_ref(&id);
        let mut news = Unsaved::default();
        news.note(&ack(&id, Some(503)));
        assert!(news.is_empty());
        news.note(&receipt(ids, ReceiptKind::Read, 2));
        news.note(&receipt(ids, ReceiptKind::Played, 3));
        let kinds = [ReceiptKind::Read, ReceiptKind::Played];
        assert_eq!(inputs(&news), kinds.map(MessageInput::Receipt));
    }

    #[test]
    fn what_came_during_a_commit_is_not_forgotten_with_it() {
        let id = WaMessageId::generate();
        let mut news = Unsaved::default();
        news.note(&ack(&id, None));
        let committing = news.oldest(NEWS_MAX);
        let ids = std::slice::from_ref(&id);
        news.note(&receipt(ids, ReceiptKind::Delivered, 3));
        news.forget(committing.len());
        let delivered = MessageInput::Receipt(ReceiptKind::Delivered);
        assert_eq!(inputs(&news), [delivered]);
        // The same again is news again: the database ignores what it knows.
        news.note(&ack(&id, None));
        assert_eq!(inputs(&news), [delivered, MessageInput::ServerAck]);
        news.forget(2);
        assert!(news.is_empty() && news.known.is_empty());
    }

    #[test]
    fn the_number_of_news_is_bounded() {
        let mut news = Unsaved::default();
        for _ in 0..NEWS_MAX + 5 {
            news.note(&ack(&WaMessageId::generate(), None));
        }
        assert_eq!(news.updates.len(), NEWS_MAX);
        assert_eq!(news.known.len(), NEWS_MAX);
    }

    #[test]
    fn what_is_left_behind_goes_to_the_next_actor_once() {
        let left = LeftBehind::default();
        let (one, other) = (SessionId::generate(), SessionId::generate());
        let with = |id: &WaMessageId| {
            let mut news = Unsaved::default();
            news.note(&ack(id, None));
            news
        };
        let id = WaMessageId::generate();
        let now = Instant::now();
        left.put(&one, with(&id), now);
        left.put(&other, Unsaved::default(), now);
        assert!(left.take(&other).is_empty());
        assert_eq!(left.take(&one).oldest(9)[0].wa_id, id);
        assert!(left.take(&one).is_empty());
        left.put(&one, with(&id), now);
        left.put(&other, with(&id), now + LEFT_FOR);
        assert!(left.take(&one).is_empty());
        assert!(!left.take(&other).is_empty());
    }

    #[test]
    fn what_all_sessions_leave_behind_is_bounded() {
        let left = LeftBehind::default();
        let now = Instant::now();
        let full = || {
            let mut news = Unsaved::default();
            for _ in 0..NEWS_MAX {
                news.note(&ack(&WaMessageId::generate(), None));
            }
            news
        };
        for _ in 0..LEFT_MAX / NEWS_MAX {
            left.put(&SessionId::generate(), full(), now);
        }
        let last = SessionId::generate();
        left.put(&last, full(), now);
        assert!(left.take(&last).is_empty());
    }
}
