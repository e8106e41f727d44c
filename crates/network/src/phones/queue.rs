//! What waits for phones: stanzas in lanes that keep each account's order, and alarms by time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::node::Node;
use crate::world::{AccountId, DeviceId, Millis};

/// One piece of work for a phone.
#[derive(Debug)]
pub(super) enum Work {
    Stanza(Node),
    /// A companion waits for its app-state key.
    Greet(DeviceId),
    /// A companion is gone.
    Forget(DeviceId),
    /// Something that the phone planned is due.
    Tick,
}

/// All work; each account's on one lane, so in order.
pub(super) struct Queue {
    lanes: Vec<Lane>,
    /// Waiting or under way.
    pending: AtomicUsize,
    backlog_max: usize,
    /// Told when the backlog falls to its bound, and when it is empty.
    relief: Notify,
}

#[derive(Default)]
struct Lane {
    work: Mutex<VecDeque<(AccountId, Work)>>,
    arrival: Notify,
}

impl Queue {
    pub(super) fn new(lanes: usize, backlog_max: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            pending: AtomicUsize::new(0),
            backlog_max,
            relief: Notify::new(),
        }
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn push(&self, account: AccountId, work: Work) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let lane = &self.lanes[account.0 as usize % self.lanes.len()];
        lane.work().push_back((account, work));
        lane.arrival.notify_one();
    }

    pub(super) fn pop(&self, lane: usize) -> Option<(AccountId, Work)> {
        self.lanes[lane].work().pop_front()
    }

    /// One popped piece is finished, with everything that it led to pushed before.
    pub(super) fn done(&self) {
        let left = self.pending.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == self.backlog_max || left == 0 {
            self.relief.notify_waiters();
        }
    }

    /// Waits for work on a lane.
    pub(super) async fn ready(&self, lane: usize) {
        loop {
            // The permit of `notify_one` is kept, so nothing that comes in between is missed.
            if !self.lanes[lane].work().is_empty() {
                return;
            }
            self.lanes[lane].arrival.notified().await;
        }
    }

    pub(super) async fn admit(&self) {
        self.until_at_most(self.backlog_max).await;
    }

    pub(super) async fn idle(&self) {
        self.until_at_most(0).await;
    }

    async fn until_at_most(&self, limit: usize) {
        loop {
            let relief = self.relief.notified();
            tokio::pin!(relief);
            relief.as_mut().enable();
            if self.len() <= limit {
                return;
            }
            relief.await;
        }
    }
}

impl Lane {
    fn work(&self) -> MutexGuard<'_, VecDeque<(AccountId, Work)>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When which phone has something to do by itself.
#[derive(Default)]
pub(super) struct Alarms {
    times: Mutex<Times>,
    sooner: Notify,
}

#[derive(Default)]
struct Times {
    order: BTreeSet<(Millis, AccountId)>,
    by_account: HashMap<AccountId, Millis>,
}

impl Alarms {
    /// Sets a phone's alarm; an earlier one stays.
    pub(super) fn set(&self, account: AccountId, due: Millis) {
        let mut times = self.times();
        match times.by_account.get(&account).copied() {
            Some(known) if known <= due => return,
            Some(known) => {
                times.order.remove(&(known, account));
            }
            None => {}
        }
        times.by_account.insert(account, due);
        times.order.insert((due, account));
        if times.order.first() == Some(&(due, account)) {
            self.sooner.notify_one();
        }
    }

    /// Takes the alarms that ring at `now`.
    pub(super) fn due(&self, now: Millis) -> Vec<AccountId> {
        let mut times = self.times();
        let mut due = Vec::new();
        while let Some((time, account)) = times.order.first().copied()
            && time <= now
        {
            times.order.pop_first();
            times.by_account.remove(&account);
            due.push(account);
        }
        due
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.times().order.first().map(|(time, _)| *time)
    }

    pub(super) fn wake(&self) {
        self.sooner.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.sooner.notified().await;
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn admission_waits_for_the_backlog_to_shrink() {
        let queue = Queue::new(1, 1);
        for _ in 0..3 {
            queue.push(AccountId(0), Work::Tick);
        }
        let admitted = queue.admit();
        tokio::pin!(admitted);
        assert!(futures::poll!(admitted.as_mut()).is_pending());
        for left in [true, false] {
            assert!(queue.pop(0).is_some());
            queue.done();
            assert_eq!(futures::poll!(admitted.as_mut()).is_pending(), left);
        }
        queue.pop(0);
        queue.done();
        queue.idle().await;
    }

    #[test]
    fn alarms_ring_in_order_and_once() {
        let alarms = Alarms::default();
        alarms.set(AccountId(1), 50);
        alarms.set(AccountId(2), 40);
        alarms.set(AccountId(1), 30);
        alarms.set(AccountId(2), 60);
        assert_eq!(alarms.next(), Some(30));
        assert_eq!(alarms.due(45), [AccountId(1), AccountId(2)]);
        assert!(alarms.due(1_000).is_empty());
    }
}
