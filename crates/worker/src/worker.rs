//! What the loops share, and how they start and stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_domain::{Clock, PacingRules, SessionId, WorkerId, limits, plant};
use wagate_engine::Engine;
use wagate_store::bus::Bus;
use wagate_store::{Db, StoreError, leases, workers};

use crate::session::{Handle, LeftBehind, Standing};
use crate::shares::Shares;
use crate::{dispatcher, heartbeat, janitor, relay, supervisor};

/// What a worker is told at its start.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub id: WorkerId,
    /// Where other parts of the system reach this worker over HTTP, if they do.
    pub endpoint: Option<String>,
    pub version: String,
    pub environment: String,
    /// Sessions at most.
    pub sessions_max: usize,
    /// How long the right to run a session lasts without renewal.
    pub lease_ttl: Duration,
    /// How often lost wake-ups are made good.
    pub tick: Duration,
    /// Sessions started a second, at most.
    pub restore_per_second: u32,
    /// Messages of one session on their way at once.
    pub concurrency: usize,
    /// Messages of one tenant that are claimed, encrypted and written at once while other tenants send too.
    pub tenant_share: usize,
    /// Attempts after the first that a message gets.
    pub retries_max: u32,
    /// How long a message that a device asked for again may go unconfirmed before it is sent again; the
    /// wait doubles each time.
    pub resend_after: Duration,
    /// How long linking may take, and how many QR texts it may show.
    pub link_timeout: Duration,
    pub link_qr_max: u32,
    /// How long a stop waits for messages that are on their way.
    pub drain_within: Duration,
    /// A session that has been connecting for so long without a sign gets a new device.
    pub stuck_after: Duration,
    /// How often the worker says that it lives.
    pub heartbeat: Duration,
    /// How sessions are paced where their tenants set nothing.
    pub pacing: PacingRules,
    /// How long events stay readable.
    pub event_retention: Duration,
}

impl WorkerOptions {
    /// The usual settings.
    pub fn new(id: WorkerId) -> Self {
        Self {
            id,
            endpoint: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: "production".to_owned(),
            sessions_max: 2_000,
            lease_ttl: limits::LEASE_TTL,
            tick: Duration::from_secs(1),
            restore_per_second: 200,
            concurrency: 3,
            tenant_share: 4,
            retries_max: limits::SEND_ATTEMPTS_MAX,
            resend_after: Duration::from_secs(10),
            link_timeout: limits::LINK_WAIT_MAX,
            link_qr_max: 6,
            drain_within: Duration::from_secs(5),
            stuck_after: Duration::from_secs(180),
            heartbeat: Duration::from_secs(10),
            pacing: PacingRules::OFF,
            event_retention: limits::EVENT_RETENTION,
        }
    }
}

/// A worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database refused; the operator sees to it.
    #[error("the worker could not register")]
    Register(#[source] StoreError),
}

/// What the loops of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) bus: Bus,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: WorkerOptions,
    pub(crate) bounds: crate::session::Bounds,
    pub(crate) shares: Arc<Shares>,
    /// Rung when a session has come back from a back-off: others need not wait out theirs.
    pub(crate) network_back: Notify,
    /// Everything that waited for a worker at the start has been taken up.
    pub(crate) restored: AtomicBool,
    /// News about messages that ended actors could not commit.
    pub(crate) left: LeftBehind,
    handles: Mutex<HashMap<SessionId, Handle>>,
}

impl Shared {
    pub(crate) fn handles(&self) -> MutexGuard<'_, HashMap<SessionId, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Sessions that have an actor.
    pub sessions: usize,
    pub connected: usize,
    /// Sessions that show a QR or pairing code.
    pub awaiting_scan: usize,
    pub sessions_max: usize,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    /// Ends the supervisor, which ends the sessions.
    stop: CancellationToken,
    /// Fires when the supervisor has ended every session.
    gone: CancellationToken,
    /// Ends the loops that sessions need while they end.
    stop_rest: CancellationToken,
}

