//! What all devices of a process share: connector, HTTP client, pace, version.

#[cfg(test)]
#[cfg(feature = "unsafe-sandbox")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use wacore::net::{HttpClient, TransportFactory};
use wacore::runtime::Runtime;
use wacore::store::{DeviceCommand, DevicePropsOverride};
use wagate_domain::Clock;
use wagate_store::{Db, Lease};
use whatsapp_rust::store::persistence_manager::PersistenceManager;
use whatsapp_rust::{CacheConfig, CacheEntryConfig, Client};

use crate::acks::Acks;
use crate::backend::SessionBackend;
use crate::device::Device;
use crate::error::EngineError;
use crate::event::EngineEvent;
use crate::handler::Hub;
use crate::http::Http;
use crate::options::EngineOptions;
use crate::pairing;
use crate::runner::{Inner, SinkHook};
use crate::runtime::Patient;
use crate::sink::InboundSink;
use crate::transport::{self, DeviceDialer, Dialer, Pacer, Wire};
use crate::version::Versions;

/// How often device state that changed is saved, beside at once.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Makes devices. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// One of each for the process.
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) http: Arc<dyn HttpClient>,
    pub(crate) pacer: Pacer,
    pub(crate) versions: Versions,
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets up what devices share. Connects to nothing.
    pub fn new(options: EngineOptions, db: Db, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let tls = transport::tls(&options.endpoint)?;
        let http: Arc<dyn HttpClient> = Arc::new(Http::new(&options.endpoint, &tls)?);
        let dialer = Arc::new(Dialer::new(&options.endpoint, tls, options.connect_timeout));
        Ok(Self(Arc::new(Shared {
            db,
            clock,
            runtime: Arc::new(Patient),
            dialer,
            pacer: Pacer::new(options.pace),
            versions: Versions::new(options.version, Arc::clone(&http)),
            http,
            tasks: TaskTracker::new(),
            options,
        })))
    }

    /// Loads a session's device state and makes its device, linked or not; `start` it afterwards.
    ///
    /// `events` is the actor's mailbox; 256 is a good bound.
    pub async fn open(
        &self,
        lease: &Lease,
        sink: Arc<dyn InboundSink>,
        events: mpsc::Sender<EngineEvent>,
    ) -> Result<Device, EngineError> {
        let wire = Arc::new(Wire::default());
        let way = DeviceDialer {
            dialer: Arc::clone(&self.0.dialer),
            wire: Arc::clone(&wire),
        };
        let inner = self.open_over(way, wire, lease, Arc::clone(&sink)).await?;
        Ok(Device::new(inner, sink, events))
    }

    /// Makes a device whose sockets `way` opens and `wire` watches.
    async fn open_over(
        &self,
        way: impl TransportFactory + 'static,
        wire: Arc<Wire>,
        lease: &Lease,
        sink: Arc<dyn InboundSink>,
    ) -> Result<Arc<Inner>, EngineError> {
        let shared = &self.0;
        let options = &shared.options;
        let backend = Arc::new(SessionBackend::new(
            shared.db.clone(),
            lease.clone(),
            Arc::clone(&shared.clock),
            options.resend_after,
        ));
        let storage: Arc<dyn wacore::store::traits::Backend> = Arc::clone(&backend) as _;
        let state = PersistenceManager::new(storage)
            .await
            .map_err(store_error)?;
        let state = Arc::new(state);
        if state.get_device_snapshot().pn.is_none() {
            // Read while pairing only.
            let props = DevicePropsOverride::new()
                .with_os(options.device_name.as_str())
                .with_platform_type(waproto::whatsapp::device_props::PlatformType::CHROME);
            state
                .process_command(DeviceCommand::SetDeviceProps(props))
                .await;
        }
        let hub = Arc::new(Hub::new(
            Arc::clone(&shared.clock),
            Acks::new(options.ack_timeout, options.acks_max),
        ));
        let client = Client::builder()
            .with_runtime_arc(Arc::clone(&shared.runtime))
            .with_persistence_manager(Arc::clone(&state))
            .with_transport_factory(way)
            .with_http_client_arc(Arc::clone(&shared.http))
            .with_cache_config(cache_config(options))
            .with_skip_history_sync(true)
            .with_wanted_pre_key_count(options.prekeys.max(1))
            .with_inbound_durability_hook(SinkHook {
                sink,
                backend: Arc::clone(&backend),
            })
            .with_background_saver_interval(SAVE_EVERY)
            .build()
            .await
            .map_err(|error| EngineError::from_library("making the device", error))?
            .into_client();
        hub.attach(&client);
        client
            .subscribe(Hub::interest(), Arc::clone(&hub) as _)
            .detach();
        // Rule 9: offline for the owner's contacts, but receipts are receipts.
        client.set_force_active_delivery_receipts(true);
        let shared = Arc::clone(shared);
        Ok(Inner::new(shared, client, state, backend, hub, wire))
    }

    /// Opens the socket to WhatsApp, shakes hands and closes it again; for `doctor`.
    pub async fn check_reachable(&self) -> Result<(), EngineError> {
        // First, since a server that is not WhatsApp is the worse finding.
        pairing::check_server(&self.0).await?;
        self.0.versions.current().await.map(drop)
    }

    /// Waits until every device has let go of its tasks. Stop the devices before.
    pub async fn shutdown(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// The library's caches, bounded for a process with a thousand devices.
fn cache_config(options: &EngineOptions) -> CacheConfig {
    let usual = CacheConfig::default();
    CacheConfig {
        chat_lanes_capacity: options.chat_lanes.max(1),
        // 650 bytes each, and one for every address that was ever looked at. Locks that are held stay.
        session_locks_capacity: 512,
        // Each retry receipt asks the backend, which notes it.
        recent_messages: CacheEntryConfig::new(None, 0),
        group_distribution_locks_capacity: 128,
        resend_rate_limiter_capacity: 512,
        seed_msg_secrets_from_history: false,
        ..usual
    }
}

/// Device state could not be loaded.
pub(crate) fn store_error(error: wacore::store::error::StoreError) -> EngineError {
    use wacore::store::error::StoreError as LibraryError;
    match error {
        LibraryError::Database(source) => match source.downcast() {
            Ok(ours) => EngineError::Store(*ours),
            Err(source) => EngineError::Protocol {
                doing: "loading device state",
                source,
            },
        },
        other => EngineError::Protocol {
            doing: "loading device state",
            source: Box::new(other),
        },
    }
}
