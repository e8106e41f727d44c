//! A tenant's share of a worker while other tenants send too.
//!
//! Claiming, encrypting and writing messages takes processor time, of which there is one for all. Whoever
//! has much to send would have most of it, in proportion to the number of its sessions, and the others'
//! messages would wait behind it at each step. So a tenant may have so many messages between their claim
//! and their writing at once, and its sessions take turns. Whoever is alone is not held back.
//!
//! A message that takes longer than [`HOLD`] waits for WhatsApp or the disk, not for the processor, and
//! counts no more: sessions that are stuck hold up nobody else of their tenant.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use wagate_domain::{SessionId, TenantId};

/// A tenant that has sent something within this time is there.
const PRESENT: Duration = Duration::from_secs(1);
/// So long a message counts at most.
const HOLD: Duration = Duration::from_millis(50);

/// Who has how many messages on their way to the socket.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Messages of one tenant while others are there.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<TenantId, Tenant>,
    /// The last two tenants that sent something, the newest first.
    latest: [Option<(TenantId, Instant)>; 2],
    places: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Places that are taken, by number and time, the oldest first.
    taken: VecDeque<(u64, Instant)>,
    /// Sessions that got less than they wanted, each once.
    waiting: VecDeque<(SessionId, Arc<Notify>)>,
    waits: HashSet<SessionId>,
}

/// A place for one message; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Arc<Shares>,
    tenant: TenantId,
    number: u64,
}

/// What a session got.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) taken: Vec<Place>,
    /// When to ask again at the latest, if it was less than was wanted.
    pub(crate) again: Option<Instant>,
}

impl Shares {
    pub(crate) fn new(share: usize) -> Arc<Self> {
        Arc::new(Self {
            share: share.max(1),
            state: Mutex::default(),
        })
    }

