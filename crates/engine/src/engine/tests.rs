//! A device whose library hears things in an order that the network brings about by chance only, or not
//! at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;
use wacore::net::{Transport, TransportEvent};
use wacore::types::events::{
    BatchOrigin, Event, EventHandler as _, InboundMessage as LibraryMessage, MessageBatch,
    PairingQrCodesExhausted,
};
use wacore::types::message::MessageInfo;
use wagate_domain::{Backoff, LinkChallenge, ManualClock, PhoneNumber};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;
use waproto::whatsapp as wa;
use whatsapp_rust::{anyhow, async_channel};

use super::*;
use crate::Endpoint;
use crate::backend::tests::Bench;
use crate::event::Ended;
use crate::options::{Liveness, WaVersion};
use crate::sink::{InboundMessage, SinkError};

const A: &str = "6281100000001";
/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(40);

/// A network with one phone, and an engine on a database of its own.
struct Stage {
    network: Network,
    phone: PhoneHandle,
    engine: Engine,
    clock: ManualClock,
    bench: Bench,
}

impl Stage {
    async fn new() -> Self {
        let network = Network::start(NetworkOptions::default()).await.unwrap();
        let spec = AccountSpec {
            phone: A.into(),
            push_name: Some("Ana".into()),
            ..AccountSpec::default()
        };
        let phone = network.add_phone(spec).unwrap();
        let bench = Bench::new().await;
        let clock = bench.clock.clone();
        let options = EngineOptions {
            version: WaVersion::Fixed(2, 3000, 1_030_000_000),
            prekeys: 30,
            liveness: Liveness {
                probe_after: Duration::from_secs(20),
                answer_within: Duration::from_millis(200),
            },
            reconnect: Backoff {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(500),
                jitter_percent: 0,
            },
            ..EngineOptions::new(Endpoint::at(&network.ws_url(), None).unwrap())
        };
        let engine = Engine::new(options, bench.db.clone(), Arc::new(clock.clone())).unwrap();
        Self {
            network,
            phone,
            engine,
            clock,
            bench,
        }
    }

    /// A started device whose writes return when the gate is open.
    async fn device(&self, gate: &Arc<Gate>) -> Heard {
        let (sender, events) = mpsc::channel(256);
        let (committed, messages) = mpsc::channel(16);
        let wire = Arc::new(Wire::default());
        let way = GatedDialer {
            way: DeviceDialer {
                dialer: Arc::clone(&self.engine.0.dialer),
                wire: Arc::clone(&wire),
            },
            gate: Arc::clone(gate),
        };
        let sink: Arc<dyn InboundSink> = Arc::new(Passed(committed));
        let (lease, engine) = (&self.bench.lease, &self.engine);
        let inner = engine.open_over(way, wire, lease, Arc::clone(&sink)).await;
        let inner = inner.unwrap();
        let device = Device::new(Arc::clone(&inner), sink, sender);
        device.start();
        Heard {
            device,
            hub: Arc::clone(&inner.hub),
            events,
            messages,
            before: Vec::new(),
        }
    }
}

/// A device and what it says.
struct Heard {
    device: Device,
    hub: Arc<Hub>,
    events: mpsc::Receiver<EngineEvent>,
    messages: mpsc::Receiver<InboundMessage>,
    /// What it said before the event that was asked for last.
    before: Vec<EngineEvent>,
}

impl Heard {
    async fn until<R>(&mut self, what: &str, pick: impl Fn(&EngineEvent) -> Option<R>) -> R {
        self.before.clear();
        loop {
            let Ok(Some(event)) = timeout(BOUND, self.events.recv()).await else {
                panic!("waited for {what}; heard {:#?}", self.before)
            };
            if let Some(found) = pick(&event) {
                return found;
            }
            self.before.push(event);
        }
    }

    async fn qr(&mut self) -> String {
        self.until("a QR text", |event| match event {
            EngineEvent::Challenge(LinkChallenge::Qr { qr, .. }) => Some(qr.clone()),
            _ => None,
        })
        .await
    }

    async fn connected(&mut self) {
        self.until("the connection", |event| {
            matches!(event, EngineEvent::Connected(_)).then_some(())
        })
        .await;
    }

    async fn ended(&mut self) -> Ended {
        self.until("the end", |event| match event {
            EngineEvent::Ended(why) => Some(why.clone()),
            _ => None,
        })
        .await
    }

    async fn stop(mut self) {
        let device = self.device.clone();
        let stop = async move { device.stop().await };
        tokio::join!(self.ended(), stop);
    }
}

/// Passes committed messages on.
struct Passed(mpsc::Sender<InboundMessage>);

#[async_trait]
impl InboundSink for Passed {
    async fn commit(&self, messages: Vec<InboundMessage>) -> Result<(), SinkError> {
        for message in messages {
            self.0
                .send(message)
                .await
                .map_err(|gone| SinkError(Box::new(gone)))?;
        }
        Ok(())
    }
}

/// While it is shut, a write reaches the server, and whoever wrote does not know it yet.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    opened: Notify,
    hung_up: Notify,
}

impl Gate {
    fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.shut.load(Ordering::SeqCst) {
                return;
            }
            opened.await;
        }
    }
}

struct GatedDialer {
    way: DeviceDialer,
    gate: Arc<Gate>,
}

