//! A database, a simulated network and devices between them. Every wait is for an event, and bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use wagate_domain::{
    Backoff, Clock as _, Content, Desired, Jid, LinkChallenge, SystemClock, TenantId, Timestamp,
    WorkerId,
};
use wagate_engine::{
    Device, Endpoint, Engine, EngineEvent, EngineOptions, InboundMessage, InboundSink, SinkError,
    WaVersion,
};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;
use wagate_store::device_state::{self, StateKind};
use wagate_store::{Db, DbOptions, Lease, MasterKey, Sealer, Tx, leases, sessions, tenants};

pub(crate) const A: &str = "6281100000001";
pub(crate) const B: &str = "6281100000002";
/// Longer than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(40);

pub(crate) struct Harness {
    pub(crate) network: Network,
    pub(crate) db: Db,
    pub(crate) engine: Engine,
    tenant: TenantId,
    _folder: tempfile::TempDir,
}

/// Settings that make tests quick.
pub(crate) fn options(endpoint: Endpoint) -> EngineOptions {
    EngineOptions {
        version: WaVersion::Fixed(2, 3000, 1_030_000_000),
        prekeys: 30,
        reconnect: Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(500),
            jitter_percent: 0,
        },
        ..EngineOptions::new(endpoint)
    }
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let network = Network::start(NetworkOptions::default()).await.unwrap();
        Self::on(network, change).await
    }

    pub(crate) async fn on(network: Network, change: impl FnOnce(&mut EngineOptions)) -> Self {
        for (phone, name) in [(A, "Ana"), (B, "Budi")] {
            let spec = AccountSpec {
                phone: phone.into(),
                push_name: Some(name.into()),
                ..AccountSpec::default()
            };
            network.create_account(spec).unwrap();
        }
        let mut options = options(Endpoint::at(&network.ws_url(), None).unwrap());
        change(&mut options);
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("engine.db").display());
        let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
        let db = Db::open(DbOptions::new(url), sealer).await.unwrap();
        db.migrate().await.unwrap();
        let now = SystemClock.now();
        let tenant = db
            .write(move |tx| tenants::create(tx, "tenant", now))
            .await
            .unwrap()
            .id;
        let engine = Engine::new(options, db.clone(), Arc::new(SystemClock)).unwrap();
        Self {
            network,
            db,
            engine,
            tenant,
            _folder: folder,
        }
    }

    pub(crate) fn phone(&self, number: &str) -> PhoneHandle {
        self.network.phone(number).unwrap()
    }

    /// A new session, held by a worker.
    pub(crate) async fn session(&self) -> Lease {
        let tenant = self.tenant.clone();
        let now = SystemClock.now();
        self.db
            .write(move |tx| {
                let session = sessions::create(tx, &tenant, &sessions::NewSession::default(), now)?;
                sessions::set_desired(tx, &tenant, &session.id, Desired::Running, None, now)?;
                Ok(())
            })
            .await
            .unwrap();
        self.acquire("one", now).await
    }

    pub(crate) async fn acquire(&self, worker: &str, now: Timestamp) -> Lease {
        let worker = WorkerId::parse(worker).unwrap();
        let ttl = Duration::from_secs(3600);
        let mut held = self
            .db
            .write(move |tx| leases::acquire_some(tx, &worker, 1, ttl, now))
            .await
            .unwrap();
        held.pop().expect("a session wants a worker")
    }

    /// Removes the decrypted messages that wait for their commit; how many there were.
    pub(crate) async fn forget_buffered(&self, lease: &Lease) -> usize {
        // `backend::kind::PENDING_INBOUND`: the numbers are part of the stored form.
        let kind = StateKind(18);
        let lease = lease.clone();
        let forget = move |tx: &mut Tx<'_>| {
            let keys = device_state::keys(tx, &lease.session, kind, "")?;
            device_state::delete_many(tx, &lease, kind, &keys)?;
            Ok(keys.len())
        };
        self.db.write(forget).await.unwrap()
    }

    /// The Signal sessions as they are stored.
    pub(crate) async fn stored_sessions(&self, lease: &Lease) -> Vec<(String, Vec<u8>)> {
        // `backend::kind::SESSION`.
        self.stored(lease, [3]).await
    }

    /// Keys and values of these kinds as they are stored.
    pub(crate) async fn stored(
        &self,
        lease: &Lease,
        kinds: impl IntoIterator<Item = u8> + Send + 'static,
    ) -> Vec<(String, Vec<u8>)> {
        let session = lease.session.clone();
        let read = self.db.read(move |tx| {
            let mut rows = Vec::new();
            for kind in kinds {
                rows.extend(device_state::load_all(tx, &session, StateKind(kind))?);
            }
            Ok(rows)
        });
        read.await.unwrap()
    }

    /// A device on that session's state, started.
    pub(crate) async fn open(&self, lease: &Lease) -> Companion {
        let companion = self.open_stopped(lease).await;
        companion.device.start();
        companion
    }

    pub(crate) async fn open_stopped(&self, lease: &Lease) -> Companion {
        let (sender, events) = mpsc::channel(256);
        let sink = Arc::new(MemorySink::default());
        let device = self
            .engine
            .open(lease, Arc::clone(&sink) as _, sender)
            .await
            .unwrap();
        Companion {
            device,
            events,
            seen: VecDeque::new(),
            sink,
        }
    }

    /// A new session, linked to `number` by QR and connected.
    pub(crate) async fn linked(&self, number: &str) -> (Lease, Companion) {
        let lease = self.session().await;
        let mut companion = self.open(&lease).await;
        let qr = companion.qr().await;
        self.phone(number).scan(&qr).await.unwrap();
        companion.connected().await;
        (lease, companion)
    }

    /// Every promise that the network can see must have been kept.
    pub(crate) async fn judge(self) {
        let report = self.network.with_world(|world, _, _| world.check());
        assert!(report.ok, "{report}");
        let errors = self
            .network
            .with_world(|world, _, _| world.counters.protocol_errors);
        assert_eq!(errors, 0, "protocol errors");
        self.network.stop().await;
    }
}

