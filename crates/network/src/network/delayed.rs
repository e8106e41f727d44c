//! Stanzas that must not go out yet: by the network's time, then in the order of their making.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::node::Node;
use crate::world::{ConnId, Millis};

/// The stanzas that wait, the earliest first.
#[derive(Default)]
pub(super) struct DelayedStanzas {
    heap: BinaryHeap<Reverse<Delayed>>,
    next: u64,
}

impl DelayedStanzas {
    pub(super) fn push(&mut self, at: Millis, conn: ConnId, node: Node) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Reverse(Delayed {
            at,
            number,
            conn,
            node,
        }));
    }

    /// Takes the earliest stanza if its time has come.
    pub(super) fn pop(&mut self, now: Millis) -> Option<(ConnId, Node)> {
        if self.next_deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.conn, due.node))
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse(first)| first.at)
    }
}

struct Delayed {
    at: Millis,
    /// Keeps the order of stanzas that are due together.
    number: u64,
    conn: ConnId,
    node: Node,
}

impl Delayed {
    fn key(&self) -> (Millis, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
