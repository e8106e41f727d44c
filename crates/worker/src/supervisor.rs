//! Holds leases, and makes the running actors match what is wanted.
//!
//! A session whose row wants a worker is taken by whoever gets its lease; the actor of the holder carries
//! out what is wanted, and the lease goes back when nothing is left to do. Leases are renewed well before
//! they end. A lease that cannot be renewed is a session that must be let go (SL-1): the database may
//! have given it to somebody else, and two holders of one device would take each other's connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use wagate_domain::{SessionId, Timestamp};
use wagate_store::bus::{BusMessage, Heard};
use wagate_store::{Lease, StoreError, leases, queue};

use crate::session::{Actor, Control, Handle, Mailbox, Outcome};
use crate::worker::Shared;

/// A session whose actor ended by a fault is not taken up again sooner.
const FAULT_PAUSE: Duration = Duration::from_secs(5);
/// Sessions that one transaction acquires.
const ACQUIRE_MAX: u32 = 64;
/// The network is called "back" this often at most.
const NUDGE_EVERY: Duration = Duration::from_secs(1);

/// Clocks are slewed all the time; less than this is no jump.
const JUMP_MIN: Duration = Duration::from_secs(1);

/// An actor's task that has ended.
type Joined = Result<(Id, (Lease, Outcome)), JoinError>;

struct Supervisor {
    shared: Arc<Shared>,
    actors: JoinSet<(Lease, Outcome)>,
    /// Which session a task runs, for one that panics.
    tasks: HashMap<Id, Lease>,
    /// Sessions that may be started now; fills up with time.
    budget: f64,
    budget_at: Instant,
    /// When every lease that was not renewed since has ended.
    renewed_until: watch::Sender<Instant>,
    /// New leases of sessions whose former actor has not ended yet: one device at a time (SL-1).
    successors: HashMap<SessionId, Lease>,
    /// Leases kept for a while after a fault, so that nobody runs into it at once.
    penalties: Vec<(Instant, Lease)>,
    nudged_at: Instant,
    /// The time at the last renewal, by the clock that never jumps and by the other.
    clocks: (Instant, Timestamp),
    /// What the clock was put back since, and retries do not know of.
    put_back: Duration,
    /// Acquire before the next tick: there is reason to believe that somebody waits.
    eager: bool,
}

/// Runs until `stop`, then until every session has ended, which `gone` tells.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken, gone: CancellationToken) {
    let now = Instant::now();
    let (renewed_until, leases_end) = watch::channel(now + shared.options.lease_ttl);
    let letting_go = let_go_in_time(Arc::clone(&shared), leases_end);
    let mut supervisor = Supervisor {
        budget: f64::from(shared.options.restore_per_second.min(ACQUIRE_MAX)),
        budget_at: now,
        renewed_until,
        actors: JoinSet::new(),
        tasks: HashMap::new(),
        successors: HashMap::new(),
        penalties: Vec::new(),
        nudged_at: now,
        clocks: (now, shared.clock.now()),
        put_back: Duration::ZERO,
        eager: true,
        shared,
    };
    let supervising = async {
        supervisor.supervise(&stop).await;
        supervisor.wind_up().await;
    };
    tokio::select! {
        () = supervising => {}
        () = letting_go => {}
    }
    gone.cancel();
}