#[async_trait]
impl TransportFactory for GatedDialer {
    async fn create_transport(
        &self,
    ) -> anyhow::Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>)> {
        let (inner, events) = self.way.create_transport().await?;
        let gate = Arc::clone(&self.gate);
        Ok((Arc::new(Gated { inner, gate }), events))
    }
}

struct Gated {
    inner: Arc<dyn Transport>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Transport for Gated {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        self.inner.send(data).await?;
        self.gate.pass().await;
        Ok(())
    }

    async fn disconnect(&self) {
        self.inner.disconnect().await;
        self.gate.hung_up.notify_one();
    }
}

/// The restart (515) after a pairing overtakes the library's own word of it: on one thread, since the
/// order of its tasks is what this is about.
#[tokio::test]
async fn a_pairing_that_the_restart_overtakes_is_a_pairing() {
    let stage = Stage::new().await;
    let gate = Arc::new(Gate::default());
    let mut heard = stage.device(&gate).await;
    let qr = heard.qr().await;
    // The supervisor, the forwarder, and the run of the library.
    let tasks = &stage.engine.0.tasks;
    assert_eq!(tasks.len(), 3);
    gate.shut.store(true, Ordering::SeqCst);
    stage.phone.scan(&qr).await.unwrap();
    let over = async {
        gate.hung_up.notified().await;
        while tasks.len() > 2 {
            tokio::task::yield_now().await;
        }
        // The supervisor hears of it in its next turn, and looks where the device stands.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, over).await.expect("the restart");
    gate.open();
    heard.connected().await;
    let said = &heard.before;
    let paired = |event: &EngineEvent| matches!(event, EngineEvent::Paired(_));
    assert!(said.iter().any(paired), "{said:#?}");
    let lost = |event: &EngineEvent| {
        matches!(
            event,
            EngineEvent::ChallengeExpired | EngineEvent::Disconnected { .. }
        )
    };
    assert!(!said.iter().any(lost), "{said:#?}");
    heard.stop().await;
    stage.network.stop().await;
}

fn exhausted(disconnected: bool) -> Arc<Event> {
    let event = PairingQrCodesExhausted::builder().disconnected(disconnected);
    Arc::new(Event::PairingQrCodesExhausted(event.build()))
}

#[tokio::test]
async fn a_device_ends_when_nobody_scanned_any_qr_text() {
    let stage = Stage::new().await;
    let mut heard = stage.device(&Arc::default()).await;
    heard.qr().await;
    heard.hub.handle_event(exhausted(true));
    // Before the library hangs up: the end of its run would be taken for a lost connection.
    assert_eq!(heard.hub.terminal(), Some(Ended::ChallengeExpired));
    assert_eq!(heard.ended().await, Ended::ChallengeExpired);
    assert!(heard.before.contains(&EngineEvent::ChallengeExpired));
    stage.network.stop().await;
}

#[tokio::test]
async fn with_an_open_code_a_device_outlives_its_qr_texts_and_ends_with_the_code() {
    let stage = Stage::new().await;
    let mut heard = stage.device(&Arc::default()).await;
    heard.qr().await;
    let number = PhoneNumber::parse(A, None).unwrap();
    let code = heard.device.request_code(&number).await.unwrap();
    let hub = Arc::clone(&heard.hub);
    hub.handle_event(exhausted(false));
    assert!(!hub.challenge_over());
    assert_eq!(hub.terminal(), None);
    stage.clock.set(code.expires_at());
    assert_eq!(heard.ended().await, Ended::ChallengeExpired);
    assert!(heard.before.contains(&EngineEvent::ChallengeExpired));
    stage.network.stop().await;
}

fn batch(text: &str, hook_committed: bool) -> Arc<Event> {
    let peer: wacore_binary::Jid = "6281100000002@s.whatsapp.net".parse().unwrap();
    let mut info = MessageInfo {
        id: format!("3EB0{text}"),
        ..MessageInfo::default()
    };
    info.source.chat = peer.clone();
    info.source.sender = peer;
    let message = wa::Message {
        conversation: Some(text.to_owned()),
        ..Default::default()
    };
    let message = LibraryMessage::builder()
        .message(Arc::new(message))
        .info(Arc::new(info))
        .build();
    let batch = MessageBatch::builder()
        .messages(Arc::from([message]))
        .origin(BatchOrigin::Live)
        .hook_committed(hook_committed);
    Arc::new(Event::Messages(batch.build()))
}

/// Newsletters, and messages that the phone had to tell again, come past the durability hook.
#[tokio::test]
async fn what_bypasses_the_hook_is_committed_and_what_does_not_is_not_committed_twice() {
    let stage = Stage::new().await;
    let mut heard = stage.device(&Arc::default()).await;
    heard.qr().await;
    let hub = Arc::clone(&heard.hub);
    for (text, hook_committed) in [("0A", false), ("0B", true), ("0C", false)] {
        hub.handle_event(batch(text, hook_committed));
    }
    for wanted in ["0A", "0C"] {
        let message = timeout(BOUND, heard.messages.recv()).await;
        let message = message.expect("a committed message").unwrap();
        assert_eq!(message.content.as_text(), Some(wanted));
    }
    assert!(heard.messages.try_recv().is_err());
    heard.stop().await;
    stage.network.stop().await;
}
