//! Queues: what waits and what failed, figures, settings; clearing, trying again, deleting.
//!
//! What may be much is done in bites of one transaction each, so that no other writer waits long, and
//! ends at a bound; the answer says when something is left (BD-1).

use wagate_domain::limits::{CONCURRENCY_MAX, QUEUE_CHANGE_MAX};
use wagate_domain::{LinkState, MessageId, SessionId, SessionName, TenantId, Timestamp};
use wagate_store::bus::BusMessage;
use wagate_store::messages::{self, Message};
use wagate_store::queue::{
    self, DeadFilter, DeadLetter, Holding, Job, JobFilter, JobState, QueueSettings, SessionQueue,
    SettingsChange, TenantQueue,
};
use wagate_store::sessions::{self, Sender, Session};
use wagate_store::{Page, PageRequest, StoreError, Tx};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::messages::{Validity, check_cursor, no_message, valid_until};
use crate::sessions::{named, not_found, refusal_to_send};

/// Messages that one transaction changes.
const BITE: u32 = 200;

/// Figures of queues: over all of the tenant's sessions, and of some of them.
#[derive(Clone, Debug)]
pub struct QueueFigures {
    pub total: TenantQueue,
    pub sessions: Page<SessionQueue>,
    /// In force where a session has no setting of its own.
    pub concurrency: u32,
}

/// How a queue works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// None: the tenant's default.
    pub session: Option<SessionName>,
    /// What is set here.
    pub set: QueueSettings,
    /// Messages on their way at once, as is in force.
    pub concurrency: u32,
}

/// What is to be cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// Everything that waits, for whatever it waits.
    AllWaiting,
    /// What waits in one way.
    Only(JobState),
    /// What failed or expired; it is deleted.
    Dead,
}

/// How far a change of many messages came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub count: u32,
    /// Sessions that were left out, since they take no messages now.
    pub skipped_sessions: u32,
    /// Something is left: ask again.
    pub more: bool,
}

/// A message that was withdrawn while it waited, or deleted after it had failed.
#[derive(Clone, Debug)]
pub struct Withdrawn {
    pub message: Message,
    pub deleted: bool,
}

impl App {
    /// The tenant's jobs: messages that are not finished.
    pub async fn queue_jobs(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        state: Option<JobState>,
        page: PageRequest,
    ) -> Result<Page<Job>, AppError> {
        let session = self.session_id(caller, session).await?;
        let tenant = caller.tenant().clone();
        self.db()
            .read(move |tx| queue::jobs(tx, &tenant, &JobFilter { session, state }, &page))
            .await
            .map_err(|error| match error {
                StoreError::NotFound { .. } => AppError::bad_cursor(),
                other => other.into(),
            })
    }

    /// The tenant's messages that failed or expired, with the reason.
    pub async fn dead_letters(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        code: Option<String>,
        page: PageRequest,
    ) -> Result<Page<DeadLetter>, AppError> {
        check_cursor::<i64>(&page)?;
        let session = self.session_id(caller, session).await?;
        let tenant = caller.tenant().clone();
        let filter = DeadFilter { session, code };
        let found = self
            .db()
            .read(move |tx| queue::dead(tx, &tenant, &filter, &page));
        Ok(found.await?)
    }

    /// Figures of the tenant's queues.
    pub async fn queue_figures(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        page: PageRequest,
    ) -> Result<QueueFigures, AppError> {
        check_cursor::<SessionId>(&page)?;
        let session = self.session_id(caller, session).await?;
        let (tenant, default) = (caller.tenant().clone(), self.options().concurrency);
        let figures = self
            .db()
            .read(move |tx| {
                let set = queue::settings(tx, &tenant, None)?;
                Ok(QueueFigures {
                    total: queue::tenant_stats(tx, &tenant)?,
                    sessions: queue::session_stats(tx, &tenant, session.as_ref(), &page)?,
                    concurrency: set.concurrency.unwrap_or(default),
                })
            })
            .await?;
        Ok(figures)
    }

