//! Bounded waits for what another part of the program will do.
//!
//! A request writes, then waits until the database shows what it wants to see. One task listens to the
//! bus and wakes the requests whose row changed, so a wake-up costs what concerns it and not what is
//! waiting. A wake-up may be lost: every wait also looks again at each [`TICK`] (BD-1: and ends).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wagate_domain::{MessageId, SessionId, TenantId};
use wagate_store::bus::BusMessage;

/// How often a wait looks although nothing woke it.
const TICK: Duration = Duration::from_millis(500);

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Session(SessionId),
    Message(MessageId),
    Events(TenantId),
}

/// Everybody who waits, by what they wait for. An entry lives as long as its waiters do.
#[derive(Debug)]
pub(crate) struct Waits {
    tick: Duration,
    ended: AtomicBool,
    topics: Mutex<HashMap<Topic, watch::Sender<()>>>,
}

/// One who waits. Made before the write whose effect it waits for, so that no wake-up falls between.
#[derive(Debug)]
pub(crate) struct Waiter {
    waits: Arc<Waits>,
    topic: Topic,
    wake: watch::Receiver<()>,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            tick: TICK,
            ended: AtomicBool::new(false),
            topics: Mutex::default(),
        }
    }
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, watch::Sender<()>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn on(self: &Arc<Self>, topic: Topic) -> Waiter {
        let wake = self
            .lock()
            .entry(topic.clone())
            .or_insert_with(|| watch::channel(()).0)
            .subscribe();
        Waiter {
            waits: Arc::clone(self),
            topic,
            wake,
        }
    }

    /// Wakes those whom a bus message concerns.
    pub(crate) fn wake(&self, message: &BusMessage) {
        let topic = match message {
            BusMessage::SessionChanged { session } => Topic::Session(session.clone()),
            BusMessage::MessageSettled { message } => Topic::Message(message.clone()),
            BusMessage::EventsAppended { tenant } => Topic::Events(tenant.clone()),
            BusMessage::QueueReady { .. } | BusMessage::DesiredChanged { .. } => return,
        };
        if let Some(wake) = self.lock().get(&topic) {
            wake.send_replace(());
        }
    }

    /// Wakes all, after wake-ups were lost.
    pub(crate) fn wake_all(&self) {
        for wake in self.lock().values() {
            wake.send_replace(());
        }
    }

    /// Ends every wait, now and from now on: each looks once more and then gives up.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Waiter {
    /// Looks until `probe` finds what it looks for, or until `deadline`.
    ///
    /// A probe that fails ends the wait with its error.
    pub(crate) async fn until<T, E, F, P>(
        &mut self,
        deadline: Instant,
        probe: F,
    ) -> Result<Option<T>, E>
    where
        F: FnMut() -> P,
        P: Future<Output = Result<Option<T>, E>>,
    {
        self.wake.mark_changed();
        self.after_wake(deadline, probe).await
    }

    /// As [`Self::until`], without a first look: for what cannot have happened yet.
    pub(crate) async fn after_wake<T, E, F, P>(
        &mut self,
        deadline: Instant,
        mut probe: F,
    ) -> Result<Option<T>, E>
    where
        F: FnMut() -> P,
        P: Future<Output = Result<Option<T>, E>>,
    {
        loop {
            // A closed channel cannot be: the entry lives as long as this receiver. A time-out is a tick.
            if !self.waits.has_ended() {
                let tick = deadline.min(Instant::now() + self.waits.tick);
                drop(timeout_at(tick, self.wake.changed()).await);
            }
            if let Some(found) = probe().await? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline || self.waits.has_ended() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut topics = self.waits.lock();
        // This receiver still counts.
        if topics
            .get(&self.topic)
            .is_some_and(|wake| wake.receiver_count() <= 1)
        {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn waits(tick: Duration) -> Arc<Waits> {
        Arc::new(Waits {
            tick,
            ..Waits::default()
        })
    }

    fn within(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    #[tokio::test]
    async fn a_wake_up_during_the_first_look_is_not_lost_and_entries_go_with_their_waiters() {
        // No tick falls into the test.
        let waits = waits(Duration::from_secs(600));
        let session = SessionId::generate();
        let mut first = waits.on(Topic::Session(session.clone()));
        let second = waits.on(Topic::Session(session.clone()));
        assert_eq!(waits.len(), 1);

        let looks = AtomicU32::new(0);
        let found = first
            .until(within(60), || async {
                if looks.fetch_add(1, Ordering::SeqCst) == 0 {
                    waits.wake(&BusMessage::SessionChanged {
                        session: session.clone(),
                    });
                    return Ok::<_, ()>(None);
                }
                Ok(Some("seen"))
            })
            .await;
        assert_eq!(found, Ok(Some("seen")));

        drop(first);
        assert_eq!(waits.len(), 1);
        drop(second);
        assert_eq!(waits.len(), 0);
    }

    #[tokio::test]
    async fn a_wake_up_before_the_wait_spares_the_first_look() {
        let waits = waits(Duration::from_secs(600));
        let message = MessageId::generate();
        let mut waiter = waits.on(Topic::Message(message.clone()));
        waits.wake(&BusMessage::MessageSettled { message });
        let found = waiter
            .after_wake(within(60), || async { Ok::<_, ()>(Some(())) })
            .await;
        assert_eq!(found, Ok(Some(())));
    }

    #[tokio::test]
    async fn a_lost_wake_up_only_delays() {
        let mut waiter = waits(Duration::from_millis(1)).on(Topic::Message(MessageId::generate()));
        let looks = AtomicU32::new(0);
        let found = waiter
            .until(within(60), || async {
                Ok::<_, ()>((looks.fetch_add(1, Ordering::SeqCst) == 3).then_some(()))
            })
            .await;
        assert_eq!(found, Ok(Some(())));
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_and_looks_once_even_without_time() {
        let mut waiter = waits(TICK).on(Topic::Events(TenantId::generate()));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(
            waiter
                .until(soon, || async { Ok::<_, ()>(None::<()>) })
                .await,
            Ok(None)
        );
        assert!(Instant::now() >= soon);
        let past = Instant::now();
        assert_eq!(
            waiter.until(past, || async { Ok::<_, ()>(Some(1)) }).await,
            Ok(Some(1))
        );
    }

    #[tokio::test]
    async fn at_the_end_every_wait_gives_up_after_a_last_look() {
        let waits = waits(Duration::from_secs(600));
        let mut waiter = waits.on(Topic::Message(MessageId::generate()));
        let waiting = waiter.after_wake(within(600), || async { Ok::<_, ()>(None::<()>) });
        let (found, ()) = tokio::join!(waiting, async { waits.end() });
        assert_eq!(found, Ok(None));
        let mut late = waits.on(Topic::Message(MessageId::generate()));
        let looked = late.after_wake(within(600), || async { Ok::<_, ()>(Some(1)) });
        assert_eq!(looked.await, Ok(Some(1)));
    }
}
