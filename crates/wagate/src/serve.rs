//! The only wiring: makes a running gateway out of a configuration, and takes it down in order.
//!
//! Called by the command line, and by programs that embed a gateway (the sandbox, tests, benchmarks).
//! Everything that is started here is stopped in [`Gateway::stop`], within the configured bound.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_api::{ApiOptions, ProcessFigures, ReadyCheck};
use wagate_app::{App, AppError, AppOptions, Operator};
use wagate_domain::{Clock, SystemClock, WorkerId, failpoint, plant};
use wagate_engine::{Endpoint, EndpointError, Engine, EngineError, EngineOptions, Pace, WaVersion};
use wagate_store::bus::Bus;
use wagate_store::{Db, DbOptions, MigrationReport, Sealer, StoreError, device_state, tenants};
use wagate_worker::{Worker, WorkerError, WorkerOptions, WorkerStats};

use crate::config::{Config, StoreConfig, WhatsAppConfig, parse_version};
use crate::http::{HttpOptions, HttpServer};
use crate::master_key::{FoundKey, KeyError};
use crate::process::Usage;
use crate::telemetry;

/// The worker of an embedded database is always the same one: nobody else can hold its leases.
const EMBEDDED_WORKER: &str = "embedded";
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

/// What may be done to a schema that is not this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Nothing: it is refused.
    Never,
    /// An empty database gets its tables, an older one is refused: other processes may be using it.
    OnlyEmpty,
    /// It is brought up to date.
    Always,
}

impl Upgrade {
    /// What a start may do.
    fn at_start(config: &StoreConfig) -> Upgrade {
        if config.migrate {
            Upgrade::Always
        } else {
            Upgrade::Never
        }
    }

    /// Whether to migrate; refuses a schema that stays as it is and would not do.
    fn is_wanted(self, schema: MigrationReport) -> Result<bool, StartError> {
        let MigrationReport { from, to } = schema;
        match self {
            _ if from == to => Ok(false),
            Upgrade::Always => Ok(true),
            Upgrade::OnlyEmpty if from == 0 => Ok(true),
            Upgrade::Never if from == 0 => Err(StartError::NoDatabase {
                what: "the database is empty".to_owned(),
            }),
            Upgrade::OnlyEmpty | Upgrade::Never => Err(StartError::OldSchema {
                found: from,
                known: to,
            }),
        }
    }
}

/// Opens the database of a configuration with its key, and with this binary's schema.
pub(crate) async fn open_database(config: &Config, upgrade: Upgrade) -> Result<Db, StartError> {
    // Opening it would make the file.
    if upgrade == Upgrade::Never
        && let Some(path) = sqlite_path(&config.store).filter(|path| !path.exists())
    {
        return Err(StartError::NoDatabase {
            what: format!("there is no database at {}", path.display()),
        });
    }
    let found = FoundKey::find(&config.security)?;
    found.check_mode()?;
    let db = connect(config, &found).await?;
    if upgrade.is_wanted(db.schema().await.map_err(StartError::Database)?)? {
        let report = db.migrate().await.map_err(StartError::Database)?;
        tracing::info!(
            from = report.from,
            to = report.to,
            "brought the schema up to date"
        );
    }
    let empty = db
        .read(tenants::count)
        .await
        .map_err(StartError::Database)?
        == 0;
    if db
        .read(device_state::probe)
        .await
        .is_err_and(|error| matches!(error, StoreError::Sealed))
    {
        return Err(StartError::ForeignKey);
    }
    if let Some(path) = found.keep(empty)? {
        tracing::warn!(
            "made a master key in {}: keep a copy of it, without it every session must be linked anew",
            path.display()
        );
    }
    Ok(db)
}

/// Brings the schema up to date, and says from which version to which.
pub(crate) async fn migrate_database(config: &Config) -> Result<MigrationReport, StartError> {
    // Nothing is sealed on the way, so that a key which is not there yet need not be kept.
    let db = connect(config, &FoundKey::find(&config.security)?).await?;
    let report = db.migrate().await.map_err(StartError::Database);
    db.close().await;
    report
}

