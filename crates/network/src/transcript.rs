//! What crossed the network, in order: stanzas, connections, screens, prekeys, faults.
//!
//! The evidence for the checkers ([`crate::check`]) and for whoever debugs a client. A bounded ring in
//! memory, and every entry as a JSON line to a writer where one is set. The world records at its choke
//! points; phones note what their screens show. Never a key or a plaintext that a phone did not show.

mod marks;

pub use marks::{CipherMark, StanzaEntry};

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::faults::{Action, Direction, Party, RuleId};
use crate::node::Node;
use crate::phone::{PhoneEvent, ScreenMessage};
use crate::world::{ConnId, Millis};

/// How much is kept, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranscriptOptions {
    /// Entries kept in memory; the oldest are forgotten.
    pub capacity: usize,
    /// Whether stanzas are kept printed as XML too. Costly at thousands of messages a second.
    pub xml: bool,
    /// Whether `iq`, presence and the like are recorded, or only what the checkers need.
    pub everything: bool,
}

impl Default for TranscriptOptions {
    fn default() -> Self {
        Self {
            capacity: 50_000,
            xml: true,
            everything: true,
        }
    }
}

impl TranscriptOptions {
    /// What the checkers need and nothing else, for load tests.
    pub fn lean(capacity: usize) -> Self {
        Self {
            capacity,
            xml: false,
            everything: false,
        }
    }
}

/// One line of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Counts up from 1 without gaps since the start or the last reset.
    pub seq: u64,
    /// Milliseconds since the Unix epoch by the network's clock.
    pub at: i64,
    #[serde(flatten)]
    pub note: Note,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Note {
    /// A stanza came from a device or went to one.
    Stanza(Box<StanzaEntry>),
    /// A device logged in. `replaces` is a connection of the same device that was live until now.
    Connected {
        phone: String,
        device: u16,
        conn: u64,
        replaces: Option<u64>,
    },
    /// A connection of a linked device ended.
    Disconnected {
        phone: String,
        device: u16,
        conn: u64,
    },
    /// A companion was linked.
    Linked { phone: String, device: u16 },
    /// A companion was unlinked; what was queued for it is gone.
    Unlinked { phone: String, device: u16 },
    /// The network acknowledged a message and owes a copy to each of these devices.
    Accepted {
        phone: String,
        device: u16,
        id: String,
        targets: Vec<Target>,
    },
    /// A phone shows a message: one that it got, or one that another device of its owner sent.
    Shown(Box<Shown>),
    /// A phone got a copy of a message that it shows already, and hid it.
    Hidden {
        phone: String,
        from: String,
        id: String,
    },
    /// A phone could not decrypt a message and asked for it again.
    Undecryptable {
        phone: String,
        from: String,
        from_device: u16,
        id: String,
        reason: String,
    },
    /// A one-time prekey of this device was handed to another one.
    PrekeyGiven {
        phone: String,
        device: u16,
        key_id: u32,
        to_phone: String,
        to_device: u16,
    },
    /// A fault was carried out on a stanza, or on a login (`tag` is then `connect`).
    Fault {
        rule: u64,
        action: String,
        phone: String,
        device: u16,
        tag: String,
        id: Option<String>,
    },
    /// A device did what the protocol forbids.
    ProtocolError {
        phone: String,
        device: u16,
        text: String,
    },
}

/// A device that is owed a copy of a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Target {
    pub phone: String,
    pub device: u16,
}

/// A message on a phone's screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shown {
    /// Whose screen.
    pub phone: String,
    /// The chat, as the address that the phone shows it under.
    pub chat: String,
    /// Who wrote it, without device.
    pub from: String,
    /// The device that sent it.
    pub from_device: u16,
    pub from_me: bool,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Shown {
    fn of(phone: String, message: &ScreenMessage) -> Self {
        Self {
            phone,
            chat: message.chat.clone(),
            from: message.from.clone(),
            from_device: message.from_device,
            from_me: message.from_me,
            id: message.id.clone(),
            text: message.text.clone(),
        }
    }
}

/// The bounded record.
pub struct Transcript {
    options: TranscriptOptions,
    entries: VecDeque<Entry>,
    next_seq: u64,
    writer: Option<Box<dyn Write + Send>>,
    write_error: Option<String>,
}

impl Transcript {
    pub fn new(options: TranscriptOptions) -> Self {
        Self {
            options,
            entries: VecDeque::new(),
            next_seq: 1,
            writer: None,
            write_error: None,
        }
    }

    /// Writes every further entry as a JSON line, too. After the first failure it writes no more and
    /// [`write_error`](Self::write_error) tells why.
    pub fn set_writer(&mut self, writer: Box<dyn Write + Send>) {
        self.writer = Some(writer);
        self.write_error = None;
    }

    /// Why the file is not complete.
    pub fn write_error(&self) -> Option<&str> {
        self.write_error.as_deref()
    }

