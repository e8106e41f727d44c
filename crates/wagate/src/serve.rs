//! The only wiring: makes a running gateway out of a configuration, and takes it down in order.
//!
//! Called by the command line, and by programs that embed a gateway (the sandbox, tests, benchmarks).
//! Everything that is started here is stopped in [`Gateway::stop`], within the configured bound.

mod database;
mod options;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_api::ApiOptions;
use wagate_app::{App, AppError, Operator};
use wagate_domain::{Clock, SystemClock, failpoint, plant};
use wagate_engine::{EndpointError, Engine, EngineError};
use wagate_store::bus::Bus;
use wagate_store::{Db, StoreError};
use wagate_worker::{Worker, WorkerError, WorkerStats};

pub(crate) use self::database::{
    Upgrade, db_options, migrate_database, open_database, sqlite_path,
};
use self::database::{lock_embedded, open_bus};
pub(crate) use self::options::engine_options;
use self::options::{api_options, app_options, worker_options};
use crate::config::Config;
use crate::http::{HttpOptions, HttpServer};
use crate::master_key::KeyError;
use crate::telemetry;

/// What clients get to finish their requests once the sessions have ended.
const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// A gateway could not start. The operator sees to it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the master key cannot be used")]
    Key(#[from] KeyError),
    #[error(
        "the master key is not the one with which this database was written: put the right one back"
    )]
    ForeignKey,
    #[error("{} cannot be made", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is in use by another wagate: stop that one first", path.display())]
    InUse { path: PathBuf },
    #[error("the database cannot be used")]
    Database(#[source] StoreError),
    #[error(
        "{what}: `wagate migrate` prepares it, and so does `wagate serve` while store.migrate is on"
    )]
    NoDatabase { what: String },
    #[error(
        "the database has schema {found} and this wagate needs {known}: stop the gateways that use it, and \
         run `wagate migrate`"
    )]
    OldSchema { found: i64, known: i64 },
    #[error("whatsapp.url cannot be used")]
    Endpoint(#[from] EndpointError),
    #[error("{} cannot be read", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the connection to WhatsApp cannot be prepared")]
    Engine(#[from] EngineError),
    #[error("cannot listen on {address}: choose another server.host or server.port")]
    Listen {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the worker cannot start")]
    Worker(#[from] WorkerError),
    #[error("the first tenant cannot be made")]
    FirstStart(#[from] AppError),
    #[error("testing.abort_at cannot be armed")]
    Failpoint(#[from] failpoint::FailpointError),
    #[error("testing.plant cannot be planted")]
    Plant(#[from] plant::PlantError),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    first_api_key: Option<String>,
    app: App,
    worker: Arc<Worker>,
    engine: Engine,
    bus: Bus,
    db: Db,
    http: HttpServer,
    stop_app: CancellationToken,
    tasks: TaskTracker,
    timeout: Duration,
    /// Held for the process's life: one gateway per embedded database.
    _lock: Option<File>,
}

/// A gateway with all that can be refused behind it: database, socket and worker. It answers nobody yet.
#[derive(Debug)]
pub struct Prepared {
    gateway: Gateway,
    listener: TcpListener,
    api: ApiOptions,
    has_worker_token: bool,
}

impl Prepared {
    /// Makes the first tenant of an empty database, and answers requests from then on.
    ///
    /// `show` gets the tenant's API key as soon as it is committed: it is stored nowhere, and what fails
    /// after that must not take it along. Nor must a caller that gives up: this is to be waited for.
    pub async fn open(self, show: impl FnOnce(&str)) -> Result<Gateway, StartError> {
        let app = &self.gateway.app;
        let made = async {
            if let Some((_, secret)) = app.first_start(Operator).await? {
                show(&secret);
            }
            if self.has_worker_token && app.make_worker_tenant(Operator).await? {
                tracing::info!("made the tenant that security.worker_tenant names");
            }
            Ok::<(), StartError>(())
        };
        if let Err(error) = made.await {
            self.gateway.stop().await;
            return Err(error);
        }
        let router = wagate_api::router(app.clone(), self.api);
        self.gateway.http.serve(self.listener, router);
        let worker = self.gateway.worker.id();
        tracing::info!(address = %self.gateway.address, worker.id = %worker, "started");
        Ok(self.gateway)
    }
}

impl Gateway {
    /// Starts everything; returns when requests are answered. Sessions are restored meanwhile. The key
    /// that a first start makes is kept in [`Gateway::first_api_key`].
    pub async fn start(config: Config) -> Result<Gateway, StartError> {
        let mut first = None;
        let prepared = Gateway::prepare(config).await?;
        let mut gateway = prepared
            .open(|secret| first = Some(secret.to_owned()))
            .await?;
        gateway.first_api_key = first;
        Ok(gateway)
    }

    /// Does all of a start that can be refused, and that may be given up half-way.
    pub async fn prepare(config: Config) -> Result<Prepared, StartError> {
        install_tls_provider();
        // Before anything counts: what is counted without a recorder is lost.
        telemetry::metrics();
        if !config.testing.abort_at.is_empty() {
            failpoint::arm(&config.testing.abort_at)?;
        }
        if !config.testing.plant.is_empty() {
            plant::plant(&config.testing.plant)?;
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine_options = engine_options(&config)?;
        let lock = lock_embedded(&config.store)?;
        let db = open_database(&config, Upgrade::at_start(&config.store)).await?;
        let bus = open_bus(&config.store)?;
        let engine = Engine::new(engine_options, db.clone(), Arc::clone(&clock))?;
        let (listener, address) = listen(&config).await?;
        let worker = Worker::start(
            worker_options(&config, address),
            db.clone(),
            bus.clone(),
            engine.clone(),
            Arc::clone(&clock),
        )
        .await?;
        let worker = Arc::new(worker);

        let tasks = TaskTracker::new();
        let stop_app = CancellationToken::new();
        let app = App::start(
            db.clone(),
            bus.clone(),
            clock,
            app_options(&config),
            &tasks,
            stop_app.clone(),
        );
        tasks.spawn(keep_metrics(stop_app.clone()));
        tasks.close();
        let api = api_options(&config, &worker);
        let gateway = Gateway {
            address,
            first_api_key: None,
            app,
            worker,
            engine,
            bus,
            db,
            http: HttpServer::new(HttpOptions {
                header_timeout: config.server.header_timeout,
                connections_max: config.server.connections_max,
            }),
            stop_app,
            tasks,
            timeout: config.shutdown.timeout,
            _lock: lock,
        };
        Ok(Prepared {
            gateway,
            listener,
            api,
            has_worker_token: !config.security.worker_token.expose_secret().is_empty(),
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that [`Gateway::start`] made in an empty database; it is not stored and never shown again.
    pub fn first_api_key(&self) -> Option<&str> {
        self.first_api_key.as_deref()
    }

    /// What the worker carries.
    pub fn worker_stats(&self) -> WorkerStats {
        self.worker.stats()
    }

    /// The use cases, for programs that embed the gateway.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Takes no more requests, lets what is on its way arrive, closes the sessions and the database.
    /// True when everything ended in time.
    pub async fn stop(self) -> bool {
        let deadline = Instant::now() + self.timeout;
        self.http.stop();
        let mut in_time = self.worker.stop(self.timeout).await;
        // Whoever still waits for a message to be sent gets its answer: it is accepted, and stays so.
        self.app.end_waits();
        let grace = deadline.max(Instant::now() + Duration::from_millis(200));
        let grace = grace.min(Instant::now() + REQUEST_GRACE);
        in_time &= self.http.ended_by(grace).await;
        self.stop_app.cancel();
        in_time &= timeout(Duration::from_secs(1), self.tasks.wait())
            .await
            .is_ok();
        let rest = async {
            self.engine.shutdown().await;
            self.bus.close().await;
            self.db.close().await;
        };
        let rest_by = deadline.max(Instant::now() + Duration::from_secs(1));
        in_time &= timeout_at(rest_by, rest).await.is_ok();
        tracing::info!(in_time, "stopped");
        in_time
    }
}

/// Two TLS back ends could be compiled in; this says which one is used. Later calls change nothing.
pub(crate) fn install_tls_provider() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider was installed already");
    }
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let (host, port) = (config.server.host.as_str(), config.server.port);
    let failed = |source| StartError::Listen {
        address: format!("{host}:{port}"),
        source,
    };
    let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "other machines can reach the API, which has no TLS of its own: put a proxy with TLS in front"
        );
    }
    Ok((listener, address))
}

/// Histograms must be drained even if nobody reads them.
async fn keep_metrics(stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => telemetry::metrics().run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests;
