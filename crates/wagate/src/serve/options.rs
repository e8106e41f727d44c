//! What a configuration means for each part: the options of engine, worker, use cases and API.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use wagate_api::{ApiOptions, ProcessFigures, ReadyCheck};
use wagate_app::AppOptions;
use wagate_domain::WorkerId;
use wagate_engine::{Endpoint, EndpointError, EngineOptions, Pace, WaVersion};
use wagate_worker::{Worker, WorkerOptions};

use super::StartError;
use crate::config::{Config, WhatsAppConfig, parse_version};
use crate::process::Usage;
use crate::telemetry;

/// The worker of an embedded database is always the same one: nobody else can hold its leases.
const EMBEDDED_WORKER: &str = "embedded";

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
    options.resend_after = config.worker.resend_after;
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

pub(super) fn app_options(config: &Config) -> AppOptions {
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

pub(super) fn worker_options(config: &Config, address: SocketAddr) -> WorkerOptions {
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
        tenant_share: worker.tenant_share,
        resend_after: worker.resend_after,
        link_timeout: worker.link_timeout,
        link_qr_max: worker.link_qr_max,
        // Half of the whole: the other half is for closing what is left.
        drain_within: (config.shutdown.timeout / 2).min(Duration::from_secs(5)),
        pacing: config.pacing.rules(&config.whatsapp.url),
        event_retention: config.retention.events,
        ..WorkerOptions::new(id)
    }
}

pub(super) fn api_options(config: &Config, worker: &Arc<Worker>) -> ApiOptions {
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
