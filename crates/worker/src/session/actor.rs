//! Message path, step 4 of 7: carries out what `step` decides for one session: claims, and sends.
//!
//! One task a session. It takes a turn whenever something happened: gathers what there is, asks the core
//! what follows, writes it in one transaction ([`super::batch`]), then lets the device act. Sends run
//! beside it, so that a slow recipient holds up nobody else. A lost lease ends it without another word
//! (SL-1); what it heard of messages and could not commit it leaves to the session's next actor.

mod acts;
mod commit;
mod resend;

pub(crate) use resend::longest_resend_wait;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use wagate_domain::pacing::{Reason, Scope};
use wagate_domain::{Jid, LinkState, PhoneNumber, Timestamp, WaMessageId};
use wagate_engine::{Device, Ended, EngineError, EngineEvent};
use wagate_store::queue::{self, Claimed, Retry};
use wagate_store::sessions::{self, Session};
use wagate_store::{Lease, StoreError, pacing};

use super::batch::{Batch, Ending};
use super::outbound;
use super::paced::Paced;
use super::step::{Core, Effect, Input, Observed, Want};
use super::unsaved::Unsaved;
use super::{Control, Mailbox};
use crate::shares::{Place, Places};
use crate::worker::Shared;

/// Events of a device that may wait; the engine drops receipts beyond it and says so.
const EVENTS_MAX: usize = 256;
/// The session's last activity is written this often at most.
const ACTIVITY_EVERY: Duration = Duration::from_secs(30);

/// Chats of which is remembered that they are noted as known.
const MET_MAX: usize = 4096;

/// Why an actor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what was wanted; the lease can go.
    Done,
    /// Somebody else holds the lease.
    LeaseLost,
    /// The session is gone, and the lease with it.
    Deleted,
    /// The database refused in a way that waiting does not cure. Try again, but not at once.
    Fault,
}

/// Ends a turn, and the actor with it.
type Turn<T = ()> = Result<T, Outcome>;

/// The task of one session.
pub(crate) struct Actor {
    shared: Arc<Shared>,
    lease: Lease,
    mailbox: Mailbox,
    core: Core,
    device: Option<Device>,
    events: Option<mpsc::Receiver<EngineEvent>>,
    /// Heard while a commit took its time, for the next turn.
    backlog: Vec<Input>,
    unsaved: Unsaved,
    claims: HashMap<WaMessageId, Claimed>,
    /// Of messages that were claimed and are not being written yet.
    places: HashMap<WaMessageId, Place>,
    /// When to look again for a place, if there was none.
    place_at: Option<Instant>,
    jobs: JoinSet<Job>,
    /// The kind of the owner's phone: told once, right after pairing.
    platform: Option<String>,
    backing_off: bool,
    /// The core's time runs on from here by the clock that never jumps, so that no time-out does.
    began: (Timestamp, Instant),
    active_at: Option<Timestamp>,
    paced: Paced,
    /// Chats that are noted as known.
    met: HashSet<Jid>,
}

/// What a task beside the actor comes back with.
enum Job {
    Input(Input),
    Opened(Result<(Device, mpsc::Receiver<EngineEvent>), EngineError>),
    /// `stop` or `logout` returned.
    DeviceDone,
}

impl Actor {
    /// Reads the session, takes back what an earlier holder had in flight (MP-2), and makes the actor.
    pub(crate) async fn load(shared: Arc<Shared>, lease: Lease, mailbox: Mailbox) -> Turn<Actor> {
        let now = shared.clock.now();
        let attempts_max = shared.bounds.retries_max.saturating_add(1);
        let started = {
            let (lease, tenant) = (lease.clone(), lease.tenant.clone());
            shared
                .db
                .write_for(&tenant, move |tx| {
                    queue::release_stale(tx, &lease, attempts_max, now)?;
                    let stored = pacing::load(tx, &lease.session)?;
                    Ok((sessions::find(tx, &lease.session)?, stored))
                })
                .await
        };
        let (session, stored) = match started {
            Ok(started) => started,
            Err(StoreError::LeaseLost) => return Err(Outcome::LeaseLost),
            Err(StoreError::NotFound { .. }) => return Err(Outcome::Deleted),
            Err(error) => return Err(fault(&lease, &error, "a session could not be read")),
        };
        let platform = session
            .identity
            .as_ref()
            .and_then(|identity| identity.platform.clone());
        let core = Core::new(shared.bounds, want_of(&session), session.link);
        let unsaved = shared.left.take(&lease.session);
        let paced = Paced::new(shared.options.pacing, stored);
        Ok(Actor {
            shared,
            lease,
            mailbox,
            core,
            device: None,
            events: None,
            backlog: Vec::new(),
            unsaved,
            claims: HashMap::new(),
            places: HashMap::new(),
            place_at: None,
            jobs: JoinSet::new(),
            platform,
            backing_off: false,
            began: (now, Instant::now()),
            active_at: None,
            paced,
            met: HashSet::new(),
        })
    }

