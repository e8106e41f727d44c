//! What waits to be written to one connection.
//!
//! The world's shell puts stanzas in while it holds the world's lock, so this never blocks; the
//! connection's task takes everything that waits at once. Bounded (BD-1): a client that does not
//! read is cut off rather than remembered without end.

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::node::Node;

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After everything that waits has been written, with a close frame.
    Polite,
    /// At once, without a word.
    Abrupt,
}

/// The writing side of one connection, as the shell sees it.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    /// Tells who waits for the end of the connection.
    left: Notify,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Node>,
    end: Option<End>,
    silent: bool,
    gone: bool,
}

/// What the connection's task has to do.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) nodes: VecDeque<Node>,
    pub(crate) end: Option<End>,
    pub(crate) silent: bool,
}

impl Outbox {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            left: Notify::new(),
            max,
        }
    }

    /// Adds a stanza. False if the client does not keep up and is cut off for it.
    pub(crate) fn push(&self, node: Node) -> bool {
        let mut state = self.lock();
        if state.end.is_some() || state.silent {
            return true;
        }
        let fits = state.waiting.len() < self.max;
        if fits {
            state.waiting.push_back(node);
        } else {
            state.end = Some(End::Abrupt);
            state.waiting = VecDeque::new();
        }
        drop(state);
        self.wake.notify_one();
        fits
    }

    /// Ends the connection. An abrupt end overtakes a polite one.
    pub(crate) fn close(&self, end: End) {
        let mut state = self.lock();
        if state.end != Some(End::Abrupt) {
            state.end = Some(end);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Makes the connection deaf and dumb.
    pub(crate) fn silence(&self) {
        let mut state = self.lock();
        state.silent = true;
        state.waiting = VecDeque::new();
        drop(state);
        self.wake.notify_one();
    }

    /// The connection has ended.
    pub(crate) fn leave(&self) {
        self.lock().gone = true;
        self.left.notify_waiters();
    }

    /// Waits until the connection has ended.
    pub(crate) async fn gone(&self) {
        let mut left = pin!(self.left.notified());
        left.as_mut().enable();
        if !self.lock().gone {
            left.await;
        }
    }

    /// Waits until there is something to take.
    pub(crate) async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Takes everything that waits.
    pub(crate) fn take(&self) -> Work {
        let mut state = self.lock();
        Work {
            nodes: mem::take(&mut state.waiting),
            end: state.end,
            silent: state.silent,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let outbox = Outbox::new(2);
        assert!(outbox.push(Node::new("a")));
        assert!(outbox.push(Node::new("b")));
        assert!(!outbox.push(Node::new("c")));
        outbox.ready().await;
        let work = outbox.take();
        assert_eq!(work.end, Some(End::Abrupt));
        assert!(work.nodes.is_empty());
        assert!(
            outbox.push(Node::new("d")),
            "only the first overflow is news"
        );
        assert!(outbox.take().nodes.is_empty());
    }

    #[tokio::test]
    async fn what_waits_goes_out_before_a_polite_end() {
        let outbox = Outbox::new(10);
        outbox.push(Node::new("a"));
        outbox.close(End::Polite);
        outbox.push(Node::new("late"));
        outbox.ready().await;
        let work = outbox.take();
        assert_eq!(work.nodes, [Node::new("a")]);
        assert_eq!(work.end, Some(End::Polite));
    }

    #[tokio::test]
    async fn an_abrupt_end_overtakes() {
        let outbox = Outbox::new(10);
        outbox.close(End::Abrupt);
        outbox.close(End::Polite);
        assert_eq!(outbox.take().end, Some(End::Abrupt));
    }

    #[tokio::test]
    async fn silence_forgets_what_waited() {
        let outbox = Outbox::new(10);
        outbox.push(Node::new("a"));
        outbox.silence();
        outbox.push(Node::new("b"));
        let work = outbox.take();
        assert!(work.silent);
        assert!(work.nodes.is_empty());
    }
}
