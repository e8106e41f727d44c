//! A real client library linked to the simulated network: whatsapp-rust with its store in memory.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};
use wacore::store::in_memory::InMemoryBackend;
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;
use whatsapp_rust::prelude::*;
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::types::presence::ReceiptType;

/// Longer than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(40);

/// No internet: media and version look-ups are not part of these tests.
struct NoHttp;

#[async_trait::async_trait]
impl wacore::net::HttpClient for NoHttp {
    async fn execute(
        &self,
        request: wacore::net::HttpRequest,
    ) -> anyhow::Result<wacore::net::HttpResponse> {
        anyhow::bail!("no http in this test: {}", request.url)
    }
}

struct Forward(mpsc::Sender<Arc<Event>>);

impl EventHandler for Forward {
    fn handle_event(&self, event: Arc<Event>) {
        // After the test's end nobody listens any more.
        let sent = self.0.try_send(event);
        assert!(
            !matches!(sent, Err(TrySendError::Full(_))),
            "the test does not read its events"
        );
    }
}

/// What survives a restart of the client.
#[derive(Clone)]
pub(crate) struct Store(Arc<InMemoryBackend>);

impl Store {
    pub(crate) fn new() -> Self {
        Self(Arc::new(InMemoryBackend::new()))
    }
}

/// A running client and what it told.
pub(crate) struct Companion {
    pub(crate) client: Arc<Client>,
    handle: BotHandle,
    events: mpsc::Receiver<Arc<Event>>,
    /// Events that nobody asked for yet; they come in no particular order.
    seen: VecDeque<Arc<Event>>,
    /// Text, id and sender of messages that nobody asked for yet.
    inbox: VecDeque<(String, String, Jid)>,
    /// All texts in the order of their arrival.
    texts: Vec<String>,
}

impl Companion {
    /// Starts a client on `store` and lets it connect.
    pub(crate) async fn start(network: &Network, store: &Store) -> Self {
        let transport = TokioWebSocketTransportFactory::new().with_url(network.ws_url());
        Self::start_with(transport, store).await
    }

    pub(crate) async fn start_with(
        transport: TokioWebSocketTransportFactory,
        store: &Store,
    ) -> Self {
        let (sender, events) = mpsc::channel(4096);
        let bot = Bot::builder()
            .with_backend_arc(Arc::<InMemoryBackend>::clone(&store.0))
            .with_transport_factory(transport)
            .with_http_client(NoHttp)
            .with_version((2, 3000, 0))
            .with_push_name("Companion")
            .with_wanted_pre_key_count(30)
            .with_event_handler(Forward(sender))
            .build()
            .await
            .expect("the client can be built");
        let client = bot.client();
        client.set_force_active_delivery_receipts(true);
        let handle = bot.spawn();
        Self {
            client,
            handle,
            events,
            seen: VecDeque::new(),
            inbox: VecDeque::new(),
            texts: Vec::new(),
        }
    }

    /// Takes one event. Messages go to the inbox one by one, because a batch holds several.
    async fn pump(&mut self, what: &str, until: Instant) {
        let Ok(Some(event)) = timeout_at(until, self.events.recv()).await else {
            let mut seen = String::new();
            for event in &self.seen {
                write!(seen, " {event:?}").unwrap();
            }
            panic!("waited for {what}, saw{seen}, texts {:?}", self.texts);
        };
        let Event::Messages(batch) = &*event else {
            self.seen.push_back(event);
            return;
        };
        for one in batch.messages.iter() {
            if let Some(text) = one.message.text_content() {
                let (id, sender) = (one.info.id.clone(), one.info.source.sender.clone());
                self.texts.push(text.to_owned());
                self.inbox.push_back((text.to_owned(), id, sender));
            }
        }
    }