pub(crate) struct Companion {
    pub(crate) device: Device,
    events: mpsc::Receiver<EngineEvent>,
    /// What came and nobody asked for yet: acknowledgements and receipts have no order.
    seen: VecDeque<EngineEvent>,
    pub(crate) sink: Arc<MemorySink>,
}

impl Companion {
    /// The next event for which `pick` has an answer, among those that came and those to come.
    pub(crate) async fn expect<R>(
        &mut self,
        what: &str,
        pick: impl Fn(&EngineEvent) -> Option<R>,
    ) -> R {
        for at in 0..self.seen.len() {
            if let Some(found) = pick(&self.seen[at]) {
                self.seen.remove(at);
                return found;
            }
        }
        let deadline = Instant::now() + BOUND;
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => {
                    if let Some(found) = pick(&event) {
                        return found;
                    }
                    self.seen.push_back(event);
                }
                Ok(None) => panic!("the events ended before {what}; seen: {:#?}", self.seen),
                Err(_) => panic!("waited for {what}; seen: {:#?}", self.seen),
            }
        }
    }

    pub(crate) async fn qr(&mut self) -> String {
        self.expect("a QR text", |event| match event {
            EngineEvent::Challenge(LinkChallenge::Qr { qr, .. }) => Some(qr.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn connected(&mut self) -> wagate_engine::Identity {
        self.expect("the connection", |event| match event {
            EngineEvent::Connected(identity) => Some(identity.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ended(&mut self) -> wagate_engine::Ended {
        self.expect("the end", |event| match event {
            EngineEvent::Ended(why) => Some(why.clone()),
            _ => None,
        })
        .await
    }

    /// The server's answer to a message: `None`, or the code of its refusal.
    pub(crate) async fn ack(&mut self, id: &wagate_domain::WaMessageId) -> Option<u32> {
        self.expect("the server's answer", |event| match event {
            EngineEvent::ServerAck { wa_id, error, .. } if wa_id == id => Some(*error),
            _ => None,
        })
        .await
    }

    pub(crate) async fn receipt(
        &mut self,
        id: &wagate_domain::WaMessageId,
        wanted: wagate_domain::ReceiptKind,
    ) -> Jid {
        self.expect("a receipt", |event| match event {
            EngineEvent::Receipt {
                chat, ids, kind, ..
            } if *kind == wanted && ids.contains(id) => Some(chat.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn send(&self, to: &str, text: &str) -> wagate_domain::WaMessageId {
        let id = wagate_domain::WaMessageId::generate();
        self.device
            .send(&id, &Jid::pn(to), &content(text))
            .await
            .unwrap();
        id
    }

    /// Whether an event of that kind came and nobody asked for it.
    pub(crate) fn has_seen(&self, pick: impl Fn(&EngineEvent) -> bool) -> bool {
        self.seen.iter().any(pick)
    }

    /// Stops while taking the events; the reason why it ended.
    pub(crate) async fn stop(&mut self) -> wagate_engine::Ended {
        let device = self.device.clone();
        let stop = async move { device.stop().await };
        let (ended, ()) = tokio::join!(self.ended(), stop);
        ended
    }
}

pub(crate) fn content(text: &str) -> Content {
    Content::Text {
        text: text.to_owned(),
    }
}

/// Commits into memory, when it is told to.
#[derive(Default)]
pub(crate) struct MemorySink {
    messages: Mutex<Vec<InboundMessage>>,
    changed: Notify,
    /// While held, commits wait.
    hold: AtomicBool,
    waiting: AtomicBool,
    released: Notify,
    fail: AtomicBool,
    refused: AtomicBool,
}

#[async_trait::async_trait]
impl InboundSink for MemorySink {
    async fn commit(&self, messages: Vec<InboundMessage>) -> Result<(), SinkError> {
        if self.hold.load(Ordering::SeqCst) {
            let released = self.released.notified();
            self.waiting.store(true, Ordering::SeqCst);
            self.changed.notify_waiters();
            released.await;
        }
        if self.fail.load(Ordering::SeqCst) {
            self.refused.store(true, Ordering::SeqCst);
            self.changed.notify_waiters();
            return Err(SinkError("the test refuses".into()));
        }
        self.messages.lock().unwrap().extend(messages);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl MemorySink {
    pub(crate) fn hold(&self) {
        self.hold.store(true, Ordering::SeqCst);
    }

    pub(crate) fn release(&self) {
        self.hold.store(false, Ordering::SeqCst);
        self.released.notify_waiters();
    }

    pub(crate) fn fail(&self, fail: bool) {
        self.fail.store(fail, Ordering::SeqCst);
    }

    pub(crate) async fn until_waiting(&self) {
        self.until("a commit that waits", || {
            self.waiting.load(Ordering::SeqCst).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_refused(&self) {
        self.until("a commit that was refused", || {
            self.refused.load(Ordering::SeqCst).then_some(())
        })
        .await;
    }

    pub(crate) fn all(&self) -> Vec<InboundMessage> {
        self.messages.lock().unwrap().clone()
    }

    pub(crate) async fn text(&self, text: &str) -> InboundMessage {
        self.until(&format!("the text {text:?}"), || {
            let wanted = |message: &&InboundMessage| message.content.as_text() == Some(text);
            self.messages.lock().unwrap().iter().find(wanted).cloned()
        })
        .await
    }

    async fn until<R>(&self, what: &str, look: impl Fn() -> Option<R>) -> R {
        let found = timeout(BOUND, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look() {
                    return found;
                }
                changed.await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("waited for {what}; committed: {:#?}", self.all()),
        }
    }
}
