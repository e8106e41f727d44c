//! What was handed over to the database threads and waits for one of them.
//!
//! Callers put into a bounded channel. The thread moves what is there into its turns (`turns.rs`), also
//! bounded, and takes from there: only what is in the turns can be put in order. Half of the places are
//! on either side.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout_at};

use super::job::{Job, Message};
use super::turns::Turns;
use super::{DbOptions, When};

/// A queue of `queue_max` places, for one thread or, behind a lock, for several.
pub(super) fn channel(options: &DbOptions) -> (Sender<Message>, Waiting) {
    let (sender, queue) = mpsc::channel(options.queue_max.div_ceil(2).max(1));
    let waiting = Waiting {
        queue,
        turns: Turns::new(options.tenant_share),
        room: (options.queue_max / 2).max(1),
        wanted: false,
    };
    (sender, waiting)
}

/// The threads' end of the queue.
pub(super) struct Waiting {
    queue: Receiver<Message>,
    turns: Turns<Message>,
    /// Places in the turns.
    room: usize,
    /// Somebody waits for some of it.
    wanted: bool,
}

impl Waiting {
    /// Blocks until something waits. False when nothing will any more.
    pub(super) fn wait(&mut self) -> bool {
        while self.turns.is_empty() {
            let Some(message) = self.queue.blocking_recv() else {
                return false;
            };
            self.take(message);
        }
        self.drain();
        true
    }

    /// Whether somebody waits for any of it.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Blocks until something is wanted now, there is enough for a group, or the time has come.
    pub(super) fn linger(&mut self, timer: &Runtime, until: Instant, enough: usize) {
        let most = enough.min(self.room);
        while !self.wanted && self.turns.len() < most {
            let next = async { timeout_at(until, self.queue.recv()).await };
            let Some(message) = timer.block_on(next).ok().flatten() else {
                break;
            };
            self.take(message);
        }
        self.drain();
    }

    /// What shares the next commit.
    pub(super) fn group(&mut self, max: usize) -> Vec<Message> {
        let group = self.turns.group(max);
        // What is left has waited for a commit already.
        self.wanted = !self.turns.is_empty();
        group
    }

    fn drain(&mut self) {
        while self.turns.len() < self.room
            && let Ok(message) = self.queue.try_recv()
        {
            self.take(message);
        }
    }

    fn take(&mut self, mut message: Message) {
        let (tenant, when) = match &mut message {
            Message::Run(_, tenant) => (tenant.take(), When::Now),
            Message::Put(job, when) => (Some(job.lease.tenant.clone()), *when),
            // What was sent before is still served, then there is nothing more.
            Message::Stop => {
                self.queue.close();
                self.wanted = true;
                return;
            }
        };
        self.wanted |= when == When::Now;
        self.turns.push(tenant, message);
    }
}

/// The next job of a queue that several threads share.
pub(super) fn next(waiting: &Mutex<Waiting>) -> Option<Box<dyn Job>> {
    loop {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.wait() {
            return None;
        }
        match waiting.turns.pop() {
            Some(Message::Run(job, _)) => return Some(job),
            Some(Message::Put(job, _)) => return Some(Box::new(job)),
            Some(Message::Stop) | None => {}
        }
    }
}