    /// Waits for the first event other than a message of which `pick` makes something.
    pub(crate) async fn expect<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let until = Instant::now() + BOUND;
        let mut looked = 0;
        loop {
            while let Some(event) = self.seen.get(looked) {
                if let Some(found) = pick(event) {
                    self.seen.remove(looked);
                    return found;
                }
                looked += 1;
            }
            self.pump(what, until).await;
        }
    }

    /// Waits for the text of a QR code.
    pub(crate) async fn qr(&mut self) -> String {
        self.expect("a QR code", |event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until it is logged in and has synchronised.
    pub(crate) async fn connected(&mut self) {
        self.expect("connected", |event| {
            matches!(event, Event::Connected(_)).then_some(())
        })
        .await;
    }

    /// Waits for a message with this text and answers its id and sender.
    pub(crate) async fn text(&mut self, text: &str) -> (String, Jid) {
        let until = Instant::now() + BOUND;
        loop {
            if let Some(at) = self.inbox.iter().position(|(shown, ..)| shown == text) {
                let (_, id, sender) = self.inbox.remove(at).unwrap();
                return (id, sender);
            }
            self.pump(&format!("the message `{text}`"), until).await;
        }
    }

    /// Whether texts that begin like this came with ascending numbers and none twice.
    pub(crate) fn seen_in_order(&self, prefix: &str) -> bool {
        let numbers = self
            .texts
            .iter()
            .filter_map(|text| text.strip_prefix(prefix));
        let numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        numbers.is_sorted_by(|a, b| a < b)
    }

    /// Waits for the end of the link; true if it came as the answer to a connection.
    pub(crate) async fn logged_out(&mut self) -> bool {
        self.expect("the logout", |event| match event {
            Event::LoggedOut(logout) => Some(logout.on_connect),
            _ => None,
        })
        .await
    }

    /// Waits for receipts for so many messages.
    pub(crate) async fn receipts(&mut self, count: usize, kind: ReceiptType) {
        let mut ids = std::collections::HashSet::new();
        while ids.len() < count {
            let more = self
                .expect(&format!("{count} receipts"), |event| match event {
                    Event::Receipt(receipt) if receipt.r#type == kind => {
                        Some(receipt.message_ids.clone())
                    }
                    _ => None,
                })
                .await;
            ids.extend(more);
        }
    }

    /// Sends a text and answers its id.
    pub(crate) async fn send(&self, to: &str, text: &str) -> String {
        let to: Jid = format!("{to}@s.whatsapp.net").parse().expect("a number");
        let sent = self
            .client
            .send_text(to, text)
            .await
            .expect("the message can be sent");
        sent.message_id
    }

    /// Waits for the server's answer to a message; the error code if it refused.
    pub(crate) async fn ack(&mut self, id: &str) -> Option<String> {
        self.expect(&format!("the server's ack of {id}"), |event| match event {
            Event::ServerAck(ack) if ack.id == id && ack.class.as_deref() == Some("message") => {
                Some(ack.error.clone())
            }
            _ => None,
        })
        .await
    }

    /// Whether a message with this text comes within a short time.
    pub(crate) async fn soon(&mut self, text: &str) -> bool {
        tokio::time::timeout(Duration::from_millis(500), self.text(text))
            .await
            .is_ok()
    }

    /// Waits for a receipt of this kind.
    pub(crate) async fn receipt(&mut self, id: &str, kind: ReceiptType) {
        self.expect(
            &format!("the receipt {kind:?} for {id}"),
            |event| match event {
                Event::Receipt(receipt)
                    if receipt.r#type == kind && receipt.message_ids.iter().any(|i| i == id) =>
                {
                    Some(())
                }
                _ => None,
            },
        )
        .await;
    }

    /// Disconnects and stops; the store stays.
    pub(crate) async fn stop(self) {
        self.handle.shutdown().await;
    }

    /// Waits until the client gives up for good.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(BOUND, self.handle)
            .await
            .expect("the client goes on");
    }
}

pub(crate) const A: &str = "6281100000001";
pub(crate) const B: &str = "6281100000002";

pub(crate) async fn start() -> Network {
    start_with(NetworkOptions::default()).await
}

pub(crate) async fn start_with(options: NetworkOptions) -> Network {
    let network = Network::start(options).await.unwrap();
    for (phone, name) in [(A, "Ana"), (B, "Budi")] {
        let spec = AccountSpec {
            phone: phone.into(),
            push_name: Some(name.into()),
            ..AccountSpec::default()
        };
        network.create_account(spec).unwrap();
    }
    network
}

pub(crate) fn phone(network: &Network, number: &str) -> PhoneHandle {
    network.phone(number).unwrap()
}

/// A client that is linked by QR and online.
pub(crate) async fn linked(network: &Network, number: &str, store: &Store) -> Companion {
    let mut client = Companion::start(network, store).await;
    let qr = client.qr().await;
    phone(network, number).scan(&qr).await.unwrap();
    client.connected().await;
    client
}

/// Ends a test: every promise must have been kept.
pub(crate) async fn judge(network: Network) {
    let report = network.with_world(|world, _, _| world.check());
    assert!(report.ok, "{report}");
    let errors = network.with_world(|world, _, _| world.counters.protocol_errors);
    assert_eq!(errors, 0, "protocol errors");
    network.stop().await;
}
