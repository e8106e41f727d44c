//! What was handed over to the database threads and waits for one of them.
//!
//! Callers put into a bounded channel. The thread moves what is there into its turns (`turns.rs`), also
//! bounded, and takes from there: only what is in the turns can be put in order. Half of the places are
//! on either side.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout_at};

use super::job::{Job, Message};
use super::turns::Turns;
use super::{DbOptions, When};

/// So long device state waits for company that is wanted soon.
const STATE_WAITS: Duration = Duration::from_millis(25);
/// So long a transaction does, whose session has no other meanwhile.
const RUN_WAITS: Duration = Duration::from_millis(3);

/// A queue of `queue_max` places, for one thread or, behind a lock, for several.
pub(super) fn channel(options: &DbOptions) -> (Sender<Message>, Waiting) {
    let (sender, queue) = mpsc::channel(options.queue_max.div_ceil(2).max(1));
    let waiting = Waiting {
        queue,
        turns: Turns::new(options.tenant_share),
        room: (options.queue_max / 2).max(1),
        due: None,
    };
    (sender, waiting)
}

/// The threads' end of the queue.
pub(super) struct Waiting {
    queue: Receiver<Message>,
    turns: Turns<Message>,
    /// Places in the turns.
    room: usize,
    /// When the first of it is to be served; in the past, where somebody waits for it.
    due: Option<Instant>,
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

    /// Blocks until the first of it is due, or there is enough for a group.
    pub(super) fn linger(&mut self, timer: &Runtime, enough: usize) {
        let most = enough.min(self.room);
        while let Some(due) = self.due
            && self.turns.len() < most
            && due > Instant::now()
        {
            let next = async { timeout_at(due, self.queue.recv()).await };
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
        self.due = (!self.turns.is_empty()).then(Instant::now);
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
        let now = Instant::now();
        let (tenant, due) = match &mut message {
            Message::Run(_, tenant, When::Soon) => (tenant.take(), now + RUN_WAITS),
            Message::Run(_, tenant, _) => (tenant.take(), now),
            Message::Put(job, When::Soon) => (Some(job.lease.tenant.clone()), now + STATE_WAITS),
            Message::Put(job, _) => (Some(job.lease.tenant.clone()), now),
            // What was sent before is still served, then there is nothing more.
            Message::Stop => {
                self.queue.close();
                self.due = Some(now);
                return;
            }
        };
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
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
            Some(Message::Run(job, ..)) => return Some(job),
            Some(Message::Put(job, _)) => return Some(Box::new(job)),
            Some(Message::Stop) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime;
    use tokio::sync::oneshot;

    use super::*;
    use crate::db::Tx;
    use crate::db::job::{Kind, TypedJob};
    use crate::error::StoreError;

    fn job(when: When) -> Message {
        let (reply, _) = oneshot::channel::<Result<(), StoreError>>();
        let job = TypedJob::new(|_: &mut Tx<'_>| Ok(()), reply, Kind::Writes);
        Message::Run(Box::new(job), None, when)
    }

    fn waiting() -> (Sender<Message>, Waiting) {
        channel(&DbOptions::new("sqlite::memory:"))
    }

    #[test]
    fn what_is_wanted_soon_waits_for_what_is_wanted_now() {
        let (queue, mut waiting) = waiting();
        let began = Instant::now();
        queue.try_send(job(When::Soon)).ok();
        assert!(waiting.wait());
        assert!(waiting.due.is_some_and(|due| due >= began + RUN_WAITS));
        for when in [When::Now, When::Unsynced] {
            queue.try_send(job(when)).ok();
            assert!(waiting.wait());
            assert!(waiting.due.is_some_and(|due| due <= Instant::now()));
            assert_eq!(
                waiting.group(8).len(),
                if when == When::Now { 2 } else { 1 }
            );
            assert_eq!(waiting.due, None);
        }
    }

    #[test]
    fn what_nothing_joins_is_served_by_itself() {
        let timer = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (queue, mut waiting) = waiting();
        queue.try_send(job(When::Soon)).ok();
        assert!(waiting.wait());
        let due = waiting.due.unwrap();
        waiting.linger(&timer, 8);
        assert!(Instant::now() >= due);
        assert_eq!(waiting.group(8).len(), 1);
    }
}
