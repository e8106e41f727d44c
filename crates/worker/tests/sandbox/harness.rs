//! A database, a simulated network, and workers between them. Every wait is for a wake-up of the bus, and
//! bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wagate_domain::{
    Backoff, Clock, Content, Desired, Jid, LinkChallenge, LinkMethod, MessageId, MessageState,
    SessionId, SessionName, SystemClock, TenantId, Timestamp, WorkerId,
};
use wagate_engine::{Endpoint, Engine, EngineOptions, WaVersion};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;
use wagate_store::bus::{Bus, BusMessage, BusReceiver, Heard};
use wagate_store::messages::{self, Message, NewOutbound, Priority};
use wagate_store::sessions::{self, NewSession, Session};
use wagate_store::{Db, DbOptions, Lease, MasterKey, Sealer, leases, tenants};
use wagate_worker::{Worker, WorkerOptions};

pub(crate) const OWNER: &str = "6281100000001";
pub(crate) const FRIEND: &str = "6281100000002";
/// Longer than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(40);

/// The database's file.
const FILE: &str = "worker.db";

pub(crate) struct Harness {
    pub(crate) network: Network,
    pub(crate) db: Db,
    pub(crate) bus: Bus,
    pub(crate) tenant: TenantId,
    folder: tempfile::TempDir,
}

