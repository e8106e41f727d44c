//! The configuration: typed sections, read from layers, refused with every problem at once.
//!
//! Layers, weakest first: the compiled-in `config.default.toml`, a file, the environment, flags.
//! `layers` merges and reads, this file says which keys exist and what they may be, and checks what
//! concerns several of them. Other crates never see these types: `serve` makes their options.

mod aliases;
mod document;
mod layers;
mod pacing;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use wagate_domain::limits::WAIT_MAX;
use wagate_domain::{failpoint, plant};

pub use document::document;
use layers::Reader;
pub use layers::{DEFAULT_FILE, Effective, Layers, Problem, Problems};
pub use pacing::{PacingConfig, PacingMode};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub security: SecurityConfig,
    pub worker: WorkerConfig,
    pub whatsapp: WhatsAppConfig,
    pub pacing: PacingConfig,
    pub retention: RetentionConfig,
    pub log: LogConfig,
    pub shutdown: ShutdownConfig,
    pub testing: TestingConfig,
}

/// `[server]`: the HTTP API.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub host: String,
    pub port: u16,
    pub dialects: Vec<String>,
    pub body_bytes_max: u64,
    pub header_timeout: Duration,
    pub connections_max: usize,
    pub send_wait: Duration,
    pub link_wait: Duration,
    pub cors_origins: Vec<String>,
    pub default_region: String,
    pub environment: String,
}

/// `[store]`: the database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// May hold a password, so it is never printed as it is.
    pub url: SecretString,
    pub readers: usize,
    pub pool: usize,
    pub queue_max: usize,
    pub migrate: bool,
}

/// `[security]`: the master key and the worker's token.
#[derive(Debug, Clone)]
pub struct SecurityConfig {
    pub master_key: SecretString,
    pub master_key_file: PathBuf,
    pub worker_token: SecretString,
    pub metrics_token: SecretString,
    pub worker_tenant: String,
}

/// `[worker]`: the sessions that this process runs.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub id: String,
    pub sessions_max: usize,
    pub lease_ttl: Duration,
    pub restore_per_second: u32,
    pub tick: Duration,
    pub concurrency: usize,
    pub tenant_share: usize,
    pub link_timeout: Duration,
    pub link_qr_max: u32,
    pub ack_timeout: Duration,
    pub resend_after: Duration,
    pub reconnect_within: Duration,
}

/// `[whatsapp]`: how sessions reach WhatsApp and what they say they are.
#[derive(Debug, Clone)]
pub struct WhatsAppConfig {
    pub url: String,
    pub ca_file: PathBuf,
    pub device_name: String,
    pub version: String,
    pub connects_per_second: u32,
    pub connecting_max: usize,
}

/// `[retention]`: how long things are kept.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    pub events: Duration,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[shutdown]`.
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    pub timeout: Duration,
}

/// `[testing]`.
#[derive(Debug, Clone)]
pub struct TestingConfig {
    pub abort_at: String,
    pub plant: String,
}

/// A configuration together with where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the default file; secrets masked.
    pub effective: Vec<Effective>,
}

/// Reads the layers; refuses them with every problem that they have.
pub fn load(layers: &Layers) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(layers);
    let config = read(&mut reader);
    if reader.problems.is_empty() {
        Ok(Loaded {
            config,
            effective: reader.effective,
        })
    } else {
        Err(Problems(reader.problems))
    }
}

