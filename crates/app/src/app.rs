//! The handle that every surface holds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_domain::limits::CONCURRENCY_DEFAULT;
use wagate_domain::{Clock, PacingRules, TenantId, Timestamp};
use wagate_store::bus::{Bus, BusMessage, BusReceiver, Heard};
use wagate_store::{Db, StoreError, tenants};

use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::key_cache::KeyCache;
use crate::waits::{Topic, Waiter, Waits};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct AppOptions {
    /// The tenant for which callers with the worker token act; the first start makes it.
    pub worker_tenant: String,
    /// The country in which numbers without one are read (ISO 3166, such as `ID`).
    pub default_region: Option<String>,
    /// How long a request to link waits for its QR or pairing code.
    pub link_wait: Duration,
    /// How long a request to disconnect, log out or delete waits until that is done.
    pub settle_wait: Duration,
    /// Messages of one session on their way at once, where no tenant says otherwise.
    pub concurrency: u32,
    /// How a session is paced, where no tenant says otherwise.
    pub pacing: PacingRules,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            worker_tenant: "default".to_owned(),
            default_region: None,
            link_wait: Duration::from_secs(20),
            settle_wait: Duration::from_secs(5),
            concurrency: CONCURRENCY_DEFAULT,
            pacing: PacingRules::OFF,
        }
    }
}

/// The use cases over one database and one bus. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    bus: Bus,
    clock: Arc<dyn Clock>,
    options: AppOptions,
    waits: Arc<Waits>,
    keys: KeyCache,
    worker_tenant: OnceLock<TenantId>,
}

impl App {
    /// Builds the handle and starts the task that wakes waiting requests; it ends with `stop`.
    pub fn start(
        db: Db,
        bus: Bus,
        clock: Arc<dyn Clock>,
        options: AppOptions,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let waits = Arc::new(Waits::default());
        tasks.spawn(listen(bus.subscribe(), Arc::clone(&waits), stop));
        Self {
            inner: Arc::new(Inner {
                db,
                bus,
                clock,
                options,
                waits,
                keys: KeyCache::default(),
                worker_tenant: OnceLock::new(),
            }),
        }
    }

    /// Ends every bounded wait: for the shutdown, so that those who wait get an answer. What they asked
    /// for stays accepted, and the answer says so.
    pub fn end_waits(&self) {
        self.inner.waits.end();
    }

    /// Whether the database answers.
    pub async fn ready(&self) -> Result<(), AppError> {
        Ok(self.db().ping().await?)
    }

    /// The caller that the worker token stands for.
    pub async fn worker_caller(&self) -> Result<Caller, AppError> {
        if let Some(tenant) = self.inner.worker_tenant.get() {
            return Ok(Caller::worker(tenant.clone()));
        }
        let name = self.options().worker_tenant.clone();
        let found = self
            .db()
            .read(move |tx| tenants::get_by_name(tx, &name))
            .await?;
        let Some(tenant) = found else {
            return Err(AppError::Unavailable {
                code: Code::Overloaded,
                message: "the tenant that the worker token acts for does not exist".to_owned(),
                retry_after_secs: 30,
                source: None,
            });
        };
        Ok(Caller::worker(
            self.inner.worker_tenant.get_or_init(|| tenant.id).clone(),
        ))
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    pub(crate) fn keys(&self) -> &KeyCache {
        &self.inner.keys
    }

    pub(crate) fn options(&self) -> &AppOptions {
        &self.inner.options
    }

    /// What the clock says.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) fn publish(&self, message: BusMessage) {
        self.inner.bus.publish(message);
    }

    /// Begins to wait; call it before the write whose effect is awaited.
    pub(crate) fn wait_on(&self, topic: Topic) -> Waiter {
        self.inner.waits.on(topic)
    }
}

/// Passes the bus on to those who wait.
async fn listen(mut receiver: BusReceiver, waits: Arc<Waits>, stop: CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = receiver.recv() => heard,
        };
        match heard {
            Heard::Message(message) => waits.wake(&message),
            Heard::Missed => waits.wake_all(),
            Heard::Closed => return,
        }
    }
}

/// The end of a wait that begins now.
pub(crate) fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(wagate_domain::limits::WAIT_MAX)
}

impl From<StoreError> for AppError {
    /// The classes that mean the same everywhere; a use case translates the others by its nouns before.
    fn from(error: StoreError) -> Self {
        let away = |message: &str, source| Self::Unavailable {
            code: Code::DatabaseUnavailable,
            message: message.to_owned(),
            retry_after_secs: 2,
            source: Some(source),
        };
        match error {
            StoreError::Full => Self::StorageFull(error),
            StoreError::Busy => Self::Unavailable {
                code: Code::Overloaded,
                message: "too much work waits for the database".to_owned(),
                retry_after_secs: 1,
                source: Some(error),
            },
            StoreError::Unavailable(_) => {
                away("the database cannot be reached at the moment", error)
            }
            StoreError::InDoubt(_) => away(
                "the database went away while the request was stored; it may or may not have been \
                 stored, so repeat it with the same Idempotency-Key",
                error,
            ),
            StoreError::NotFound { .. }
            | StoreError::Conflict { .. }
            | StoreError::Limit { .. }
            | StoreError::LeaseLost
            | StoreError::NewerSchema { .. }
            | StoreError::Sealed
            | StoreError::Corrupt { .. }
            | StoreError::Options(_)
            | StoreError::Panicked(_)
            | StoreError::Sql(_) => Self::Internal(Box::new(error)),
        }
    }
}