/// Options that make tests quick.
pub(crate) fn options(id: &str) -> WorkerOptions {
    WorkerOptions {
        lease_ttl: Duration::from_secs(3),
        tick: Duration::from_millis(100),
        ..WorkerOptions::new(WorkerId::parse(id).unwrap())
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The machine's clock, put forward by hand.
#[derive(Debug, Default)]
pub(crate) struct Ahead(AtomicU64);

impl Ahead {
    /// So many seconds ahead from now on.
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        now().plus(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

impl Harness {
    pub(crate) async fn start() -> Harness {
        // Fails where the process has one already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let network = Network::start(NetworkOptions::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join(FILE).display());
        let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
        let db = Db::open(DbOptions::new(url), sealer).await.unwrap();
        db.migrate().await.unwrap();
        let tenant = db
            .write(|tx| tenants::create(tx, "tenant", now()))
            .await
            .unwrap()
            .id;
        Harness {
            network,
            db,
            bus: Bus::local(),
            tenant,
            folder,
        }
    }

    /// The database by another way, as an operator has it.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join(FILE)).unwrap()
    }

    /// Starts a worker with an engine of its own, as another process would have.
    pub(crate) async fn worker(&self, options: WorkerOptions) -> Worker {
        self.worker_by(options, Arc::new(SystemClock)).await
    }

    /// As [`Self::worker`], by another clock.
    pub(crate) async fn worker_by(&self, options: WorkerOptions, clock: Arc<dyn Clock>) -> Worker {
        let endpoint = Endpoint::at(&self.network.ws_url(), None).unwrap();
        let engine = EngineOptions {
            version: WaVersion::Fixed(2, 3000, 1_030_000_000),
            prekeys: 30,
            ack_timeout: Duration::from_secs(2),
            reconnect: Backoff {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(500),
                jitter_percent: 0,
            },
            ..EngineOptions::new(endpoint)
        };
        let engine = Engine::new(engine, self.db.clone(), Arc::clone(&clock)).unwrap();
        Worker::start(options, self.db.clone(), self.bus.clone(), engine, clock)
            .await
            .unwrap()
    }

    pub(crate) fn phone(&self, number: &str, name: &str) -> PhoneHandle {
        let spec = AccountSpec {
            phone: number.to_owned(),
            push_name: Some(name.to_owned()),
            ..AccountSpec::default()
        };
        self.network.add_phone(spec).unwrap()
    }

    /// A session that is to run.
    pub(crate) async fn session(&self, name: &str) -> SessionId {
        let new = NewSession {
            name: Some(SessionName::parse(name).unwrap()),
            ..NewSession::default()
        };
        let tenant = self.tenant.clone();
        let session = self
            .db
            .write(move |tx| sessions::create(tx, &tenant, &new, now()))
            .await
            .unwrap()
            .id;
        self.want(&session, Desired::Running).await;
        self.bus.publish(BusMessage::DesiredChanged {
            session: session.clone(),
        });
        session
    }

    /// Writes what is wanted, without waking anybody.
    pub(crate) async fn want(&self, session: &SessionId, desired: Desired) {
        let (tenant, session) = (self.tenant.clone(), session.clone());
        self.db
            .write(move |tx| {
                let method = Some(LinkMethod::Qr);
                sessions::set_desired(tx, &tenant, &session, desired, method.as_ref(), now())
            })
            .await
            .unwrap();
    }

    /// A session that is linked to the phone and connected.
    pub(crate) async fn linked(&self, name: &str, phone: &PhoneHandle) -> SessionId {
        let session = self.session(name).await;
        let shown = self
            .until_session(&session, "a QR code", |s| s.challenge.is_some())
            .await;
        let Some(LinkChallenge::Qr { qr, .. }) = shown.challenge else {
            panic!("no QR code")
        };
        phone.scan(&qr).await.unwrap();
        self.until_connected(&session).await;
        session
    }

    pub(crate) async fn until_connected(&self, session: &SessionId) {
        self.until_session(session, "connected", |s| s.link.is_connected())
            .await;
    }

    /// Waits until the session's row is as wanted.
    pub(crate) async fn until_session(
        &self,
        session: &SessionId,
        what: &str,
        there: impl Fn(&Session) -> bool,
    ) -> Session {
        let mut bus = self.bus.subscribe();
        let deadline = Instant::now() + BOUND;
        loop {
            let id = session.clone();
            let seen = self
                .db
                .read(move |tx| sessions::find(tx, &id))
                .await
                .unwrap();
            if there(&seen) {
                return seen;
            }
            next(&mut bus, deadline, what, &format!("{:?}", seen.link)).await;
        }
    }

    /// Accepts a text, without waking anybody.
    pub(crate) async fn accept(&self, session: &SessionId, to: &str, text: &str) -> MessageId {
        let new = NewOutbound {
            session: session.clone(),
            chat: Jid::pn(to),
            content: Content::text(text).unwrap(),
            priority: Priority::Normal,
            not_before: None,
            expires_at: None,
            idempotency: None,
        };
        let tenant = self.tenant.clone();
        let accepted = self
            .db
            .write(move |tx| messages::accept(tx, &tenant, new, now()))
            .await
            .unwrap();
        accepted.message.id
    }

    /// Accepts a text and wakes the dispatcher.
    pub(crate) async fn send(&self, session: &SessionId, to: &str, text: &str) -> MessageId {
        let message = self.accept(session, to, text).await;
        self.bus.publish(BusMessage::QueueReady {
            session: session.clone(),
        });
        message
    }

    pub(crate) async fn message(&self, message: &MessageId) -> Message {
        let (tenant, id) = (self.tenant.clone(), message.clone());
        self.db
            .read(move |tx| messages::get(tx, &tenant, &id))
            .await
            .unwrap()
            .message
    }

    /// Waits until a message has this state, or one behind it.
    pub(crate) async fn until_message(&self, message: &MessageId, state: MessageState) -> Message {
        let mut bus = self.bus.subscribe();
        let deadline = Instant::now() + BOUND;
        loop {
            let seen = self.message(message).await;
            if seen.state.rank() >= state.rank() {
                return seen;
            }
            next(&mut bus, deadline, state.as_str(), seen.state.as_str()).await;
        }
    }

    /// A worker that died while it held the only session, for so long.
    pub(crate) async fn held_by_a_dead(&self, ttl: Duration) -> Lease {
        let dead = WorkerId::parse("dead").unwrap();
        let held = self
            .db
            .write(move |tx| leases::acquire_some(tx, &dead, 1, ttl, now()))
            .await;
        held.unwrap().remove(0)
    }

    /// Does something while the database hangs, which goes on when that is done.
    pub(crate) async fn while_it_hangs(&self, work: impl Future<Output = ()>) {
        let (free, held) = std::sync::mpsc::channel::<()>();
        let (began, hanging) = tokio::sync::oneshot::channel();
        let hang = self.db.write(move |_| {
            began.send(()).unwrap();
            let _released = held.recv();
            Ok(())
        });
        let work = async {
            hanging.await.unwrap();
            work.await;
            drop(free);
        };
        let (hung, ()) = tokio::join!(hang, work);
        hung.unwrap();
    }

    /// Waits until it is so; looks after each wake-up of the bus.
    pub(crate) async fn until(&self, what: &str, there: impl AsyncFn() -> bool) {
        let mut bus = self.bus.subscribe();
        let deadline = Instant::now() + BOUND;
        while !there().await {
            next(&mut bus, deadline, what, "nothing of it").await;
        }
    }

    /// The network's judgement over what crossed.
    pub(crate) fn check(&self) {
        let violations = self.network.check();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

async fn next(bus: &mut BusReceiver, deadline: Instant, what: &str, seen: &str) {
    match timeout_at(deadline, bus.recv()).await {
        Ok(Heard::Message(_) | Heard::Missed) => {}
        Ok(Heard::Closed) => panic!("the bus closed while waiting for {what}"),
        Err(_) => panic!("waited {} s for {what}, last seen {seen}", BOUND.as_secs()),
    }
}