/// Lets every session go when the leases end unrenewed, also while the database keeps the supervisor
/// waiting: it may have given them to somebody else (SL-1). Ends with the supervisor.
async fn let_go_in_time(shared: Arc<Shared>, mut leases_end: watch::Receiver<Instant>) {
    loop {
        let end = *leases_end.borrow_and_update();
        tokio::select! {
            renewed = leases_end.changed() => {
                if renewed.is_err() {
                    return;
                }
            }
            () = sleep_until(end) => {
                let_go(&shared);
                if leases_end.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

fn let_go(shared: &Shared) {
    let handles = shared.handles();
    if !handles.is_empty() {
        tracing::error!("the leases have ended, all sessions are let go");
    }
    for handle in handles.values() {
        handle.lose();
    }
}

impl Supervisor {
    async fn supervise(&mut self, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut bus = shared.bus.subscribe_to_orders();
        let mut bus_open = true;
        let mut tick = interval(shared.options.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = interval(shared.options.lease_ttl / 3);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let more_at = self.more_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(ended) = self.actors.join_next_with_id() => {
                    self.actors_ended(ended, false).await;
                }
                _ = renewal.tick() => {
                    self.renew().await;
                    self.refresh_undone().await;
                }
                heard = bus.recv(), if bus_open => match heard {
                    Heard::Message(BusMessage::DesiredChanged { session }) => self.desired(&session),
                    Heard::Message(_) => {}
                    Heard::Missed => {
                        self.tell_all(Control::DesiredChanged);
                        self.eager = true;
                    }
                    Heard::Closed => bus_open = false,
                },
                () = shared.network_back.notified() => self.network_back(),
                () = sleep_until(more_at.unwrap_or_else(Instant::now)), if more_at.is_some() => {
                    self.acquire().await;
                }
                _ = tick.tick() => {
                    self.end_penalties().await;
                    self.eager = true;
                }
            }
        }
    }

    /// When to acquire next, if there is reason to: as soon as the budget allows.
    fn more_at(&mut self) -> Option<Instant> {
        if !self.eager {
            return None;
        }
        let now = Instant::now();
        let per_second = f64::from(self.shared.options.restore_per_second);
        let earned = now.duration_since(self.budget_at).as_secs_f64() * per_second;
        self.budget_at = now;
        self.budget = (self.budget + earned).min(f64::from(ACQUIRE_MAX).min(per_second.max(1.0)));
        // A few at a time rather than one by one: a transaction costs the same.
        let wanted = (per_second / 20.0).clamp(1.0, f64::from(ACQUIRE_MAX));
        let missing = (wanted - self.budget).max(0.0);
        Some(now + Duration::from_secs_f64(missing / per_second))
    }

    /// Takes sessions that want a worker, as many as the budget and the free slots allow.
    async fn acquire(&mut self) {
        self.more_at();
        self.eager = false;
        let held = self.actors.len() + self.penalties.len() + self.successors.len();
        let free = self.shared.options.sessions_max.saturating_sub(held);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 64"
        )]
        let affordable = self.budget as u32;
        let max = affordable.min(u32::try_from(free).unwrap_or(u32::MAX));
        if max == 0 {
            return;
        }
        let (worker, ttl) = (
            self.shared.options.id.clone(),
            self.shared.options.lease_ttl,
        );
        let now = self.shared.clock.now();
        let acquired = self
            .shared
            .db
            .write(move |tx| {
                let now = leases::now(tx, now)?;
                leases::acquire_some(tx, &worker, max, ttl, now)
            })
            .await;
        match acquired {
            Ok(leases) => {
                self.budget -= f64::from(u32::try_from(leases.len()).unwrap_or(u32::MAX));
                let all = u32::try_from(leases.len()).is_ok_and(|taken| taken < max);
                self.eager = !all;
                if all {
                    self.shared.restored.store(true, Ordering::Relaxed);
                }
                for lease in leases {
                    self.start(lease);
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "sessions could not be acquired, next tick tries again"
                );
            }
        }
    }

    fn start(&mut self, lease: Lease) {
        let mut handles = self.shared.handles();
        if let Some(former) = handles.get(&lease.session) {
            // Its lease ended unnoticed, or it is still letting go of its device.
            former.lose();
            drop(handles);
            self.successors.insert(lease.session.clone(), lease);
            return;
        }
        let (handle, mailbox) = Handle::new(lease.clone());
        handles.insert(lease.session.clone(), handle);
        drop(handles);
        let shared = Arc::clone(&self.shared);
        let task = self.actors.spawn(run_actor(shared, lease.clone(), mailbox));
        self.tasks.insert(task.id(), lease);
    }

    /// Takes leave of an actor, and of all others that have ended meanwhile.
    async fn actors_ended(&mut self, first: Joined, stopping: bool) {
        let mut ended = vec![first];
        while let Some(next) = self.actors.try_join_next_with_id() {
            ended.push(next);
        }
        let mut done = Vec::new();
        let mut gone = Vec::new();
        for joined in ended {
            let Some((lease, outcome)) = self.joined(joined) else {
                continue;
            };
            gone.push(lease.session.clone());
            match outcome {
                Outcome::Done => done.push(lease),
                Outcome::Fault if stopping => done.push(lease),
                Outcome::Fault => self.penalties.push((Instant::now() + FAULT_PAUSE, lease)),
                Outcome::LeaseLost | Outcome::Deleted => {}
            }
        }
        let successors: Vec<Lease> = gone
            .iter()
            .filter_map(|session| self.successors.remove(session))
            .collect();
        if stopping {
            done.extend(successors.iter().cloned());
        }
        self.release(done).await;
        {
            let mut handles = self.shared.handles();
            for session in &gone {
                handles.remove(session);
            }
        }
        if !stopping {
            for lease in successors {
                self.start(lease);
            }
        }
        // Something new may have been wanted in the meantime.
        self.eager = true;
    }

    fn joined(&mut self, joined: Joined) -> Option<(Lease, Outcome)> {
        match joined {
            Ok((id, ended)) => {
                self.tasks.remove(&id);
                Some(ended)
            }
            Err(error) => {
                let lease = self.tasks.remove(&error.id())?;
                tracing::error!(
                    session.id = %lease.session,
                    error = &error as &dyn std::error::Error,
                    "a session's actor panicked"
                );
                Some((lease, Outcome::Fault))
            }
        }
    }

    /// Gives leases back, in one transaction.
    async fn release(&self, given: Vec<Lease>) {
        if given.is_empty() {
            return;
        }
        let count = given.len();
        let given_back = self
            .shared
            .db
            .write(move |tx| {
                for lease in &given {
                    match leases::release(tx, lease) {
                        // Somebody has it already, which is as good.
                        Ok(()) | Err(StoreError::LeaseLost | StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
            .await;
        if let Err(error) = given_back {
            // They end by themselves after their time.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(count, error, "leases could not be given back");
        }
    }

    async fn end_penalties(&mut self) {
        let now = Instant::now();
        let (over, left) = std::mem::take(&mut self.penalties)
            .into_iter()
            .partition::<Vec<_>, _>(|(until, _)| *until <= now);
        self.penalties = left;
        self.release(over.into_iter().map(|(_, lease)| lease).collect())
            .await;
    }

    async fn renew(&mut self) {
        let asked_at = Instant::now();
        let (worker, ttl) = (
            self.shared.options.id.clone(),
            self.shared.options.lease_ttl,
        );
        let now = self.shared.clock.now();
        let back = self.look_at_the_clock(now);
        match self
            .shared
            .db
            .write(move |tx| {
                if !back.is_zero() {
                    queue::clock_put_back(tx, &worker, back)?;
                }
                let now = leases::now(tx, now)?;
                leases::renew(tx, &worker, ttl, now)
            })
            .await
        {
            Ok(held) => {
                self.put_back = Duration::ZERO;
                self.renewed_until.send_replace(asked_at + ttl);
                let held: HashMap<SessionId, Lease> = held
                    .into_iter()
                    .map(|lease| (lease.session.clone(), lease))
                    .collect();
                for (session, handle) in self.shared.handles().iter() {
                    let still = held
                        .get(session)
                        .is_some_and(|l| l.token == handle.lease.token);
                    if !still {
                        tracing::warn!(session.id = %session, "the lease is lost");
                        handle.lose();
                    }
                }
                let unattended = self.unattended(held);
                self.eager |= !unattended.is_empty();
                self.release(unattended).await;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "leases could not be renewed");
                if Instant::now() >= *self.renewed_until.borrow() {
                    let_go(&self.shared);
                }
            }
        }
    }

    /// Gives what the clock was put back since the last renewal that was committed.
    fn look_at_the_clock(&mut self, now: Timestamp) -> Duration {
        let (then, was) = std::mem::replace(&mut self.clocks, (Instant::now(), now));
        let back = was.plus(then.elapsed()).since(now);
        if back >= JUMP_MIN {
            tracing::warn!(?back, "the clock was put back");
            self.put_back += back;
        }
        self.put_back
    }

    /// Leases that were renewed although no actor has them: of sessions let go when they could not be
    /// renewed, and which nobody else has taken. They would be renewed, and nobody run them, for ever.
    fn unattended(&self, mut held: HashMap<SessionId, Lease>) -> Vec<Lease> {
        for session in self.shared.handles().keys() {
            held.remove(session);
        }
        for (_, lease) in &self.penalties {
            held.remove(&lease.session);
        }
        for session in self.successors.keys() {
            held.remove(session);
        }
        held.into_values().collect()
    }

    fn desired(&mut self, session: &SessionId) {
        match self.shared.handles().get(session) {
            // Should the lane be full, the tick finds what is undone.
            Some(handle) => {
                handle.tell(Control::DesiredChanged);
            }
            None => self.eager = true,
        }
    }

    /// Tells actors whose row wants something that they have not carried out: the wake-up may be lost.
    async fn refresh_undone(&self) {
        let worker = self.shared.options.id.clone();
        match self
            .shared
            .db
            .read(move |tx| leases::undone(tx, &worker))
            .await
        {
            Ok(sessions) => {
                let handles = self.shared.handles();
                for session in sessions {
                    if let Some(handle) = handles.get(&session) {
                        handle.tell(Control::DesiredChanged);
                    }
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "what is wanted could not be read, next tick tries again"
                );
            }
        }
    }

    fn tell_all(&self, control: Control) {
        for handle in self.shared.handles().values() {
            handle.tell(control);
        }
    }

    /// One session came back from a back-off: the others need not sleep out theirs. The engine paces
    /// what follows.
    fn network_back(&mut self) {
        if self.nudged_at.elapsed() >= NUDGE_EVERY {
            self.nudged_at = Instant::now();
            self.tell_all(Control::Nudge);
        }
    }

    /// Ends all actors and gives their leases back. `Worker::stop` cuts what takes too long.
    async fn wind_up(&mut self) {
        self.tell_all(Control::Shutdown);
        let mut renewal = interval(self.shared.options.lease_ttl / 3);
        let mut reminder = interval(Duration::from_millis(250));
        while !self.actors.is_empty() {
            tokio::select! {
                Some(ended) = self.actors.join_next_with_id() => {
                    self.actors_ended(ended, true).await;
                }
                _ = renewal.tick() => self.renew().await,
                // A lane that was full when the word went round has room by now.
                _ = reminder.tick() => self.tell_all(Control::Shutdown),
            }
        }
        let left = std::mem::take(&mut self.penalties);
        self.release(left.into_iter().map(|(_, lease)| lease).collect())
            .await;
    }
}

async fn run_actor(shared: Arc<Shared>, lease: Lease, mailbox: Mailbox) -> (Lease, Outcome) {
    let outcome = match Actor::load(shared, lease.clone(), mailbox).await {
        Ok(actor) => Box::pin(actor.run()).await,
        Err(outcome) => outcome,
    };
    (lease, outcome)
}
