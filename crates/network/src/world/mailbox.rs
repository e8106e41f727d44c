//! What was sent to a device and not confirmed yet.
//!
//! Its queue while it is away, and what is in flight while it is connected. An entry leaves when the device acknowledges it or answers with a receipt,
//! so that a connection which breaks in between loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::node::Node;

/// Stanzas kept per device; beyond it the oldest is dropped, and counted.
pub const MAILBOX_MAX: usize = 10_000;

/// The mailbox of one device. Costs nothing while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    entries: BTreeMap<u64, Entry>,
    /// `(hash of class and id, position)`: finds the entry that an acknowledgement names.
    index: BTreeSet<(u64, u64)>,
    next: u64,
    /// Everything before this position went out on the present connection.
    sent: u64,
    /// Entries dropped because the mailbox was full.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    node: Node,
}

impl Mailbox {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.entries.values().map(|entry| &entry.node)
    }

    /// Adds a stanza. A message that is sent again under the same id takes the place of an older copy
    /// that waits; not of one that is with the device, which may be about to acknowledge just that.
    pub(crate) fn push(&mut self, node: Node) {
        let hash = key(&node.tag, &id_of(&node));
        if node.is("message")
            && let Some(position) = self.find(hash, &node)
            && position >= self.sent
            && self.likeness(position, &node) >= 2
        {
            self.remove(position);
        }
        if self.entries.len() == MAILBOX_MAX
            && let Some(oldest) = self.entries.keys().next().copied()
        {
            self.remove(oldest);
            self.dropped += 1;
        }
        self.entries.insert(self.next, Entry { hash, node });
        self.index.insert((hash, self.next));
        self.next += 1;
    }

    /// The connection is new: nothing has gone out on it yet.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// How many entries did not go out on this connection.
    pub(crate) fn unsent(&self) -> usize {
        if self.sent == 0 {
            return self.entries.len();
        }
        self.entries.range(self.sent..).count()
    }

    /// Counts the unsent entries by tag.
    pub(crate) fn unsent_of(&self, tag: &str) -> usize {
        self.entries
            .range(self.sent..)
            .filter(|(_, entry)| entry.node.is(tag))
            .count()
    }

    /// The next entry that did not go out on this connection, as a copy to send.
    pub(crate) fn next_unsent(&mut self) -> Option<Node> {
        let (position, entry) = self.entries.range(self.sent..).next()?;
        self.sent = position + 1;
        Some(entry.node.clone())
    }

    /// Everything in it went out on this connection.
    pub(crate) fn mark_all_sent(&mut self) {
        self.sent = self.next;
    }

    /// Removes what a device confirmed: the stanza of this class and id, where several have it the one
    /// that came from `like`'s `to` and has its type, and of those the oldest.
    pub(crate) fn confirm(&mut self, class: &str, id: &str, like: &Node) -> bool {
        match self.find(key(class, id), like) {
            Some(position) => {
                self.remove(position);
                true
            }
            None => false,
        }
    }

    /// Empties it, for a phone that takes everything at once.
    pub(crate) fn take_all(&mut self) -> Vec<Node> {
        self.index.clear();
        std::mem::take(&mut self.entries)
            .into_values()
            .map(|entry| entry.node)
            .collect()
    }

    fn find(&self, hash: u64, like: &Node) -> Option<u64> {
        let mut candidates = self
            .index
            .range((hash, 0)..=(hash, u64::MAX))
            .map(|(_, at)| *at);
        let first = candidates.next()?;
        let mut best = (first, self.likeness(first, like));
        for position in candidates {
            let likeness = self.likeness(position, like);
            if likeness > best.1 {
                best = (position, likeness);
            }
        }
        Some(best.0)
    }

    fn likeness(&self, position: u64, like: &Node) -> u8 {
        let Some(Entry { node, .. }) = self.entries.get(&position) else {
            return 0;
        };
        let from = node.value("from") == like.value("to").or_else(|| like.value("from"));
        let kind = node.value("type") == like.value("type");
        u8::from(from) * 2 + u8::from(kind)
    }

    fn remove(&mut self, position: u64) {
        if let Some(entry) = self.entries.remove(&position) {
            self.index.remove(&(entry.hash, position));
        }
    }
}

fn id_of(node: &Node) -> std::borrow::Cow<'_, str> {
    node.get("id").unwrap_or_default()
}

fn key(class: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (class, id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(tag: &'static str, id: &'static str, from: &'static str) -> Node {
        Node::new(tag).attr("id", id).attr("from", from)
    }

    #[test]
    fn keeps_order_and_forgets_what_is_confirmed() {
        let mut mailbox = Mailbox::default();
        for id in ["a", "b", "c"] {
            mailbox.push(stanza("message", id, "x"));
        }
        assert_eq!(mailbox.next_unsent().unwrap().get("id").unwrap(), "a");
        assert!(mailbox.confirm("message", "b", &Node::new("ack").attr("to", "x")));
        assert!(!mailbox.confirm("receipt", "a", &Node::new("ack").attr("to", "x")));
        assert_eq!(mailbox.next_unsent().unwrap().get("id").unwrap(), "c");
        assert!(mailbox.next_unsent().is_none());
        mailbox.rewind();
        let ids: Vec<_> = mailbox.iter().filter_map(|node| node.get("id")).collect();
        assert_eq!(ids, ["a", "c"]);
        assert_eq!(mailbox.unsent(), 2);
    }

    #[test]
    fn tells_receipts_with_one_id_apart_by_sender() {
        let mut mailbox = Mailbox::default();
        mailbox.push(stanza("receipt", "a", "x"));
        mailbox.push(stanza("receipt", "a", "y"));
        assert!(mailbox.confirm("receipt", "a", &Node::new("ack").attr("to", "y")));
        assert_eq!(mailbox.iter().next().unwrap().get("from").unwrap(), "x");
    }

    #[test]
    fn a_resent_message_replaces_the_older_copy() {
        let mut mailbox = Mailbox::default();
        mailbox.push(stanza("message", "a", "x"));
        mailbox.push(stanza("message", "a", "x").attr("count", "2"));
        assert_eq!(mailbox.len(), 1);
    }

    #[test]
    fn what_is_confirmed_is_the_copy_that_the_device_has() {
        let mut mailbox = Mailbox::default();
        let ack = Node::new("ack").attr("to", "x");
        mailbox.push(stanza("message", "a", "x"));
        mailbox.mark_all_sent();
        mailbox.push(stanza("message", "a", "x").attr("count", "2"));
        mailbox.mark_all_sent();
        assert!(mailbox.confirm("message", "a", &ack));
        let left: Vec<_> = mailbox.iter().map(|node| node.get("count")).collect();
        assert_eq!(left, [Some("2".into())]);
    }

    #[test]
    fn is_bounded() {
        let mut mailbox = Mailbox::default();
        for number in 0..=MAILBOX_MAX {
            mailbox.push(Node::new("message").attr("id", number));
        }
        assert_eq!(mailbox.len(), MAILBOX_MAX);
        assert_eq!(mailbox.dropped, 1);
        assert_eq!(mailbox.iter().next().unwrap().get("id").unwrap(), "1");
    }
}