impl Config {
    /// The compiled-in defaults, for programs that embed the gateway and set the rest in code.
    pub fn defaults() -> Result<Config, Problems> {
        load(&Layers::default()).map(|loaded| loaded.config)
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn read(r: &mut Reader) -> Config {
    let config = Config {
        server: read_server(r),
        store: read_store(r),
        security: read_security(r),
        worker: read_worker(r),
        whatsapp: read_whatsapp(r),
        pacing: pacing::read(r),
        retention: RetentionConfig {
            events: r.duration("retention.events", secs(60)..=secs(3650 * 86_400)),
        },
        log: read_log(r),
        shutdown: ShutdownConfig {
            timeout: r.duration("shutdown.timeout", secs(1)..=secs(600)),
        },
        testing: TestingConfig {
            abort_at: r.text("testing.abort_at"),
            plant: r.text("testing.plant"),
        },
    };
    check(r, &config);
    config
}

fn read_server(r: &mut Reader) -> ServerConfig {
    ServerConfig {
        host: r.text("server.host"),
        port: r.number("server.port", 0..=u16::MAX),
        dialects: r.list("server.dialects"),
        body_bytes_max: r.bytes("server.body_bytes_max", 1 << 10..=1 << 30),
        header_timeout: r.duration("server.header_timeout", secs(1)..=secs(600)),
        connections_max: r.number("server.connections_max", 1..=1_000_000),
        send_wait: r.duration("server.send_wait", secs(0)..=WAIT_MAX),
        link_wait: r.duration("server.link_wait", secs(1)..=WAIT_MAX),
        cors_origins: r.list("server.cors_origins"),
        default_region: read_region(r),
        environment: r.text("server.environment"),
    }
}

fn read_store(r: &mut Reader) -> StoreConfig {
    StoreConfig {
        url: read_store_url(r),
        readers: r.number("store.readers", 1..=64),
        pool: r.number("store.pool", 2..=256),
        queue_max: r.number("store.queue_max", 16..=1_000_000),
        migrate: r.switch("store.migrate"),
    }
}

fn read_store_url(r: &mut Reader) -> SecretString {
    const KEY: &str = "store.url";
    let url = r.secret(KEY);
    let shown = masked_url(&url);
    if let Some(effective) = r.effective.last_mut() {
        effective.value = format!("\"{}\"", shown.escape_default());
    }
    let sqlite = url
        .strip_prefix("sqlite:")
        .is_some_and(|path| !path.is_empty());
    if !sqlite && !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let source = r.source(KEY);
        let allowed = "sqlite:<file> or postgres://user:password@host:port/database";
        r.refuse(KEY, &shown, &source, allowed);
    }
    SecretString::from(url)
}

fn read_security(r: &mut Reader) -> SecurityConfig {
    let master_key = r.secret("security.master_key");
    let worker_token = read_token(r, "security.worker_token");
    let metrics_token = read_token(r, "security.metrics_token");
    SecurityConfig {
        master_key: SecretString::from(master_key),
        master_key_file: PathBuf::from(r.text("security.master_key_file")),
        worker_token,
        metrics_token,
        worker_tenant: r.text("security.worker_tenant"),
    }
}

/// A token that others could guess would be worse than none.
fn read_token(r: &mut Reader, key: &str) -> SecretString {
    let token = r.secret(key);
    if !token.is_empty() && token.len() < 16 {
        let source = r.source(key);
        r.problem(format!(
            "{key} (from {source}): must be empty or at least 16 characters long"
        ));
    }
    SecretString::from(token)
}

fn read_region(r: &mut Reader) -> String {
    const KEY: &str = "server.default_region";
    let region = r.text(KEY);
    if !region.is_empty() && !wagate_domain::phone::is_region(&region) {
        let source = r.source(KEY);
        r.refuse(
            KEY,
            &region,
            &source,
            "empty, or a country's two letters such as ID",
        );
    }
    region
}

fn read_worker(r: &mut Reader) -> WorkerConfig {
    WorkerConfig {
        id: read_worker_id(r),
        sessions_max: r.number("worker.sessions_max", 1..=100_000),
        lease_ttl: r.duration("worker.lease_ttl", secs(2)..=secs(600)),
        restore_per_second: r.number("worker.restore_per_second", 1..=10_000),
        tick: r.duration("worker.tick", Duration::from_millis(50)..=secs(60)),
        concurrency: r.number("worker.concurrency", 1..=64),
        tenant_share: r.number("worker.tenant_share", 1..=1_000),
        link_timeout: r.duration("worker.link_timeout", secs(1)..=secs(1_800)),
        link_qr_max: r.number("worker.link_qr_max", 1..=60),
        ack_timeout: r.duration("worker.ack_timeout", Duration::from_millis(100)..=secs(300)),
        resend_after: r.duration(
            "worker.resend_after",
            Duration::from_millis(100)..=secs(3_600),
        ),
        reconnect_within: r.duration("worker.reconnect_within", secs(1)..=secs(900)),
    }
}

fn read_worker_id(r: &mut Reader) -> String {
    const KEY: &str = "worker.id";
    let id = r.text(KEY);
    let source = r.source(KEY);
    if !id.is_empty() && wagate_domain::WorkerId::parse(&id).is_err() {
        let allowed = "1 to 64 of A–Z, a–z, 0–9, dot, dash and underscore, or empty";
        r.refuse(KEY, &id, &source, allowed);
    }
    id
}

fn read_whatsapp(r: &mut Reader) -> WhatsAppConfig {
    const URL: &str = "whatsapp.url";
    const VERSION: &str = "whatsapp.version";
    let url = r.text(URL);
    let is_socket = url::Url::parse(&url).is_ok_and(|u| matches!(u.scheme(), "ws" | "wss"));
    if !url.is_empty() && !is_socket {
        let source = r.source(URL);
        r.refuse(
            URL,
            &url,
            &source,
            "empty, or an address that begins with ws:// or wss://",
        );
    }
    let version = r.text(VERSION);
    if !version.is_empty() && parse_version(&version).is_none() {
        let source = r.source(VERSION);
        r.refuse(
            VERSION,
            &version,
            &source,
            "empty, or three numbers such as 2.3000.1027868167",
        );
    }
    WhatsAppConfig {
        url,
        ca_file: PathBuf::from(r.text("whatsapp.ca_file")),
        device_name: r.text("whatsapp.device_name"),
        version,
        connects_per_second: r.number("whatsapp.connects_per_second", 1..=10_000),
        connecting_max: r.number("whatsapp.connecting_max", 1..=10_000),
    }
}

/// Reads `2.3000.1027868167`.
pub(crate) fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    let version = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    parts.next().is_none().then_some(version)
}