    /// Runs the session until what is wanted is done, the lease is lost, or the process stops.
    pub(crate) async fn run(mut self) -> Outcome {
        let lost = self.mailbox.lost.clone();
        // Wherever a turn waits, for the database too: a lost lease is a device to be let go (SL-1).
        let outcome = tokio::select! {
            biased;
            () = lost.cancelled() => Outcome::LeaseLost,
            ended = self.turns() => ended.err().unwrap_or(Outcome::Done),
        };
        // Whatever the reason: no device outlives its actor.
        if let Some(device) = self.device.take() {
            self.end(device).await;
        }
        self.jobs.shutdown().await;
        if outcome != Outcome::Deleted {
            let left = &self.shared.left;
            left.put(&self.lease.session, self.unsaved, Instant::now());
        }
        outcome
    }

    async fn turns(&mut self) -> Turn {
        let effects = self.core.begin(self.core_now());
        self.perform(effects).await?;
        while !self.core.is_over() {
            let inputs = self.gather().await?;
            let effects = self.core.step(self.core_now(), inputs);
            self.perform(effects).await?;
        }
        Ok(())
    }

    fn core_now(&self) -> Timestamp {
        self.began.0.plus(self.began.1.elapsed())
    }

    /// Waits until something happens, then takes along whatever else has happened.
    async fn gather(&mut self) -> Turn<Vec<Input>> {
        let mut inputs = std::mem::take(&mut self.backlog);
        let ready = !inputs.is_empty() || !self.unsaved.is_empty();
        let mut jobs = Vec::new();
        let mut control = None;
        let tick_at = self.core.next_tick().map(|at| {
            let wait = at.since(self.core_now());
            Instant::now() + wait.max(Duration::from_millis(5))
        });
        let look_at = [self.paced.next_look(), self.place_at];
        let look_at = look_at.into_iter().flatten().min();
        tokio::select! {
            biased;
            () = self.mailbox.lost.cancelled() => return Err(Outcome::LeaseLost),
            told = self.mailbox.control.recv() => control = told,
            // Before the events, which are all taken below: a steady stream of them hides no wake-up.
            () = self.mailbox.work.notified() => inputs.push(Input::Wake),
            event = next_event(&mut self.events) => {
                inputs.extend(self.heard(event));
            }
            Some(job) = self.jobs.join_next() => jobs.push(self.joined(job)?),
            () = sleep_until(tick_at.unwrap_or_else(Instant::now)), if tick_at.is_some() => {
                inputs.push(Input::Tick);
            }
            () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                self.place_at = None;
                inputs.push(Input::Wake);
            }
            () = std::future::ready(()), if ready => {}
        }
        if let Some(control) = control {
            inputs.extend(self.obey(control).await?);
        }
        while let Some(job) = self.jobs.try_join_next() {
            jobs.push(self.joined(job)?);
        }
        for job in jobs {
            self.job_done(job, &mut inputs);
        }
        for _ in 0..EVENTS_MAX {
            let Some(event) = self
                .events
                .as_mut()
                .and_then(|events| events.try_recv().ok())
            else {
                break;
            };
            inputs.extend(self.heard(Some(event)));
        }
        Ok(inputs)
    }

    /// A panic beside the actor leaves it not knowing what was done: start over.
    fn joined(&self, job: Result<Job, JoinError>) -> Turn<Job> {
        job.map_err(|error| {
            tracing::error!(
                session.id = %self.lease.session,
                error = &error as &dyn std::error::Error,
                "a task of a session panicked"
            );
            Outcome::Fault
        })
    }

    /// Turns an event of the device into an input, and keeps news about messages until they are
    /// committed; a channel that closes without a last word counts as a fault.
    fn heard(&mut self, event: Option<EngineEvent>) -> Option<Input> {
        let event = event.unwrap_or_else(|| {
            EngineEvent::Ended(Ended::Fault {
                reason: "the device went silent".to_owned(),
            })
        });
        self.unsaved.note(&event);
        match &event {
            // All that there is to a receipt.
            EngineEvent::Receipt { .. } => return None,
            EngineEvent::Ended(_) => self.events = None,
            EngineEvent::Paired(identity) => self.platform.clone_from(&identity.platform),
            EngineEvent::Missed { receipts } => {
                metrics::counter!("wagate_receipts_missed_total").increment(*receipts);
            }
            _ => {}
        }
        Some(Input::Device(event))
    }

    async fn obey(&mut self, control: Control) -> Turn<Option<Input>> {
        match control {
            Control::Nudge => Ok(Some(Input::Nudge)),
            Control::Shutdown => Ok(Some(Input::Shutdown)),
            Control::Resend => self.resend().await.map(|()| None),
            Control::DesiredChanged => {
                let session = self.lease.session.clone();
                match self
                    .shared
                    .db
                    .read(move |tx| {
                        let stored = pacing::load(tx, &session)?;
                        Ok((sessions::find(tx, &session)?, stored.rules))
                    })
                    .await
                {
                    Ok((session, rules)) => {
                        self.paced.configure(rules);
                        Ok(Some(Input::Wanted(want_of(&session))))
                    }
                    Err(StoreError::NotFound { .. }) => Err(Outcome::Deleted),
                    // The supervisor's tick asks again.
                    Err(error) if error.is_transient() => Ok(None),
                    Err(error) => Err(fault(&self.lease, &error, "a session could not be read")),
                }
            }
        }
    }

    fn job_done(&mut self, job: Job, inputs: &mut Vec<Input>) {
        match job {
            Job::Input(input) => inputs.push(input),
            Job::Opened(Ok((device, events))) => {
                let linked = device.identity().is_some();
                self.device = Some(device);
                self.events = Some(events);
                inputs.push(Input::Opened { linked });
            }
            Job::Opened(Err(error)) => {
                tracing::warn!(
                    session.id = %self.lease.session,
                    error = &error as &dyn std::error::Error,
                    "a device could not be opened"
                );
                inputs.push(Input::OpenFailed {
                    reason: error.to_string(),
                });
            }
            Job::DeviceDone => {
                while let Some(events) = &mut self.events
                    && let Ok(event) = events.try_recv()
                {
                    inputs.extend(self.heard(Some(event)));
                }
                if self.events.take().is_some() {
                    inputs.push(Input::Device(EngineEvent::Ended(Ended::Stopped)));
                }
            }
        }
    }

    /// Carries out effects: changes of rows together, then what the device does.
    async fn perform(&mut self, mut effects: Vec<Effect>) -> Turn {
        loop {
            let mut batch = Batch {
                concurrency: self.shared.bounds.concurrency,
                ..Batch::default()
            };
            let mut acts = Vec::new();
            let mut delete = false;
            let now = self.shared.clock.now();
            for effect in effects {
                match effect {
                    Effect::DeleteSession => delete = true,
                    effect => {
                        if let Some(act) = self.sort(effect, &mut batch, now) {
                            acts.push(act);
                        }
                    }
                }
            }
            batch.pacing = self.paced.take_news(now);
            let wanted = batch.claim;
            let places = self.take_places(&mut batch, now);
            let shut = wanted.filter(|_| batch.claim.is_none());
            let done = self.commit(batch).await?;
            if delete {
                return self.delete().await;
            }
            for act in acts {
                self.act(act).await;
            }
            let mut inputs = self.account(done, places);
            // What must wait was not looked at: it stays queued.
            inputs.extend(shut.map(|asked| Input::Claimed {
                claimed: Vec::new(),
                asked,
            }));
            if inputs.is_empty() {
                return Ok(());
            }
            effects = self.core.step(self.core_now(), inputs);
            if effects.is_empty() {
                return Ok(());
            }
        }
    }

    /// Puts an effect on rows into the batch; gives back one that is the device's.
    fn sort(&mut self, effect: Effect, batch: &mut Batch, now: Timestamp) -> Option<Effect> {
        match effect {
            Effect::Acked { wa_id } => {
                if let Some(claimed) = self.claims.remove(&wa_id) {
                    self.meet(claimed.chat, batch);
                }
                let stale = |at: Timestamp| now.since(at) >= ACTIVITY_EVERY;
                if self.active_at.is_none_or(stale) {
                    self.active_at = Some(now);
                    batch.active_at = Some(now);
                }
            }
            Effect::Retry {
                wa_id,
                class,
                attempt,
                failure,
            } => {
                tracing::debug!(message.wa_id = %wa_id, attempt, code = failure.code, "retry later");
                let due = outbound::due_again(class, attempt, now);
                self.end_claim(&wa_id, Ending::Retry(Retry { due, counts: true }), batch);
            }
            Effect::PutBack { wa_id } => {
                self.end_claim(
                    &wa_id,
                    Ending::Retry(Retry {
                        due: now,
                        counts: false,
                    }),
                    batch,
                );
            }
            Effect::Pause {
                scope,
                reason,
                named,
            } => self.pause(now, scope, reason, named),
            Effect::Hold { wa_id, scope } => {
                let due = self.paced.held_until(now, scope);
                let counts = false;
                self.end_claim(&wa_id, Ending::Retry(Retry { due, counts }), batch);
            }
            Effect::TellSilent => batch.silent = true,
            Effect::Fail { wa_id, failure } => {
                self.end_claim(&wa_id, Ending::Fail(failure), batch);
            }
            Effect::ClearKeys => batch.clear_keys = true,
            Effect::Observe(observed) => batch.observed.push(self.observed(*observed)),
            Effect::Claim { asked } => batch.claim = Some(asked),
            act => return Some(act),
        }
        None
    }

    fn end_claim(&mut self, wa_id: &WaMessageId, ending: Ending, batch: &mut Batch) {
        self.places.remove(wa_id);
        if let Some(claimed) = self.claims.remove(wa_id) {
            batch.endings.push((claimed, ending));
        }
    }

    fn observed(&mut self, mut observed: Observed) -> Observed {
        let link = &observed.link;
        tracing::info!(
            session.id = %self.lease.session,
            tenant.id = %self.lease.tenant,
            state = link.as_str(),
            reason = link.reason().map_or("", |reason| reason.code.as_str()),
            "session state"
        );
        self.mailbox.stand(link);
        match link {
            LinkState::Connected => {
                if self.backing_off {
                    self.shared.network_back.notify_one();
                }
                self.backing_off = false;
            }
            LinkState::Backoff { .. } => self.backing_off = true,
            LinkState::LoggedOut { .. } => self.platform = None,
            _ => {}
        }
        if let Some(identity) = &mut observed.identity {
            identity.platform.clone_from(&self.platform);
        }
        let number = observed
            .identity
            .as_ref()
            .and_then(|identity| identity.jid.phone());
        let number = number.as_ref().map(PhoneNumber::digits);
        let now = self.shared.clock.now();
        self.paced.observed(now, &observed.link, number);
        observed
    }

    fn pause(&mut self, now: Timestamp, scope: Scope, reason: Reason, named: Option<Duration>) {
        if let Some(pause) = self.paced.signal(now, scope, reason, named) {
            tracing::warn!(
                session.id = %self.lease.session,
                scope = scope.as_str(),
                reason = reason.as_str(),
                until = %pause.until,
                "WhatsApp wants a session to wait"
            );
        }
    }

    /// Says how the claim of a batch is to be made, and for how many messages: as many as pacing and the
    /// tenant's share allow. No claim, while none may.
    fn take_places(&mut self, batch: &mut Batch, now: Timestamp) -> Places {
        let Some(wanted) = batch.claim.take() else {
            return Places::default();
        };
        let Some(gate) = self.paced.gate(now) else {
            return Places::default();
        };
        let (lease, wake) = (&self.lease, &self.mailbox.work);
        let shares = &self.shared.shares;
        let places = shares.take(&lease.tenant, &lease.session, wanted, wake);
        self.place_at = places.again;
        if !places.taken.is_empty() {
            batch.gate = gate;
            batch.claim = Some(places.taken.len());
        }
        places
    }

    /// A chat has got a message: it is no stranger from now on.
    fn meet(&mut self, chat: Jid, batch: &mut Batch) {
        if !chat.is_user() || self.met.contains(&chat) {
            return;
        }
        if self.met.len() >= MET_MAX {
            self.met.clear();
        }
        self.met.insert(chat.clone());
        batch.known.push(chat);
    }
}

fn want_of(session: &Session) -> Want {
    Want {
        desired: session.desired,
        generation: session.generation,
        method: session.method.clone(),
    }
}

/// Logs a failure that ends the actor.
fn fault(lease: &Lease, error: &StoreError, what: &'static str) -> Outcome {
    tracing::error!(
        session.id = %lease.session,
        error = error as &dyn std::error::Error,
        what,
        "a session is set aside for a while"
    );
    Outcome::Fault
}

/// The next event of the device; never, while there is none.
async fn next_event(events: &mut Option<mpsc::Receiver<EngineEvent>>) -> Option<EngineEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
