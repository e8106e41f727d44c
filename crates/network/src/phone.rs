//! One simulated primary: the phone that owns an account.
//!
//! Pure: a stanza in ([`Phone::handle`]) or the clock ([`Phone::tick`]), stanzas and events out through
//! [`PhonePort`]. It speaks real Signal, because every client waits for messages that only a phone can
//! send. It knows nothing of sockets and never touches the world but through the port.
//! Sessions are keyed by (account, device), never by address: companions change between number and
//! LID at will, and a session per address does not decrypt what the other one began.

mod adv;
mod app_state;
pub mod behaviour;
mod content;
mod greet;
mod inbox;
mod jobs;
mod keys;
mod link_code;
mod linking;
mod outbox;
mod port;
mod receipts;
mod retry;
pub mod screen;
mod signal;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use wacore_libsignal::crypto::hmac_sha256;
use wacore_libsignal::protocol::SignalProtocolError;

pub use adv::{KeyIndexList, LinkError, QrCode, verify_device_signature};
pub use behaviour::{Answer, Behaviour, ScriptRule};
pub use content::{Outgoing, Target};
pub use link_code::PrimaryHello;
pub use outbox::ChatState;
pub use port::{
    AcceptedCompanion, Peer, PhoneEvent, PhoneKeys, PhonePort, PhoneReceipt, Prekey, PrekeyBundle,
    SignedPrekey,
};
pub use screen::{Screen, ScreenMessage};

use crate::jid::Jid;
use crate::node::Node;
use crate::world::{AccountId, Millis};
use adv::Companions;
use jobs::Jobs;
use keys::Keyring;
use link_code::CodeLinks;
use outbox::Sent;
use retry::Retries;
use signal::{DeviceKey, Signal};

/// How many one-time prekeys a phone uploads when the server says that they run low.
const TOP_UP: u32 = 25;
/// How many peers' chats a phone remembers the wire address of.
const CHATS_MAX: usize = 10_000;

/// What a phone is made of. Keys follow from the seed, so an account costs a few scalar
/// multiplications and no storage.
#[derive(Clone, Debug)]
pub struct PhoneOptions {
    /// The network's seed.
    pub seed: u64,
    /// The number without `+`; with the seed it decides every key.
    pub phone: String,
    /// The owner's name, as others see it.
    pub push_name: Option<String>,
    pub behaviour: Behaviour,
    /// How many one-time prekeys to make at first.
    pub prekeys: u32,
    /// Whether to decrypt when the behaviour does not say.
    pub decrypt: bool,
}

impl PhoneOptions {
    /// The usual phone of a number.
    pub fn new(seed: u64, phone: impl Into<String>) -> Self {
        Self {
            seed,
            phone: phone.into(),
            push_name: None,
            behaviour: Behaviour::default(),
            prekeys: 5,
            decrypt: true,
        }
    }
}

/// Why a phone did not do what its owner wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    /// Nobody has this address, or the group does not know the phone.
    #[error("{0} is not on WhatsApp")]
    NotOnWhatsApp(String),
    /// The phone's own keys or sessions do not hold.
    #[error("Signal: {0}")]
    Signal(String),
    /// The screen shows no such message.
    #[error("no message {0} on the screen")]
    NoSuchMessage(String),
}

impl From<SignalProtocolError> for PhoneError {
    fn from(error: SignalProtocolError) -> Self {
        Self::Signal(error.to_string())
    }
}

/// One simulated phone.
#[derive(Debug)]
pub struct Phone {
    me: Me,
    initial_prekeys: Vec<Prekey>,
    signal: Signal,
    rng: StdRng,
    companions: Companions,
    codes: CodeLinks,
    screen: Screen,
    behaviour: Behaviour,
    decrypt: bool,
    jobs: Jobs,
    sent: Sent,
    retries: Retries,
    /// The address under which a chat's peer wrote last, so that answers go the same way.
    wire: HashMap<String, Jid>,
    next_stanza: u64,
    /// Whether the owner's name stands in the app state.
    name_published: bool,
}

