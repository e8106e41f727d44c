//! Judges a round by its evidence: pure functions, one for each promise, each pushing what breaks it.
//!
//! | rule | promise |
//! |---|---|
//! | R1 | no loss: what was accepted arrives, or ends failed with a reason |
//! | R2 | no duplicate: a request is shown once, under one id |
//! | R3 | what comes in is stored once, and acknowledged after its commit |
//! | R4 | a status moves forward only, says the truth, and list, history and events agree |
//! | R5 | what a client withdrew is not sent; nothing is sent before its time, or after its validity |
//! | R6 | a chat's messages arrive in the order of their acceptance |
//! | R8 | a device has one live connection |
//! | R9 | no place in a ratchet is used twice, no prekey given twice |
//! | R10 | limits hold: messages of a session, and of a chat, on their way at once |
//! | R11 | after the faults everything comes to an end, and nothing died by itself |
//! | R12 | answers are honest: refusals have a code, a failure is ours only while something is broken |

mod answers;
mod clocks;
mod inbound;
mod outbound;
mod status;
mod wire;
mod wishes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use wagate_network::faults::Direction;
use wagate_network::transcript::{Entry, Note, Shown};

use super::evidence::{Event, Evidence, Stored};
use super::journal::{Broken, End, Request, Window, Withdrawal};
use clocks::Clocks;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub rule: &'static str,
    pub text: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Everything that is wrong with a round.
pub fn judge(evidence: &Evidence) -> Vec<Breach> {
    let index = Index::of(evidence);
    let mut found = Vec::new();
    outbound::loss(&index, &mut found);
    outbound::duplicates(&index, &mut found);
    outbound::order(&index, &mut found);
    wishes::kept(&index, &mut found);
    inbound::stored_once(&index, &mut found);
    inbound::acknowledged_after(&index, &mut found);
    status::forward_only(&index, &mut found);
    status::true_and_agreed(&index, &mut found);
    status::receipts_recorded(&index, &mut found);
    status::limits(&index, &mut found);
    wire::network(&index, &mut found);
    answers::settled(&index, &mut found);
    answers::honest(&index, &mut found);
    found
}

/// The evidence by what it is looked up by.
struct Index<'a> {
    all: &'a Evidence,
    /// Outbound messages by text.
    sent: HashMap<&'a str, Vec<&'a Stored>>,
    /// Inbound messages by text.
    received: HashMap<&'a str, Vec<&'a Stored>>,
    by_id: HashMap<&'a str, &'a Stored>,
    /// What contacts' phones showed of the gateway's sessions, by text.
    shown: HashMap<&'a str, Vec<(&'a Entry, &'a Shown)>>,
    /// The events of each message, in order.
    events: BTreeMap<&'a str, Vec<&'a Event>>,
    /// Messages that the network acknowledged: the sender's number and the id.
    accepted: HashSet<(&'a str, &'a str)>,
    /// When a message crossed from a session's device: by the owner's number and the id.
    wire: HashMap<(&'a str, &'a str), Vec<i64>>,
    /// Messages that a client deleted after they had failed.
    deleted: HashSet<&'a str>,
    clocks: Clocks,
}

impl<'a> Index<'a> {
    fn of(all: &'a Evidence) -> Self {
        let mut index = Self {
            all,
            sent: HashMap::new(),
            received: HashMap::new(),
            by_id: HashMap::new(),
            shown: HashMap::new(),
            events: BTreeMap::new(),
            accepted: HashSet::new(),
            wire: HashMap::new(),
            deleted: HashSet::new(),
            clocks: Clocks::of(&all.journal),
        };
        for stored in &all.stored {
            index.by_id.insert(&stored.id, stored);
            let side = if stored.inbound {
                &mut index.received
            } else {
                &mut index.sent
            };
            side.entry(stored.text.as_str()).or_default().push(stored);
        }
        for entry in &all.entries {
            match &entry.note {
                Note::Shown(shown) if !shown.from_me => {
                    if let Some(text) = &shown.text {
                        index.shown.entry(text).or_default().push((entry, &**shown));
                    }
                }
                Note::Accepted { phone, id, .. } => {
                    index.accepted.insert((phone.as_str(), id.as_str()));
                }
                Note::Stanza(stanza)
                    if stanza.tag == "message"
                        && stanza.direction == Direction::FromDevice
                        && stanza.device != 0 =>
                {
                    for id in stanza.ids() {
                        let key = (stanza.phone.as_str(), id);
                        index.wire.entry(key).or_default().push(entry.at);
                    }
                }
                _ => {}
            }
        }
        for request in &all.journal.requests {
            if request.withdrawal == Some(Withdrawal::Deleted)
                && let End::Accepted(id) = &request.end
            {
                index.deleted.insert(id);
            }
        }
        for event in &all.events {
            if !event.message.is_empty() {
                index.events.entry(&event.message).or_default().push(event);
            }
        }
        index
    }

    fn shown(&self, marker: &str) -> &[(&'a Entry, &'a Shown)] {
        self.shown.get(marker).map_or(&[], Vec::as_slice)
    }

    /// The owner's number of a session by its name.
    fn owner(&self, session: &str) -> &'a str {
        let place = self.all.sessions.iter().find(|place| place.name == session);
        place.map_or("", |place| place.owner.as_str())
    }

    fn contact(&self, request: &Request) -> &'a str {
        let contact = self.all.contacts.get(request.contact);
        contact.map_or("", String::as_str)
    }

    /// It is one of the round's messages, or was.
    fn known(&self, message: &str) -> bool {
        self.by_id.contains_key(message) || self.deleted.contains(message)
    }

    /// When a request was first asked, and when the last word about it came.
    fn asked(request: &Request) -> Option<(i64, i64)> {
        let (first, last) = (request.attempts.first()?, request.attempts.last()?);
        Some((first.from, last.to))
    }

    /// Whether something of this kind was broken between these times.
    fn broken(&self, from: i64, to: i64, what: impl Fn(Broken) -> bool) -> bool {
        let overlaps = |window: &Window| {
            what(window.what) && window.from <= to && window.to.is_none_or(|end| end >= from)
        };
        self.all.journal.windows.iter().any(overlaps)
    }
}

/// How far a status is; the order in which it may only rise.
fn rank(status: &str) -> u8 {
    match status {
        "queued" => 0,
        "sending" => 1,
        "sent" => 2,
        "delivered" => 3,
        "read" => 4,
        "played" => 5,
        _ => 6,
    }
}

fn is_sent(status: &str) -> bool {
    matches!(status, "sent" | "delivered" | "read" | "played")
}

fn breach(found: &mut Vec<Breach>, rule: &'static str, text: String) {
    found.push(Breach { rule, text });
}

#[cfg(test)]
mod tests;
