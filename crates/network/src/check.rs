//! Judges a transcript: did the clients and the network keep their promises?
//!
//! Pure functions over the entries and what is still queued. Tests, load runs and the control API call
//! them when the work is done. What a fault kept back, changed or reordered is not held against
//! anybody. Each rule names the entry that breaks it.

mod facts;
mod rules;

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use crate::transcript::{Entry, Note, StanzaEntry, Target};

/// What the transcript alone does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Copies that wait for a device that is away: the device and the message's id.
    pub queued: HashSet<(Target, String)>,
    /// The connections that are logged in right now.
    pub live: Vec<(Target, u64)>,
    /// Nothing was forgotten from the transcript. Otherwise what needs its beginning is not judged.
    pub complete: bool,
}

/// The promises, by the name that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A phone shows no message id twice in a chat.
    ShownOnce,
    /// A chat shows the messages of one device in the order in which it sent them.
    Order,
    /// Nobody confirms what was never sent to them.
    Receipt,
    /// A one-time prekey is given to one device only.
    PrekeyOnce,
    /// A device has one live connection.
    OneConnection,
    /// Every acknowledged message was delivered to each device that it is owed to, or is queued.
    Delivered,
    /// No place in a ratchet is used for two different ciphertexts.
    CounterOnce,
    /// No client did what the protocol forbids.
    Protocol,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    pub rule: Rule,
    /// The transcript's entry that breaks it, 0 where it is about the present state.
    pub seq: u64,
    pub phone: String,
    pub device: u16,
    /// The message's id, where it is about one.
    pub id: Option<String>,
    /// What happened, readable alone.
    pub text: String,
}

/// The judgement over a transcript.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    /// Every promise was kept.
    pub ok: bool,
    /// The transcript reached back to the start. If not, receipts and acknowledgements whose message
    /// may be forgotten were not judged.
    pub complete: bool,
    /// Entries read.
    pub entries: u64,
    /// Messages that the network accepted.
    pub accepted: u64,
    /// Messages that phones showed.
    pub shown: u64,
    /// Further copies of shown messages that came over the wire, which phones hid.
    pub hidden_copies: u64,
    /// Messages that a fault disturbed; their delivery and order were not judged.
    pub disturbed: u64,
    pub violations: Vec<Violation>,
}

/// Judges all promises at once.
pub fn check<'a>(entries: impl IntoIterator<Item = &'a Entry>, facts: &Facts) -> Report {
    let entries: Vec<&Entry> = entries.into_iter().collect();
    let history = History::of(&entries);
    let mut report = Report {
        complete: facts.complete,
        entries: entries.len() as u64,
        accepted: count(&entries, |note| matches!(note, Note::Accepted { .. })),
        shown: count(&entries, |note| matches!(note, Note::Shown(_))),
        hidden_copies: count(&entries, |note| matches!(note, Note::Hidden { .. })),
        disturbed: history.disturbed.len() as u64,
        ..Report::default()
    };
    let found = &mut report.violations;
    rules::shown_once(&history, found);
    rules::order(&history, found);
    rules::receipts(&history, facts, found);
    rules::prekey_once(&history, found);
    rules::one_connection(&history, facts, found);
    rules::delivered(&history, facts, found);
    rules::counter_once(&history, found);
    rules::protocol(&history, found);
    found.sort_by_key(|violation| violation.seq);
    report.ok = found.is_empty();
    report
}

impl Report {
    /// The violations of one rule.
    pub fn of(&self, rule: Rule) -> impl Iterator<Item = &Violation> {
        self.violations
            .iter()
            .filter(move |violation| violation.rule == rule)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok {
            "every promise kept"
        } else {
            "promises broken"
        };
        writeln!(
            f,
            "{verdict}: {} entries, {} messages accepted, {} shown, {} copies hidden, {} disturbed by faults",
            self.entries, self.accepted, self.shown, self.hidden_copies, self.disturbed
        )?;
        if !self.complete {
            writeln!(
                f,
                "the transcript's beginning is forgotten; not everything could be judged"
            )?;
        }
        self.violations
            .iter()
            .try_for_each(|violation| writeln!(f, "{violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {}", self.seq, self.text)
    }
}

impl Rule {
    fn broken(
        self,
        entry: &Entry,
        (phone, device): (&str, u16),
        id: Option<&str>,
        text: String,
    ) -> Violation {
        Violation {
            rule: self,
            seq: entry.seq,
            phone: phone.to_owned(),
            device,
            id: id.map(str::to_owned),
            text,
        }
    }
}

/// The entries, and the messages that must not be judged like others.
struct History<'a> {
    entries: &'a [&'a Entry],
    /// Ids of messages of which a fault dropped, changed or held back a stanza.
    disturbed: HashSet<&'a str>,
    /// Ids of messages that somebody asked for again; they come late.
    retried: HashSet<&'a str>,
}

impl<'a> History<'a> {
    fn of(entries: &'a [&'a Entry]) -> Self {
        let mut history = Self {
            entries,
            disturbed: HashSet::new(),
            retried: HashSet::new(),
        };
        for (_, stanza) in history.stanzas() {
            if stanza.tag == "receipt" && stanza.type_.as_deref() == Some("retry") {
                history.retried.extend(stanza.ids());
            }
        }
        for entry in entries {
            match &entry.note {
                Note::Undecryptable { id, .. } => {
                    history.retried.insert(id);
                }
                Note::Fault {
                    action,
                    tag,
                    id: Some(id),
                    ..
                } if tag == "message"
                    && !matches!(action.as_str(), "no_ack" | "late_ack" | "duplicate") =>
                {
                    history.disturbed.insert(id);
                }
                _ => {}
            }
        }
        history
    }

    fn stanzas(&self) -> impl Iterator<Item = (&'a Entry, &'a StanzaEntry)> + use<'a> {
        self.entries.iter().filter_map(|entry| match &entry.note {
            Note::Stanza(stanza) => Some((*entry, &**stanza)),
            _ => None,
        })
    }
}

fn count(entries: &[&Entry], wanted: impl Fn(&Note) -> bool) -> u64 {
    entries.iter().filter(|entry| wanted(&entry.note)).count() as u64
}

#[cfg(test)]
mod tests;