impl Worker {
    /// Registers the worker and starts its loops. Sessions that an earlier life of the same worker held
    /// are taken up at once; others as their leases end.
    pub async fn start(
        options: WorkerOptions,
        db: Db,
        bus: Bus,
        engine: Engine,
        clock: Arc<dyn Clock>,
    ) -> Result<Worker, WorkerError> {
        let bounds = crate::session::Bounds {
            concurrency: if plant::is("no_limit") {
                64
            } else {
                options.concurrency
            },
            retries_max: options.retries_max,
            link_timeout: options.link_timeout,
            link_qr_max: options.link_qr_max,
            drain_within: options.drain_within,
            stuck_after: options.stuck_after,
        };
        let shares = Shares::new(options.tenant_share);
        let shared = Arc::new(Shared {
            db,
            bus,
            engine,
            clock,
            options,
            bounds,
            shares,
            network_back: Notify::new(),
            restored: AtomicBool::new(false),
            left: LeftBehind::default(),
            handles: Mutex::new(HashMap::new()),
        });
        register(&shared).await.map_err(WorkerError::Register)?;
        let worker = Worker {
            shared,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
            stop_rest: CancellationToken::new(),
        };
        let shared = || Arc::clone(&worker.shared);
        let (stop, rest) = (&worker.stop, &worker.stop_rest);
        worker
            .tasks
            .spawn(supervisor::run(shared(), stop.clone(), worker.gone.clone()));
        worker.tasks.spawn(dispatcher::run(shared(), stop.clone()));
        worker.tasks.spawn(relay::run(shared(), rest.clone()));
        worker.tasks.spawn(heartbeat::run(shared(), rest.clone()));
        worker.tasks.spawn(janitor::run(shared(), rest.clone()));
        worker.tasks.close();
        Ok(worker)
    }

    /// Stops taking work, lets what is on its way arrive, gives the sessions back; what is left after
    /// `within` is cut. True when everything ended in time.
    pub async fn stop(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.stop.cancel();
        let drained = timeout_at(deadline, self.gone.cancelled()).await.is_ok();
        self.stop_rest.cancel();
        for handle in self.shared.handles().values() {
            handle.lose();
        }
        let grace = deadline.max(Instant::now() + Duration::from_millis(500));
        timeout_at(grace, self.tasks.wait()).await.is_ok() && drained
    }

    pub fn id(&self) -> &WorkerId {
        &self.shared.options.id
    }

    /// Whether the sessions that waited at the start have been taken up.
    pub fn is_restored(&self) -> bool {
        self.shared.restored.load(Ordering::Relaxed)
    }

    pub fn stats(&self) -> WorkerStats {
        stats(&self.shared)
    }

    /// Sets the gauges to what the worker carries now; called when metrics are read.
    pub fn set_gauges(&self) {
        let stats = self.stats();
        let gauge = |name: &'static str, value: usize| {
            metrics::gauge!(name).set(u32::try_from(value).unwrap_or(u32::MAX));
        };
        gauge("wagate_sessions", stats.sessions);
        gauge("wagate_sessions_connected", stats.connected);
        gauge("wagate_sessions_awaiting_scan", stats.awaiting_scan);
    }
}

/// Counts what the worker carries.
pub(crate) fn stats(shared: &Shared) -> WorkerStats {
    let handles = shared.handles();
    let count = |standing| {
        handles
            .values()
            .filter(|h| h.standing() == standing)
            .count()
    };
    WorkerStats {
        sessions: handles.len(),
        connected: count(Standing::Connected),
        awaiting_scan: count(Standing::AwaitingScan),
        sessions_max: shared.options.sessions_max,
    }
}

async fn register(shared: &Shared) -> Result<(), StoreError> {
    let options = &shared.options;
    let new = workers::NewWorker {
        id: options.id.clone(),
        endpoint: options.endpoint.clone(),
        sessions_max: u32::try_from(options.sessions_max).unwrap_or(u32::MAX),
        version: options.version.clone(),
        environment: options.environment.clone(),
    };
    let now = shared.clock.now();
    let freed = shared
        .db
        .write(move |tx| {
            workers::register(tx, &new, now)?;
            leases::release_all(tx, &new.id)
        })
        .await?;
    tracing::info!(worker.id = %options.id, sessions.freed = freed, "worker registered");
    Ok(())
}
