//! The shell around the pure world: sockets, time, locks and tasks.
//!
//! One mutex holds the world and the connections' outboxes. [`Network::with_world`] runs a piece of
//! the world under it and carries out the effects before the lock is released, so that every
//! connection sees them in the order in which the world decided them. Carrying out never blocks: it
//! only fills queues. The lock is never held across an await.

mod delayed;
mod options;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waproto::whatsapp::ClientPayload;

use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::connection::{End, Outbox};
use crate::listener;
use crate::node::Node;
use crate::noise::{ChainFault, NoiseError, NoiseIdentity};
use crate::phones::{Phones, Shell};
use crate::transcript::Transcript;
use crate::world::{ConnId, Effect, Hello, Millis, NetworkEvent, World};

pub use options::{NetworkError, NetworkOptions};

use delayed::DelayedStanzas;

/// Events that a slow subscriber may lag behind.
const EVENTS: usize = 4096;
/// How long a stop waits for connections to say goodbye.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Handshakes that were completed, by pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Clients that did not know the server's key.
    pub xx: u64,
    /// Clients that knew it.
    pub ik: u64,
    /// Clients that knew another one, or were refused.
    pub fallback: u64,
}

/// A kind of handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    Xx,
    Ik,
    Fallback,
}

/// How the network greets clients; tests change it while it runs.
#[derive(Clone, Debug)]
struct Handshake {
    identity: Arc<NoiseIdentity>,
    refuse_ik: bool,
    done: Handshakes,
}

/// What the world's mutex protects.
struct Core {
    world: World,
    outboxes: HashMap<ConnId, Arc<Outbox>>,
    next_conn: ConnId,
    delayed: DelayedStanzas,
    /// Reused from call to call.
    effects: Vec<Effect>,
    /// What the timer waits for.
    armed: Option<Millis>,
}

