//! A closure on its way to a database thread and its answer on the way back.
//!
//! Writing device state is a job of its own kind: it is small and frequent, and SQLite's writer puts the
//! rows of many sessions into one statement.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;
use wagate_domain::TenantId;

use super::When;
use super::tx::Tx;
use crate::device_state::{self, SealedPut};
use crate::error::StoreError;
use crate::leases::Lease;

/// What a database thread is told.
pub(super) enum Message {
    /// Whose turn it takes, if it is any tenant's.
    Run(Box<dyn Job>, Option<TenantId>, When),
    Put(PutJob, When),
    /// Finish what waits, then end.
    Stop,
}

/// A closure with its type erased. `run` comes first, `finish` after the transaction's end.
pub(super) trait Job: Send {
    /// Runs the closure; true when it wants its changes kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers the caller: with the closure's own result, or with the transaction's error.
    fn finish(self: Box<Self>, ended: Result<(), StoreError>);
    /// Whether the closure may change something.
    fn writes(&self) -> bool;
    /// Whether `run` may be called again, after its changes were undone.
    fn is_repeatable(&self) -> bool;
    /// Why the closure failed, after `run`.
    fn failure(&self) -> Option<&StoreError>;
}

/// Rows of device state to write under a lease.
pub(super) struct PutJob {
    pub(super) lease: Lease,
    pub(super) rows: Vec<SealedPut>,
    pub(super) failed: Option<StoreError>,
    /// None: nobody waits for it.
    pub(super) reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl PutJob {
    /// Answers the caller: with what went wrong here, or with the transaction's end.
    pub(super) fn answer(self, ended: Result<(), StoreError>) {
        let answer = self.failed.map_or(ended, Err);
        match (self.reply, answer) {
            (Some(reply), answer) => drop(reply.send(answer)),
            // The holder finds out by itself.
            (None, Ok(()) | Err(StoreError::LeaseLost)) => {}
            (None, Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "device state that nobody waits for was not written");
            }
        }
    }
}

impl Job for PutJob {
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let written = device_state::put_sealed(tx, &self.lease, &self.rows);
        self.failed = written.err();
        self.failed.is_none()
    }

    fn finish(self: Box<Self>, ended: Result<(), StoreError>) {
        self.answer(ended);
    }

    fn writes(&self) -> bool {
        true
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn failure(&self) -> Option<&StoreError> {
        self.failed.as_ref()
    }
}

/// What a closure does to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reads,
    Writes,
    /// Writes, and comes to the same end when it runs again after its changes were undone.
    WritesRepeatably,
}

pub(super) struct TypedJob<R, F> {
    closure: F,
    result: Option<Result<R, StoreError>>,
    reply: oneshot::Sender<Result<R, StoreError>>,
    kind: Kind,
}

impl<R, F> TypedJob<R, F> {
    pub(super) fn new(
        closure: F,
        reply: oneshot::Sender<Result<R, StoreError>>,
        kind: Kind,
    ) -> Self {
        Self {
            closure,
            result: None,
            reply,
            kind,
        }
    }
}

/// A closure for a job that runs once at most.
pub(super) fn once<R>(
    closure: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError>,
) -> impl FnMut(&mut Tx<'_>) -> Result<R, StoreError> {
    let mut closure = Some(closure);
    move |tx| match closure.take() {
        Some(closure) => closure(tx),
        None => Err(StoreError::Sql("a closure was to run twice".into())),
    }
}

impl<R, F> Job for TypedJob<R, F>
where
    R: Send,
    F: FnMut(&mut Tx<'_>) -> Result<R, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let closure = &mut self.closure;
        // A panic must not end the thread that every other closure depends on. The transaction is
        // rolled back, so nothing half-done is seen afterwards.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let value = closure(tx)?;
            tx.finish()?;
            Ok(value)
        }))
        .unwrap_or_else(|panic| Err(StoreError::Panicked(text_of(&*panic))));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, ended: Result<(), StoreError>) {
        let answer = match (self.result, ended) {
            // The closure's own error says more than that of the rollback.
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Unavailable("the closure was not run".into())),
        };
        // The caller may have gone away meanwhile; what was committed stays committed.
        drop(self.reply.send(answer));
    }

    fn writes(&self) -> bool {
        self.kind != Kind::Reads
    }

    fn is_repeatable(&self) -> bool {
        self.kind == Kind::WritesRepeatably
    }

    fn failure(&self) -> Option<&StoreError> {
        self.result
            .as_ref()
            .and_then(|result| result.as_ref().err())
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no text".to_owned(),
    }
}