/// Who the phone is.
#[derive(Clone, Debug)]
struct Me {
    account: AccountId,
    pn: Jid,
    lid: Option<Jid>,
    push_name: Option<String>,
}

impl Me {
    fn device(&self) -> DeviceKey {
        (self.account, 0)
    }

    fn pn_text(&self) -> String {
        self.pn.to_string()
    }
}

impl Phone {
    /// Makes a phone. It belongs to no account until [`Phone::register`].
    ///
    /// # Errors
    /// When the seed's keys cannot be computed, which does not happen.
    pub fn new(options: PhoneOptions) -> Result<Self, PhoneError> {
        let PhoneOptions {
            seed,
            phone,
            push_name,
            behaviour,
            prekeys,
            decrypt,
        } = options;
        let mut input = seed.to_be_bytes().to_vec();
        input.extend_from_slice(phone.as_bytes());
        let mut rng = StdRng::from_seed(hmac_sha256(b"wagate simulated phone rng", &input));
        let mut keyring = Keyring::new(seed, &phone, &mut rng)?;
        let initial_prekeys = keyring.mint(prekeys)?;
        let companions = Companions::new(keyring.secret("companions"));
        let me = Me {
            account: AccountId(u32::MAX),
            pn: Jid::pn(phone, 0),
            lid: None,
            push_name,
        };
        Ok(Self {
            me,
            initial_prekeys,
            signal: Signal::new(keyring),
            rng,
            companions,
            codes: CodeLinks::default(),
            screen: Screen::default(),
            behaviour,
            decrypt,
            jobs: Jobs::default(),
            sent: Sent::default(),
            retries: Retries::default(),
            wire: HashMap::new(),
            next_stanza: 0,
            name_published: false,
        })
    }

    /// What the account is created with.
    pub fn keys(&self) -> PhoneKeys {
        let keyring = self.signal.keyring();
        PhoneKeys {
            registration_id: keyring.registration_id,
            identity: keyring.identity_public(),
            signed_prekey: keyring.signed_prekey(),
            prekeys: self.initial_prekeys.clone(),
        }
    }

    /// Tells the phone which account it owns.
    pub fn register(&mut self, account: AccountId, lid: Option<Jid>) {
        self.me.account = account;
        self.me.lid = lid.map(|lid| lid.bare());
        self.initial_prekeys = Vec::new();
    }

    pub fn account(&self) -> AccountId {
        self.me.account
    }

    /// The address by number.
    pub fn pn(&self) -> &Jid {
        &self.me.pn
    }

    pub fn identity(&self) -> [u8; 32] {
        self.signal.keyring().identity_public()
    }

    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Changes what the phone does by itself; what it began already goes on.
    pub fn set_behaviour(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
    }

    /// Whether copies are opened, unless the behaviour says otherwise.
    pub fn set_decrypt(&mut self, decrypt: bool) {
        self.decrypt = decrypt;
    }

    /// Loses the keys that it shares with a peer's devices, as a phone does that was set up anew: what they
    /// send next cannot be decrypted, and is asked for again. Answers how many sessions there were.
    pub fn lose_keys(&mut self, peer: &Jid, port: &mut dyn PhonePort) -> usize {
        port.peer(peer)
            .map_or(0, |peer| self.signal.forget_account(peer.account))
    }

    pub fn set_push_name(&mut self, push_name: impl Into<String>) {
        self.me.push_name = Some(push_name.into());
    }

    /// Takes a stanza that the server delivers to device 0.
    pub fn handle(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort) {
        match node.tag.as_ref() {
            "message" => self.on_message(now, node, port),
            "receipt" => self.on_receipt(now, node, port),
            "ack" => self.on_ack(node, port),
            "notification" => self.on_notification(now, node, port),
            "chatstate" => self.on_chat_state(node, port),
            "presence" => self.on_presence(node, port),
            "iq" | "ib" | "call" => {}
            other => tracing::debug!(tag = other, "a phone ignores a stanza"),
        }
    }