struct Inner {
    options: NetworkOptions,
    address: SocketAddr,
    clock: Clock,
    core: Mutex<Core>,
    /// The keys as they lie in the folder; `handshake` may show others.
    identity: Arc<NoiseIdentity>,
    handshake: Mutex<Handshake>,
    certificates: Certificates,
    phones: Phones,
    events: broadcast::Sender<NetworkEvent>,
    timer: Notify,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// A running network. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Starts listening. The network runs until [`Network::stop`].
    pub async fn start(options: NetworkOptions) -> Result<Self, NetworkError> {
        let clock = options
            .start_at
            .map_or_else(Clock::system, Clock::starting_at);
        let (identity, certificates) = match &options.folder {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(NetworkError::Folder)?;
                let identity = NoiseIdentity::load_or_generate(folder, clock.now())?;
                (identity, Certificates::load_or_generate(folder)?)
            }
            None => (
                NoiseIdentity::generate(clock.now())?,
                Certificates::generate()?,
            ),
        };
        let tls = TlsAcceptor::from(certificates.server_config()?);
        let listen = |source| NetworkError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let identity = Arc::new(identity);
        let handshake = Handshake {
            identity: Arc::clone(&identity),
            refuse_ik: false,
            done: Handshakes::default(),
        };
        let mut world = World::new(options.world.clone());
        world.transcript = Transcript::new(options.transcript);
        world.set_media_host(format!("localhost:{}", address.port()));
        let network = Self(Arc::new(Inner {
            address,
            clock,
            core: Mutex::new(Core::new(world)),
            identity,
            handshake: Mutex::new(handshake),
            certificates,
            phones: Phones::new(options.phones.clone()),
            events: broadcast::Sender::new(EVENTS),
            timer: Notify::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            options,
        }));
        let inner = &network.0;
        let shell: Weak<dyn Shell> = Arc::<Inner>::downgrade(inner);
        inner
            .phones
            .start(shell, &inner.tracker, inner.stop.clone());
        inner.tracker.spawn(network.clone().run_timer());
        let router = crate::control::router(network.clone());
        inner
            .tracker
            .spawn(listener::run(network.clone(), listener, tls, router));
        tracing::info!(%address, "network started");
        Ok(network)
    }

    /// Closes all connections and waits for the tasks to end, for a few seconds at most.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
        if timeout(STOP_LIMIT, self.0.tracker.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.0.tracker.len(),
                "network stopped with tasks left"
            );
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The chat socket, plain.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws/chat", self.0.address)
    }

    /// The chat socket in TLS; clients trust [`Network::tls_ca_pem`].
    pub fn wss_url(&self) -> String {
        format!("wss://localhost:{}/ws/chat", self.0.address.port())
    }

    /// The control API.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// The key that clients must pin in place of WhatsApp's.
    pub fn noise_root_public(&self) -> [u8; 32] {
        self.0.identity.root_public()
    }

    /// The Noise certificate chain, as protobuf.
    pub fn noise_chain(&self) -> Vec<u8> {
        self.0.identity.chain().to_vec()
    }

    /// The authority that signed the TLS certificate.
    pub fn tls_ca_pem(&self) -> &str {
        self.0.certificates.authority_pem()
    }

    /// The settings it was started with.
    pub fn options(&self) -> &NetworkOptions {
        &self.0.options
    }

    /// The simulated phones.
    pub fn phones(&self) -> &Phones {
        &self.0.phones
    }

    /// The network's time.
    pub fn now(&self) -> Millis {
        self.0.clock.now()
    }

    /// Moves the network's time, and does what falls due by that.
    pub fn advance(&self, by: Millis) {
        self.0.clock.advance(by);
        self.0.timer.notify_one();
        self.0.phones.time_moved();
    }

    /// Refuses IK handshakes, so that clients fall back to XX.
    pub fn refuse_ik(&self, refuse: bool) {
        self.0.handshake().refuse_ik = refuse;
    }

    /// How clients have greeted so far.
    pub fn handshakes(&self) -> Handshakes {
        self.0.handshake().done
    }

    /// Changes the static key: clients that remember the old one have to fall back.
    pub fn rotate_noise_key(&self) -> Result<(), NoiseError> {
        let rotated = self.0.identity.rotated()?;
        self.0.handshake().identity = Arc::new(rotated);
        Ok(())
    }

    /// Shows clients a damaged certificate chain, or again the sound one.
    pub fn spoil_chain(&self, fault: Option<ChainFault>) -> Result<(), NoiseError> {
        let identity = match fault {
            Some(fault) => Arc::new(self.0.identity.spoiled(fault)?),
            None => Arc::clone(&self.0.identity),
        };
        self.0.handshake().identity = identity;
        Ok(())
    }

    /// What happens from now on. A subscriber that falls behind loses the oldest events.
    pub fn subscribe(&self) -> broadcast::Receiver<NetworkEvent> {
        self.0.events.subscribe()
    }

    /// Runs `f` on the world, then carries out the effects. `f` must be short and must not call the
    /// network again.
    pub fn with_world<R>(&self, f: impl FnOnce(&mut World, Millis, &mut Vec<Effect>) -> R) -> R {
        self.0.with_world(f)
    }

    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Cancelled when the network stops.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// The keys for the next handshake, and whether IK is refused.
    pub(crate) fn handshake(&self) -> (Arc<NoiseIdentity>, bool) {
        let handshake = self.0.handshake();
        (Arc::clone(&handshake.identity), handshake.refuse_ik)
    }

    pub(crate) fn count_handshake(&self, pattern: Pattern) {
        let mut handshake = self.0.handshake();
        let counter = match pattern {
            Pattern::Xx => &mut handshake.done.xx,
            Pattern::Ik => &mut handshake.done.ik,
            Pattern::Fallback => &mut handshake.done.fallback,
        };
        *counter += 1;
    }

    /// Registers a connection and lets the world greet it.
    pub(crate) fn connected(&self, hello: impl FnOnce(ConnId) -> Hello) -> (ConnId, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(self.0.options.outgoing_max));
        let mut core = self.0.lock();
        let id = core.next_conn;
        core.next_conn += 1;
        core.outboxes.insert(id, Arc::clone(&outbox));
        self.0
            .run(&mut core, |world, now, out| world.open(now, hello(id), out));
        (id, outbox)
    }

    /// The open connection of the device that a login names.
    pub(crate) fn older_connection(&self, login: &ClientPayload) -> Option<Arc<Outbox>> {
        let phone = login.username?.to_string();
        let device = u16::try_from(login.device?).ok()?;
        let core = self.0.lock();
        let conn = core.world.account_by_phone(&phone)?.device(device)?.conn?;
        core.outboxes.get(&conn).map(Arc::clone)
    }

    /// Forgets a connection.
    pub(crate) fn disconnected(&self, id: ConnId) {
        let mut core = self.0.lock();
        if let Some(outbox) = core.outboxes.remove(&id) {
            outbox.leave();
        }
        self.0
            .run(&mut core, |world, now, out| world.closed(now, id, out));
    }

    /// Counts a client that broke the protocol below the level of stanzas.
    pub(crate) fn protocol_error(&self) {
        self.0.lock().world.counters.protocol_errors += 1;
    }

    /// Lets the world do what has fallen due and sends what was delayed.
    async fn run_timer(self) {
        loop {
            let next = self.0.tick();
            let wait = async {
                match next {
                    // A deadline that stays in the past must not make this loop spin.
                    Some(at) => {
                        let soon = Instant::now() + Duration::from_millis(1);
                        sleep_until(self.0.clock.instant(at).max(soon)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                () = self.0.timer.notified() => {}
                () = wait => {}
            }
        }
    }
}

impl Core {
    fn new(world: World) -> Self {
        Self {
            world,
            outboxes: HashMap::new(),
            next_conn: 1,
            delayed: DelayedStanzas::default(),
            effects: Vec::new(),
            armed: None,
        }
    }

    fn send(&self, conn: ConnId, node: Node) {
        if let Some(outbox) = self.outboxes.get(&conn)
            && !outbox.push(node)
        {
            tracing::warn!(conn, "client does not read and is cut off");
        }
    }

    fn release(&mut self, now: Millis) {
        while let Some((conn, node)) = self.delayed.pop(now) {
            self.send(conn, node);
        }
    }

    fn next_deadline(&self) -> Option<Millis> {
        let deadlines = [self.world.next_deadline(), self.delayed.next_deadline()];
        deadlines.into_iter().flatten().min()
    }
}

impl Inner {
    fn handshake(&self) -> MutexGuard<'_, Handshake> {
        self.handshake
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_world<R>(&self, f: impl FnOnce(&mut World, Millis, &mut Vec<Effect>) -> R) -> R {
        let mut core = self.lock();
        self.run(&mut core, f)
    }

    fn run<R>(
        &self,
        core: &mut Core,
        f: impl FnOnce(&mut World, Millis, &mut Vec<Effect>) -> R,
    ) -> R {
        let now = self.clock.now();
        let mut effects = std::mem::take(&mut core.effects);
        let result = f(&mut core.world, now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(core, now, effect);
        }
        core.effects = effects;
        let next = core.next_deadline();
        // The timer has to wake up earlier than it thought.
        if next.is_some_and(|next| core.armed.is_none_or(|armed| next < armed)) {
            core.armed = next;
            self.timer.notify_one();
        }
        result
    }

    fn carry_out(&self, core: &mut Core, now: Millis, effect: Effect) {
        match effect {
            Effect::Send {
                conn,
                node,
                not_before: Some(at),
            } if at > now => {
                core.delayed.push(at, conn, node);
            }
            Effect::Send {
                conn,
                node,
                not_before: _,
            } => core.send(conn, node),
            Effect::Close { conn, abrupt } => {
                if let Some(outbox) = core.outboxes.get(&conn) {
                    outbox.close(if abrupt { End::Abrupt } else { End::Polite });
                }
            }
            Effect::Silence { conn } => {
                if let Some(outbox) = core.outboxes.get(&conn) {
                    outbox.silence();
                }
            }
            Effect::Phone { account, node } => self.phones.deliver(account, node),
            Effect::Greet { account, device } => self.phones.greet(account, device),
            Effect::Event(event) => {
                self.phones.notice(&event);
                // Without subscribers there is nobody to tell.
                let _listeners = self.events.send(event).unwrap_or(0);
            }
        }
    }

    fn tick(&self) -> Option<Millis> {
        let mut core = self.lock();
        let now = self.clock.now();
        core.release(now);
        self.run(&mut core, World::tick);
        core.armed = core.next_deadline();
        core.armed
    }
}

impl Shell for Inner {
    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn with_world(&self, f: &mut dyn FnMut(&mut World, Millis, &mut Vec<Effect>)) {
        Inner::with_world(self, f);
    }
}

impl Shell for Network {
    fn now(&self) -> Millis {
        self.0.now()
    }

    fn with_world(&self, f: &mut dyn FnMut(&mut World, Millis, &mut Vec<Effect>)) {
        self.0.with_world(f);
    }
}