fn read_log(r: &mut Reader) -> LogConfig {
    const KEY: &str = "log.level";
    let level = r.text(KEY);
    if level.trim().is_empty() || level.parse::<tracing_subscriber::EnvFilter>().is_err() {
        let source = r.source(KEY);
        let allowed = "error, warn, info, debug, trace, off, or a filter such as \
                       \"info,wagate_worker=debug\"";
        r.refuse(KEY, &level, &source, allowed);
    }
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogConfig {
        level,
        format: r.choice("log.format", &formats).unwrap_or(LogFormat::Text),
    }
}

/// The dialects that exist.
const DIALECTS: &[&str] = &["gateway", "worker", "whatsapp", "instance"];

/// Checks what concerns the meaning of a key or several keys together.
fn check(r: &mut Reader, config: &Config) {
    for dialect in &config.server.dialects {
        if !DIALECTS.contains(&dialect.as_str()) {
            let source = r.source("server.dialects");
            let allowed = format!("a list of: {}", DIALECTS.join(", "));
            r.refuse("server.dialects", dialect, &source, &allowed);
        }
    }
    check_origins(r, &config.server.cors_origins);
    if config.server.host.parse::<std::net::IpAddr>().is_err() && config.server.host != "localhost"
    {
        let source = r.source("server.host");
        let allowed = "an IP address of this machine, or localhost";
        r.refuse("server.host", &config.server.host, &source, allowed);
    }
    if config.worker.tick * 3 > config.worker.lease_ttl {
        r.problem(
            "worker.lease_ttl must be at least three times worker.tick, or a lease ends between \
             two renewals",
        );
    }
    if config.security.worker_tenant.is_empty() {
        r.problem("security.worker_tenant must not be empty: name a tenant, such as \"default\"");
    }
    if !config.testing.abort_at.is_empty() && !is_failpoint(&config.testing.abort_at) {
        let source = r.source("testing.abort_at");
        let allowed = format!("empty, or one of: {}", failpoint::POINTS.join(", "));
        r.refuse(
            "testing.abort_at",
            &config.testing.abort_at,
            &source,
            &allowed,
        );
    }
    check_plant(r, &config.testing.plant);
    let no_key = config.security.master_key.expose_secret().is_empty()
        && config.security.master_key_file.as_os_str().is_empty();
    if no_key {
        r.problem("security.master_key and security.master_key_file are both empty: set one");
    }
}

/// A planted bug breaks promises that users rest on: a build that can reach WhatsApp takes none.
fn check_plant(r: &mut Reader, name: &str) {
    let known = cfg!(feature = "unsafe-sandbox") && plant::NAMES.contains(&name);
    if name.is_empty() || known {
        return;
    }
    let source = r.source("testing.plant");
    let allowed = if cfg!(feature = "unsafe-sandbox") {
        format!("empty, or one of: {}", plant::NAMES.join(", "))
    } else {
        "empty in a build that can reach WhatsApp".to_owned()
    };
    r.refuse("testing.plant", name, &source, &allowed);
}

/// Each origin must be written as browsers write it, or every website be named by `*` alone.
fn check_origins(r: &mut Reader, origins: &[String]) {
    const KEY: &str = "server.cors_origins";
    const ALL: &str = "*";
    if origins == [ALL] {
        return;
    }
    for origin in origins {
        let source = r.source(KEY);
        if origin == ALL {
            let allowed =
                "\"*\" alone, which stands for every website, or a list of origins without it";
            r.refuse(KEY, origin, &source, allowed);
            continue;
        }
        // Compared byte by byte with what a browser sends: `https://app.example/` would never match.
        let as_browsers_write_it = url::Url::parse(origin).is_ok_and(|u| {
            matches!(u.scheme(), "http" | "https") && u.origin().ascii_serialization() == *origin
        });
        if !as_browsers_write_it {
            let allowed = "a list of origins as browsers send them, such as \"https://app.example.com\", with \
                           no slash at the end; or \"*\" alone";
            r.refuse(KEY, origin, &source, allowed);
        }
    }
}

/// `name` or `name:passes`.
fn is_failpoint(spec: &str) -> bool {
    let (name, passes) = spec.split_once(':').unwrap_or((spec, "0"));
    failpoint::POINTS.contains(&name) && passes.parse::<u32>().is_ok()
}

/// A database address with its password masked.
pub(crate) fn masked_url(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            if parsed.set_password(Some("********")).is_ok() {
                parsed.to_string()
            } else {
                "********".to_owned()
            }
        }
        // `postgres://…?password=…` and the like are not worth a parser of their own.
        Ok(parsed) if parsed.query().is_some() => url
            .split('?')
            .next()
            .map_or_else(String::new, |start| format!("{start}?********")),
        _ if url.contains('@') => "********".to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