async fn connect(config: &Config, found: &FoundKey) -> Result<Db, StartError> {
    if let Some(folder) = sqlite_path(&config.store).as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
    {
        fs::create_dir_all(folder).map_err(|source| StartError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let sealer = Sealer::new(&found.key, &[]);
    Db::open(db_options(&config.store), sealer)
        .await
        .map_err(StartError::Database)
}

/// The database's options.
pub(crate) fn db_options(config: &StoreConfig) -> DbOptions {
    DbOptions {
        readers: config.readers,
        pool: config.pool,
        queue_max: config.queue_max,
        ..DbOptions::new(config.url.expose_secret())
    }
}

/// The file of an embedded database.
pub(crate) fn sqlite_path(config: &StoreConfig) -> Option<PathBuf> {
    let path = config.url.expose_secret().strip_prefix("sqlite:")?;
    (path != ":memory:").then(|| PathBuf::from(path))
}

/// Two gateways on one embedded database would hold the same sessions: the second is refused.
fn lock_embedded(config: &StoreConfig) -> Result<Option<File>, StartError> {
    let Some(database) = sqlite_path(config) else {
        return Ok(None);
    };
    let mut path = database.into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| StartError::Folder {
        path: path.clone(),
        source,
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::InUse { path }),
        Err(fs::TryLockError::Error(source)) => Err(StartError::Folder { path, source }),
    }
}

fn open_bus(config: &StoreConfig) -> Result<Bus, StartError> {
    if sqlite_path(config).is_some() || config.url.expose_secret().starts_with("sqlite:") {
        return Ok(Bus::local());
    }
    Bus::postgres(config.url.expose_secret()).map_err(StartError::Database)
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

/// The engine's options.
pub(crate) fn engine_options(config: &Config) -> Result<EngineOptions, StartError> {
    let whatsapp = &config.whatsapp;
    let mut options = EngineOptions::new(endpoint(whatsapp)?);
    options.device_name.clone_from(&whatsapp.device_name);
    if let Some((major, minor, patch)) = parse_version(&whatsapp.version) {
        options.version = WaVersion::Fixed(major, minor, patch);
    }
    options.pace = Pace {
        per_sec: whatsapp.connects_per_second,
        at_once: whatsapp.connecting_max,
    };
    options.ack_timeout = config.worker.ack_timeout;
    // Whoever waits less for an acknowledgement waits less for any answer.
    let usual = options.liveness;
    options.liveness.answer_within = usual.answer_within.min(config.worker.ack_timeout);
    options.liveness.probe_after = usual.probe_after.min(config.worker.ack_timeout * 2);
    options.reconnect.longest = config.worker.reconnect_within;
    Ok(options)
}

fn endpoint(config: &WhatsAppConfig) -> Result<Endpoint, StartError> {
    if config.url.is_empty() {
        return Ok(whatsapp_itself()?);
    }
    let ca_file = Some(&config.ca_file).filter(|path| !path.as_os_str().is_empty());
    let roots = ca_file
        .map(|path| {
            fs::read(path).map_err(|source| StartError::CaFile {
                path: path.clone(),
                source,
            })
        })
        .transpose()?;
    Ok(Endpoint::at(&config.url, roots.as_deref())?)
}

#[cfg(not(feature = "unsafe-sandbox"))]
fn whatsapp_itself() -> Result<Endpoint, EndpointError> {
    Endpoint::whatsapp()
}

/// A build for the simulated network has no way to WhatsApp.
#[cfg(feature = "unsafe-sandbox")]
fn whatsapp_itself() -> Result<Endpoint, EndpointError> {
    Err(EndpointError::UnsafeBuild)
}

fn app_options(config: &Config) -> AppOptions {
    let region = &config.server.default_region;
    AppOptions {
        worker_tenant: config.security.worker_tenant.clone(),
        default_region: (!region.is_empty()).then(|| region.clone()),
        link_wait: config.server.link_wait,
        concurrency: u32::try_from(config.worker.concurrency).unwrap_or(u32::MAX),
        pacing: config.pacing.rules(&config.whatsapp.url),
        ..AppOptions::default()
    }
}

fn worker_options(config: &Config, address: SocketAddr) -> WorkerOptions {
    let worker = &config.worker;
    let embedded = config.store.url.expose_secret().starts_with("sqlite:");
    let named = if worker.id.is_empty() && embedded {
        EMBEDDED_WORKER
    } else {
        &worker.id
    };
    let id = WorkerId::parse(named).unwrap_or_else(|_| WorkerId::generate());
    WorkerOptions {
        endpoint: Some(format!("http://{address}")),
        environment: config.server.environment.clone(),
        sessions_max: worker.sessions_max,
        lease_ttl: worker.lease_ttl,
        tick: worker.tick,
        restore_per_second: worker.restore_per_second,
        concurrency: worker.concurrency,
        link_timeout: worker.link_timeout,
        link_qr_max: worker.link_qr_max,
        // Half of the whole: the other half is for closing what is left.
        drain_within: (config.shutdown.timeout / 2).min(Duration::from_secs(5)),
        pacing: config.pacing.rules(&config.whatsapp.url),
        event_retention: config.retention.events,
        ..WorkerOptions::new(id)
    }
}

fn api_options(config: &Config, worker: &Arc<Worker>) -> ApiOptions {
    let secret = |secret: &secrecy::SecretString| {
        let text = secret.expose_secret();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let dialect = |name: &str| config.server.dialects.iter().any(|dialect| dialect == name);
    let usage = Usage::new();
    let figures = {
        let worker = Arc::clone(worker);
        move || {
            let stats = worker.stats();
            ProcessFigures {
                sessions: u64::try_from(stats.sessions).unwrap_or(u64::MAX),
                sessions_max: u64::try_from(stats.sessions_max).unwrap_or(u64::MAX),
                cpu_percent: usage.cpu_percent(),
                memory_percent: usage.memory_percent(),
            }
        }
    };
    let ready = {
        let worker = Arc::clone(worker);
        move || {
            vec![ReadyCheck {
                name: "sessions_restored",
                ready: worker.is_restored(),
            }]
        }
    };
    let metrics = {
        let worker = Arc::clone(worker);
        move || {
            worker.set_gauges();
            telemetry::metrics().render()
        }
    };
    ApiOptions {
        body_bytes_max: usize::try_from(config.server.body_bytes_max).unwrap_or(usize::MAX),
        send_wait: config.server.send_wait,
        worker_token: secret(&config.security.worker_token),
        metrics_token: secret(&config.security.metrics_token),
        cors_origins: config.server.cors_origins.clone(),
        worker_id: worker.id().to_string(),
        environment: config.server.environment.clone(),
        figures: Arc::new(figures),
        ready: Arc::new(ready),
        metrics: Arc::new(metrics),
        gateway_dialect: dialect("gateway"),
        worker_dialect: dialect("worker"),
        whatsapp_dialect: dialect("whatsapp"),
        instance_dialect: dialect("instance"),
    }
}

#[cfg(test)]
mod tests;