    /// How a session's queue works, or those of all sessions with no setting of their own.
    pub async fn queue_config(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
    ) -> Result<QueueConfig, AppError> {
        let (caller, session) = (caller.clone(), session.cloned());
        let default = self.options().concurrency;
        self.db()
            .read(move |tx| config(tx, &caller, session.as_ref(), default))
            .await
            .map_err(not_found)
    }

    /// Changes how queues work; counts from the next message on that a worker takes.
    pub async fn configure_queue(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        change: SettingsChange,
    ) -> Result<QueueConfig, AppError> {
        if let Some(Some(wanted)) = change.concurrency
            && !(1..=CONCURRENCY_MAX).contains(&wanted)
        {
            let message = format!("must be 1 to {CONCURRENCY_MAX}");
            return Err(AppError::field(Code::InvalidField, "concurrency", message));
        }
        if session.is_none() && change.paused.is_some() {
            let message = "goes with a session; there is no pause for all of them";
            return Err(AppError::field(Code::InvalidField, "paused", message));
        }
        let (by, name, now) = (caller.clone(), session.cloned(), self.now());
        let default = self.options().concurrency;
        let (config, woken) = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                let id = match &name {
                    Some(name) => Some(named(tx, &by, name)?.id),
                    None => None,
                };
                let tenant = by.tenant();
                queue::configure(tx, tenant, id.as_ref(), change, now)?;
                let woken = match id {
                    Some(id) => vec![id],
                    None => queue::holders(tx, tenant, Holding::Queued, None, BITE)?,
                };
                Ok((config(tx, &by, name.as_ref(), default)?, woken))
            })
            .await
            .map_err(not_found)?;
        // Those that are not woken here hear of it with their next message, or by the worker's tick.
        for session in woken {
            self.publish(BusMessage::QueueReady { session });
        }
        self.tell_events(caller);
        Ok(config)
    }

    /// Withdraws what waits, or deletes what failed; never what is being sent.
    pub async fn clear_queue(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        what: Clear,
    ) -> Result<Changed, AppError> {
        if what == Clear::Only(JobState::Active) {
            let message = "must not be `active`: what is being sent cannot be cleared";
            return Err(AppError::field(Code::InvalidField, "state", message));
        }
        let holding = match what {
            Clear::AllWaiting | Clear::Only(_) => Holding::Queued,
            Clear::Dead => Holding::Dead,
        };
        let change = move |tx: &mut Tx<'_>, at: &Bite| match what {
            Clear::AllWaiting => {
                let all = JobState::ALL;
                queue::clear(tx, &at.tenant, &at.session, &all, at.limit, at.now)
            }
            Clear::Only(state) => {
                queue::clear(tx, &at.tenant, &at.session, &[state], at.limit, at.now)
            }
            Clear::Dead => queue::clear_dead(tx, &at.tenant, &at.session, at.limit, at.now),
        };
        self.change_many(caller, session, holding, false, change)
            .await
    }

    /// Queues a failed or expired message again.
    pub async fn retry(
        &self,
        caller: &Caller,
        id: &MessageId,
        validity: Option<Validity>,
    ) -> Result<Message, AppError> {
        let now = self.now();
        let expires_at = valid_until(validity, now, now)?;
        let (tenant, id) = (caller.tenant().clone(), id.clone());
        let session = self.message(caller, &id).await?.message.session;
        self.check_takes_messages(&session).await?;
        let message = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                queue::revive(tx, &tenant, &id, expires_at, now)
            })
            .await
            .map_err(|error| match error {
                StoreError::Conflict { what } => AppError::refused(
                    Code::MessageNotRetryable,
                    format!("the message is {what}; only a failed or expired one is tried again"),
                ),
                StoreError::Limit { .. } => queue_full(),
                other => no_message(other),
            })?;
        self.tell_of(caller, &message);
        Ok(message)
    }

    /// Queues again what failed or expired: all of it, of one session, or with one code.
    pub async fn retry_many(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        code: Option<String>,
    ) -> Result<Changed, AppError> {
        let change = move |tx: &mut Tx<'_>, at: &Bite| {
            let code = code.as_deref();
            queue::revive_some(tx, &at.tenant, &at.session, code, at.limit, at.now)
        };
        self.change_many(caller, session, Holding::Dead, true, change)
            .await
    }

    /// Withdraws a message that is not being sent yet, or deletes one that failed or expired.
    pub async fn withdraw(&self, caller: &Caller, id: &MessageId) -> Result<Withdrawn, AppError> {
        let (tenant, id, now) = (caller.tenant().clone(), id.clone(), self.now());
        let withdrawn = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                match queue::delete_dead(tx, &tenant, &id, now) {
                    Ok(message) => Ok(Withdrawn {
                        message,
                        deleted: true,
                    }),
                    Err(StoreError::Conflict { .. }) => Ok(Withdrawn {
                        message: messages::cancel(tx, &tenant, &id, now)?,
                        deleted: false,
                    }),
                    Err(other) => Err(other),
                }
            })
            .await
            .map_err(|error| match error {
                StoreError::Conflict { what } => AppError::refused(
                    Code::MessageNotCancelable,
                    format!("{what}, so it cannot be canceled"),
                ),
                other => no_message(other),
            })?;
        self.tell_of(caller, &withdrawn.message);
        Ok(withdrawn)
    }

    /// The session that is meant where a caller may leave it out: the only one that the tenant has.
    pub async fn meant_session(
        &self,
        caller: &Caller,
        name: Option<&SessionName>,
    ) -> Result<Session, AppError> {
        if let Some(name) = name {
            return self.session(caller, name).await;
        }
        let mut found = self.sessions(caller, PageRequest::first(2)).await?.items;
        match (found.pop(), found.pop()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(AppError::session_not_found()),
            (Some(_), Some(_)) => Err(AppError::refused(
                Code::SessionAmbiguous,
                "there are several sessions; say which one with `sessionId`",
            )),
        }
    }

    /// Changes messages of one session or of all, bite by bite, up to the bound.
    async fn change_many<F>(
        &self,
        caller: &Caller,
        session: Option<&SessionName>,
        holding: Holding,
        sends: bool,
        change: F,
    ) -> Result<Changed, AppError>
    where
        F: Fn(&mut Tx<'_>, &Bite) -> Result<Vec<MessageId>, StoreError> + Clone + Send + 'static,
    {
        let only = self.session_id(caller, session).await?;
        let mut changed = Changed::default();
        let mut after: Option<SessionId> = None;
        loop {
            let next = match &only {
                Some(only) => after.is_none().then(|| only.clone()),
                None => self.next_holder(caller, holding, after).await?,
            };
            let Some(next) = next else { break };
            after = Some(next.clone());
            let change = change.clone();
            let done = self.change_session(caller, &next, &mut changed, sends, change);
            match done.await {
                // One that takes no messages, or no more, keeps the others from nothing; and what was
                // changed before is told.
                Err(AppError::Refused { .. }) if only.is_none() || changed.count > 0 => {
                    changed.skipped_sessions += 1;
                }
                other => other?,
            }
            if changed.more {
                break;
            }
        }
        Ok(changed)
    }

    async fn change_session<F>(
        &self,
        caller: &Caller,
        session: &SessionId,
        changed: &mut Changed,
        sends: bool,
        change: F,
    ) -> Result<(), AppError>
    where
        F: Fn(&mut Tx<'_>, &Bite) -> Result<Vec<MessageId>, StoreError> + Clone + Send + 'static,
    {
        if sends {
            self.check_takes_messages(session).await?;
        }
        loop {
            let limit = BITE.min(QUEUE_CHANGE_MAX - changed.count);
            if limit == 0 {
                changed.more = true;
                return Ok(());
            }
            let bite = Bite {
                tenant: caller.tenant().clone(),
                session: session.clone(),
                limit,
                now: self.now(),
            };
            let change = change.clone();
            let written = self
                .db()
                .write_for(caller.tenant(), move |tx| change(tx, &bite));
            let ids = match written.await {
                Ok(ids) => ids,
                // Deleted meanwhile, with all that it held.
                Err(StoreError::NotFound { .. }) => return Ok(()),
                Err(StoreError::Limit { .. }) => return Err(queue_full()),
                Err(other) => return Err(other.into()),
            };
            let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            changed.count += count;
            if count > 0 {
                for message in ids {
                    self.publish(BusMessage::MessageSettled { message });
                }
                self.publish(BusMessage::QueueReady {
                    session: session.clone(),
                });
                self.tell_events(caller);
            }
            if count < limit {
                return Ok(());
            }
        }
    }

    async fn next_holder(
        &self,
        caller: &Caller,
        holding: Holding,
        after: Option<SessionId>,
    ) -> Result<Option<SessionId>, AppError> {
        let tenant = caller.tenant().clone();
        let found = self
            .db()
            .read(move |tx| queue::holders(tx, &tenant, holding, after.as_ref(), 1))
            .await?;
        Ok(found.into_iter().next())
    }

    async fn check_takes_messages(&self, session: &SessionId) -> Result<(), AppError> {
        let session = session.clone();
        let session = self
            .db()
            .read(move |tx| sessions::find(tx, &session))
            .await
            .map_err(not_found)?;
        match refusal_to_send(&Sender::from(&session)) {
            Some((code, message)) => Err(AppError::refused(code, message)),
            None => Ok(()),
        }
    }

    async fn session_id(
        &self,
        caller: &Caller,
        name: Option<&SessionName>,
    ) -> Result<Option<SessionId>, AppError> {
        match name {
            Some(name) => Ok(Some(self.session(caller, name).await?.id)),
            None => Ok(None),
        }
    }

    fn tell_of(&self, caller: &Caller, message: &Message) {
        self.publish(BusMessage::MessageSettled {
            message: message.id.clone(),
        });
        self.publish(BusMessage::QueueReady {
            session: message.session.clone(),
        });
        self.tell_events(caller);
    }

    pub(crate) fn tell_events(&self, caller: &Caller) {
        self.publish(BusMessage::EventsAppended {
            tenant: caller.tenant().clone(),
        });
    }
}

/// One transaction's share of a change.
struct Bite {
    tenant: TenantId,
    session: SessionId,
    limit: u32,
    now: Timestamp,
}

fn config(
    tx: &mut Tx<'_>,
    caller: &Caller,
    session: Option<&SessionName>,
    default: u32,
) -> Result<QueueConfig, StoreError> {
    let tenant = caller.tenant();
    let general = queue::settings(tx, tenant, None)?;
    let set = match session {
        Some(name) => {
            let session = named(tx, caller, name)?;
            queue::settings(tx, tenant, Some(&session.id))?
        }
        None => general,
    };
    let concurrency = set.concurrency.or(general.concurrency);
    Ok(QueueConfig {
        session: session.cloned(),
        set,
        concurrency: concurrency.unwrap_or(default),
    })
}

pub(crate) fn queue_full() -> AppError {
    AppError::refused(
        Code::QueueFull,
        "as many messages wait in this session as may wait",
    )
}

/// What a queue is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueStanding {
    /// Nothing goes out, as was asked.
    Paused,
    /// There is something to send, and the session is not connected.
    Held,
    Processing,
    /// There is nothing to do.
    Idle,
}

impl QueueStanding {
    pub fn of(session: &SessionQueue) -> Self {
        let queue = &session.queue;
        let work = queue.active + queue.waiting + queue.delayed;
        match (&session.link, work) {
            _ if session.settings.paused => Self::Paused,
            (_, 0) => Self::Idle,
            (LinkState::Connected, _) => Self::Processing,
            _ => Self::Held,
        }
    }
}

/// The share of what ended that was acknowledged, in percent with one decimal; none before anything
/// ended.
pub fn success_rate(queue: &TenantQueue) -> Option<f64> {
    let ended = queue.completed + queue.failed;
    if ended == 0 {
        return None;
    }
    // Tenths of a percent fit a small integer, which converts without loss.
    let tenths = u128::from(queue.completed) * 1000 / u128::from(ended);
    Some(f64::from(u16::try_from(tenths).unwrap_or(1000)) / 10.0)
}

#[cfg(test)]
mod tests;