    /// Takes up to `wanted` places. When there are fewer, `wake` is rung as soon as one is free.
    pub(crate) fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        session: &SessionId,
        wanted: usize,
        wake: &Arc<Notify>,
    ) -> Places {
        let now = Instant::now();
        let mut state = self.lock();
        let free = state.free(tenant, self.share, now);
        let first = state.places;
        let count = free.min(wanted);
        state.places += count as u64;
        let lane = state.tenants.entry(tenant.clone()).or_default();
        let numbers = first..first + count as u64;
        lane.taken
            .extend(numbers.clone().map(|number| (number, now)));
        let mut again = None;
        if count < wanted {
            metrics::counter!("wagate_sends_held_back_total").increment(1);
            again = lane.taken.front().map(|(_, at)| *at + HOLD);
            if lane.waits.insert(session.clone()) {
                lane.waiting.push_back((session.clone(), Arc::clone(wake)));
            }
        }
        drop(state);
        let place = |number| Place {
            shares: Arc::clone(self),
            tenant: tenant.clone(),
            number,
        };
        Places {
            taken: numbers.map(place).collect(),
            again,
        }
    }

    /// The tenant has something to send: it is there.
    pub(crate) fn sends(&self, tenant: &TenantId) {
        let now = Instant::now();
        let mut state = self.lock();
        let [newest, before] = &mut state.latest;
        if newest.as_ref().is_none_or(|(last, _)| last != tenant) {
            *before = newest.replace((tenant.clone(), now));
        } else if let Some((_, at)) = newest {
            *at = now;
        }
    }

    fn give_back(&self, tenant: &TenantId, number: u64) {
        let mut state = self.lock();
        let Some(lane) = state.tenants.get_mut(tenant) else {
            return;
        };
        // Numbers rise, and the oldest mostly ends first; whoever is alone may have thousands.
        if let Ok(at) = lane
            .taken
            .binary_search_by_key(&number, |(taken, _)| *taken)
        {
            lane.taken.remove(at);
        }
        let mut free = state.free(tenant, self.share, Instant::now());
        let Some(lane) = state.tenants.get_mut(tenant) else {
            return;
        };
        while free > 0
            && let Some((session, wake)) = lane.waiting.pop_front()
        {
            lane.waits.remove(&session);
            wake.notify_one();
            free -= 1;
        }
        if lane.taken.is_empty() && lane.waiting.is_empty() {
            state.tenants.remove(tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Places that the tenant may still take.
    fn free(&mut self, tenant: &TenantId, share: usize, now: Instant) -> usize {
        let is_other = |(last, at): &(TenantId, Instant)| last != tenant && now - *at < PRESENT;
        if !self.latest.iter().flatten().any(is_other) {
            return usize::MAX;
        }
        let Some(lane) = self.tenants.get_mut(tenant) else {
            return share;
        };
        let is_over = |(_, at): &(u64, Instant)| now - *at >= HOLD;
        while lane.taken.front().is_some_and(is_over) {
            lane.taken.pop_front();
        }
        share.saturating_sub(lane.taken.len())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.give_back(&self.tenant, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 4;

    struct Rig {
        shares: Arc<Shares>,
        tenants: [TenantId; 2],
    }

    impl Rig {
        fn new() -> Self {
            Self {
                shares: Shares::new(SHARE),
                tenants: [TenantId::generate(), TenantId::generate()],
            }
        }

        fn take(&self, tenant: usize, wanted: usize) -> Places {
            self.take_for(tenant, wanted, &Arc::default())
        }

        fn take_for(&self, tenant: usize, wanted: usize, wake: &Arc<Notify>) -> Places {
            let session = SessionId::generate();
            let tenant = &self.tenants[tenant];
            let places = self.shares.take(tenant, &session, wanted, wake);
            if !places.taken.is_empty() {
                self.shares.sends(tenant);
            }
            places
        }

        fn is_rung(wake: &Notify) -> bool {
            let rung = std::pin::pin!(wake.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            rung.poll(&mut context).is_ready()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_takes_all_and_then_no_more_than_its_share() {
        let rig = Rig::new();
        let all = rig.take(0, 100);
        assert_eq!((all.taken.len(), all.again), (100, None));
        assert_eq!(rig.take(1, 100).taken.len(), SHARE);
        let none = rig.take(0, 1);
        assert_eq!(none.taken.len(), 0);
        assert!(none.again.is_some());
        drop(all);
        let some = rig.take(0, 100);
        assert_eq!(some.taken.len(), SHARE);
        drop(some);
        tokio::time::advance(PRESENT).await;
        assert_eq!(rig.take(0, 100).taken.len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_one_for_each_place() {
        let rig = Rig::new();
        rig.shares.sends(&rig.tenants[1]);
        let mut held = rig.take(0, SHARE).taken;
        let wakes: [Arc<Notify>; 3] = Default::default();
        for wake in &wakes {
            assert!(rig.take_for(0, 1, wake).taken.is_empty());
        }
        let rung = || wakes.each_ref().map(|wake| Rig::is_rung(wake));
        assert_eq!(rung(), [false; 3]);
        drop(held.pop());
        assert_eq!(rung(), [true, false, false]);
        // Whoever was woken did not come: the place is still free, and goes to the others.
        drop(held.pop());
        assert_eq!(rung(), [false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_holds_up_nobody() {
        let rig = Rig::new();
        rig.shares.sends(&rig.tenants[1]);
        let stuck = rig.take(0, SHARE);
        let refused = rig.take(0, 1);
        assert_eq!(refused.again, Some(Instant::now() + HOLD));
        tokio::time::advance(HOLD).await;
        assert_eq!(rig.take(0, SHARE + 1).taken.len(), SHARE);
        drop(stuck);
        // Nothing is left behind of a tenant that has nothing on its way.
        drop(rig.take(0, 1));
        let state = rig.shares.lock();
        assert!(state.tenants.is_empty(), "{:?}", state.tenants);
    }
}
