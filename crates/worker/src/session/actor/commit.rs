//! The commit of a turn, and what the actor hears meanwhile.
//!
//! A database that is away, full or busy is waited for as long as the lease lasts. The device goes on
//! talking: acknowledgements and receipts are taken from it all the while, since the engine drops what does
//! not fit, and are forgotten only after their commit (MP-3).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};
use wagate_domain::{Backoff, failpoint};
use wagate_engine::Device;
use wagate_store::bus::BusMessage;
use wagate_store::{StoreError, Tx};

use super::{Actor, EVENTS_MAX, Outcome, Turn, fault, next_event};
use crate::session::batch::{Batch, Done};
use crate::session::step::Input;
use crate::shares::Places;

/// Nothing that a device does to end takes longer, or it is left behind. Logging out may have to connect
/// first.
pub(super) const END_WITHIN: Duration = Duration::from_secs(40);
/// News about messages that one transaction writes.
const NEWS_AT_ONCE: usize = 1_000;

impl Actor {
    /// Commits a batch and the news about messages, however long the database is away; the lease says
    /// when to stop trying.
    pub(super) async fn commit(&mut self, mut batch: Batch) -> Turn<Option<(Done, Option<usize>)>> {
        batch.updates = self.unsaved.oldest(NEWS_AT_ONCE);
        if batch.is_empty() {
            return Ok(None);
        }
        batch.before_commit();
        let asked = batch.claim;
        let batch = Arc::new(batch);
        let lost = self.mailbox.lost.clone();
        let mut tries: u32 = 0;
        loop {
            let error = match self.write(&batch).await {
                Ok(done) => {
                    self.unsaved.forget(batch.updates.len());
                    self.publish(&batch, &done);
                    return Ok(Some((done, asked)));
                }
                Err(StoreError::LeaseLost) => return Err(Outcome::LeaseLost),
                Err(StoreError::NotFound { .. }) => return Err(Outcome::Deleted),
                Err(error) => error,
            };
            if !error.is_transient() {
                // They may be what it cannot write: the next actor must not fail by them as well.
                self.unsaved.forget(batch.updates.len());
            }
            // What a claim in doubt took is only found again by the next holder of the lease.
            let lost_claim = asked.is_some() && matches!(error, StoreError::InDoubt(_));
            if !error.is_transient() || lost_claim {
                return Err(fault(
                    &self.lease,
                    &error,
                    "a session's changes could not be written",
                ));
            }
            tries = tries.saturating_add(1);
            let pause = Backoff::COMMIT.wait(tries, rand::random());
            tokio::select! {
                () = lost.cancelled() => return Err(Outcome::LeaseLost),
                () = self.listening(sleep(pause)) => {}
            }
        }
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Done, StoreError> {
        let (shared, lease) = (Arc::clone(&self.shared), self.lease.clone());
        let batch = Arc::clone(batch);
        let now = shared.clock.now();
        let (tenant, when) = (lease.tenant.clone(), batch.when());
        let write = move |tx: &mut Tx<'_>| batch.write(tx, &lease, now);
        let written = shared.db.write_repeatable(&tenant, when, write);
        self.listening(written).await
    }

    /// Waits for something, and takes what the device says meanwhile for the next turn.
    pub(super) async fn listening<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let room = self.backlog.len() < EVENTS_MAX;
            tokio::select! {
                biased;
                done = &mut work => return done,
                event = next_event(&mut self.events), if room => {
                    let input = self.heard(event);
                    self.backlog.extend(input);
                }
            }
        }
    }

    /// Ends a device of which nothing more is wanted, but for its last news about messages.
    pub(super) async fn end(&mut self, device: Device) {
        let mut events = self.events.take();
        let mut stopped = pin!(timeout(END_WITHIN, device.stop()));
        let in_time = loop {
            tokio::select! {
                event = next_event(&mut events) => match event {
                    Some(event) => self.unsaved.note(&event),
                    None => events = None,
                },
                stopped = &mut stopped => break stopped.is_ok(),
            }
        };
        while let Some(Ok(event)) = events.as_mut().map(Receiver::try_recv) {
            self.unsaved.note(&event);
        }
        self.backlog.clear();
        if !in_time {
            tracing::warn!(session.id = %self.lease.session, "a device did not stop in time");
        }
    }

    fn publish(&self, batch: &Batch, done: &Done) {
        let bus = &self.shared.bus;
        for message in &done.settled {
            bus.publish(BusMessage::MessageSettled {
                message: message.clone(),
            });
        }
        if !batch.observed.is_empty() || !batch.pacing.is_empty() {
            bus.publish(BusMessage::SessionChanged {
                session: self.lease.session.clone(),
            });
        }
        let told = !batch.pacing.is_empty() || batch.silent || !batch.observed.is_empty();
        if told || done.moved || !done.claimed.is_empty() {
            bus.publish(BusMessage::EventsAppended {
                tenant: self.lease.tenant.clone(),
            });
        }
        metrics::counter!("wagate_messages_sent_total").increment(done.sent);
        metrics::counter!("wagate_messages_failed_total").increment(done.failed);
        metrics::counter!("wagate_messages_retried_total").increment(done.retried);
    }

    /// Keeps what was claimed, and says what the core must hear about it.
    pub(super) fn account(
        &mut self,
        done: Option<(Done, Option<usize>)>,
        mut places: Places,
    ) -> Vec<Input> {
        let Some((done, Some(asked))) = done else {
            return Vec::new();
        };
        if !done.claimed.is_empty() {
            failpoint::hit("claimed");
            self.shared.shares.sends(&self.lease.tenant);
        }
        let mut claimed = Vec::with_capacity(done.claimed.len());
        for one in done.claimed {
            claimed.push((one.wa_id.clone(), one.attempt));
            let place = places.taken.pop();
            self.places
                .extend(place.map(|place| (one.wa_id.clone(), place)));
            self.claims.insert(one.wa_id.clone(), one);
        }
        if let Some(state) = done.pacing {
            self.paced.claimed(state);
        }
        if done.more {
            self.backlog.push(Input::Wake);
        }
        let concurrency = done.concurrency.and_then(|most| usize::try_from(most).ok());
        concurrency
            .map(Input::Concurrency)
            .into_iter()
            .chain([Input::Claimed { claimed, asked }])
            .collect()
    }
}