    /// Does the automatic work that has fallen due.
    pub fn tick(&mut self, now: Millis, port: &mut dyn PhonePort) {
        while let Some(job) = self.jobs.pop_due(now) {
            self.run(now, job, port);
        }
    }

    /// When [`Phone::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.jobs.next_deadline()
    }

    fn decrypts(&self) -> bool {
        self.behaviour.decrypt.unwrap_or(self.decrypt)
    }

    /// Which address to write to in a chat: the LID once the account has migrated, before that the one
    /// that the peer used last.
    fn wire_address(&self, peer: &Peer, port: &mut dyn PhonePort) -> Jid {
        let migrated = port
            .peer(&self.me.pn)
            .is_some_and(|own| own.migrated_to_lid);
        if let (true, Some(lid)) = (migrated, &peer.lid) {
            return lid.bare();
        }
        self.wire
            .get(&peer.pn.to_string())
            .cloned()
            .unwrap_or_else(|| peer.pn.bare())
    }

    fn remember_wire(&mut self, chat: &str, address: &Jid) {
        if self
            .wire
            .get(chat)
            .is_some_and(|known| known.server == address.server)
        {
            return;
        }
        if self.wire.len() >= CHATS_MAX {
            self.wire.clear();
        }
        self.wire.insert(chat.to_owned(), address.bare());
    }

    fn stanza_id(&mut self) -> String {
        self.next_stanza += 1;
        format!("phone-{}", self.next_stanza)
    }

    fn on_notification(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort) {
        let kind = node.get("type");
        port.send(
            Node::new("ack")
                .attr("class", "notification")
                .attr_opt("id", node.value("id").cloned())
                .attr_opt("to", node.value("from").cloned())
                .attr_opt("type", node.value("type").cloned()),
        );
        match kind.as_deref() {
            Some("encrypt") if node.find("count").is_some() => self.top_up(port),
            Some("link_code_companion_reg") => self.on_link_code(now, node, port),
            Some("w:gp2") => self.on_group_change(node),
            _ => {}
        }
    }

    /// Uploads more one-time prekeys, as clients do when the server says that few are left.
    fn top_up(&mut self, port: &mut dyn PhonePort) {
        let keyring = self.signal.keyring_mut();
        let prekeys = match keyring.mint(TOP_UP) {
            Ok(prekeys) => prekeys,
            Err(error) => {
                tracing::error!(%error, "a phone cannot make prekeys");
                return;
            }
        };
        let registration = keyring.registration_id.to_be_bytes().to_vec();
        let (identity, signed) = (keyring.identity_public(), keyring.signed_prekey());
        let id = self.stanza_id();
        port.send(
            Node::new("iq")
                .attr("xmlns", "encrypt")
                .attr("type", "set")
                .attr("to", Jid::SERVER)
                .attr("id", id)
                .child(Node::new("registration").bytes(registration))
                .child(Node::new("type").bytes(vec![5]))
                .child(Node::new("identity").bytes(identity.to_vec()))
                .child(Node::new("list").children(prekeys.iter().map(prekey_node)))
                .child(signed_prekey_node(&signed)),
        );
    }
}

/// `key` with its id and value, as in uploads and retry receipts.
fn prekey_node(prekey: &Prekey) -> Node {
    Node::new("key")
        .child(Node::new("id").bytes(prekey.id.to_be_bytes()[1..].to_vec()))
        .child(Node::new("value").bytes(prekey.public.to_vec()))
}

/// `skey` with its id, value and signature.
fn signed_prekey_node(prekey: &SignedPrekey) -> Node {
    Node::new("skey")
        .child(Node::new("id").bytes(prekey.id.to_be_bytes()[1..].to_vec()))
        .child(Node::new("value").bytes(prekey.public.to_vec()))
        .child(Node::new("signature").bytes(prekey.signature.to_vec()))
}