    /// Records a stanza that was really handled or sent.
    pub fn record(&mut self, now: Millis, direction: Direction, who: &Party, node: &Node) {
        let entry = if self.options.everything {
            StanzaEntry::of(direction, who, node, self.options.xml)
        } else if matters(direction, node) {
            StanzaEntry::lean(direction, who, node)
        } else {
            return;
        };
        self.note(now, Note::Stanza(Box::new(entry)));
    }

    /// Records what happened at the phone of this number, as far as the checkers need it.
    pub fn note_phone(&mut self, now: Millis, phone: &str, event: &PhoneEvent) {
        let phone = phone.to_owned();
        let note = match event {
            PhoneEvent::Shown { message, .. } => Note::Shown(Box::new(Shown::of(phone, message))),
            PhoneEvent::ShownAgain { message, .. } => Note::Hidden {
                phone,
                from: message.from.clone(),
                id: message.id.clone(),
            },
            PhoneEvent::Undecryptable {
                from,
                device,
                id,
                reason,
                ..
            } => Note::Undecryptable {
                phone,
                from: from.clone(),
                from_device: *device,
                id: id.clone(),
                reason: reason.clone(),
            },
            _ => return,
        };
        self.note(now, note);
    }

    /// Records something else.
    pub fn note(&mut self, now: Millis, note: Note) {
        let entry = Entry {
            seq: self.next_seq,
            at: now,
            note,
        };
        self.next_seq += 1;
        if let Some(writer) = &mut self.writer {
            let written = serde_json::to_vec(&entry)
                .map_err(std::io::Error::other)
                .and_then(|mut line| {
                    line.push(b'\n');
                    writer.write_all(&line)
                });
            if let Err(error) = written {
                self.write_error = Some(error.to_string());
                self.writer = None;
            }
        }
        if self.options.capacity == 0 {
            return;
        }
        if self.entries.len() == self.options.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The entries after this number, oldest first. 0 means from the beginning.
    pub fn entries(&self, after: u64) -> impl Iterator<Item = &Entry> + '_ {
        let start = self.entries.partition_point(|entry| entry.seq <= after);
        self.entries.range(start..)
    }

    /// The number of the newest entry, 0 if there was none.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// True as long as nothing was forgotten, so that the checkers see all that happened.
    pub fn is_complete(&self) -> bool {
        u64::try_from(self.entries.len()).is_ok_and(|kept| kept == self.last_seq())
    }

    /// True as long as nothing after this number was forgotten.
    pub fn is_complete_after(&self, after: u64) -> bool {
        let first = self.entries.front().map(|entry| entry.seq);
        self.last_seq() <= after || first.is_some_and(|first| first <= after + 1)
    }

    /// The entries after this number as JSON lines, at most so many.
    pub fn json_lines(&self, after: u64, limit: usize) -> String {
        let mut lines = String::new();
        for entry in self.entries(after).take(limit) {
            if let Ok(line) = serde_json::to_string(entry) {
                lines.push_str(&line);
                lines.push('\n');
            }
        }
        lines
    }

    /// Forgets everything and counts from 1 again.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.next_seq = 1;
    }

    /// Hands what was written to the operating system.
    pub fn flush(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.write_error = Some(error.to_string());
            self.writer = None;
        }
    }
}

/// Whether the checkers look at it.
fn matters(direction: Direction, node: &Node) -> bool {
    match node.tag.as_ref() {
        "message" | "receipt" => true,
        "ack" => {
            direction == Direction::ToDevice && node.get("class").is_some_and(|c| c == "message")
        }
        _ => false,
    }
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new(TranscriptOptions::default())
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript")
            .field("options", &self.options)
            .field("kept", &self.entries.len())
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

impl Note {
    /// A device on its connection logged in.
    pub fn connected(who: &Party, conn: ConnId, replaces: Option<ConnId>) -> Self {
        Self::Connected {
            phone: who.phone.clone(),
            device: who.device,
            conn,
            replaces,
        }
    }

    /// A device's connection ended.
    pub fn disconnected(who: &Party, conn: ConnId) -> Self {
        Self::Disconnected {
            phone: who.phone.clone(),
            device: who.device,
            conn,
        }
    }

    /// A rule's action on a stanza, or on a login where there is none.
    pub fn fault(rule: RuleId, action: &Action, who: &Party, node: Option<&Node>) -> Self {
        Self::Fault {
            rule,
            action: action.name().to_owned(),
            phone: who.phone.clone(),
            device: who.device,
            tag: node.map_or_else(|| "connect".to_owned(), |node| node.tag.to_string()),
            id: node.and_then(|node| node.get("id")).map(Into::into),
        }
    }

    /// A device did what the protocol forbids.
    pub fn protocol_error(who: &Party, text: impl Into<String>) -> Self {
        Self::ProtocolError {
            phone: who.phone.clone(),
            device: who.device,
            text: text.into(),
        }
    }
}

#[cfg(test)]
mod tests;
