//! One simulated primary: the phone that owns an account.
//!
//! Pure: a stanza in ([`Phone::handle`]) or the clock ([`Phone::tick`]), stanzas and events out through
//! [`PhonePort`]. It speaks real Signal, because every client waits for messages that only a phone can
//! send. It knows nothing of sockets and never touches the world but through the port.
//! Sessions are keyed by (account, device), never by address: companions change between number and
//! LID at will, and a session per address does not decrypt what the other one began.

pub mod behaviour;
mod port;
pub mod screen;

pub use behaviour::{Answer, Behaviour, ScriptRule};
pub use port::{
    AcceptedCompanion, Peer, PhoneEvent, PhoneKeys, PhonePort, PhoneReceipt, Prekey, PrekeyBundle,
    SignedPrekey,
};
pub use screen::{Screen, ScreenMessage};

/// What a phone is made of. Keys follow from the seed, so an account costs a few scalar
/// multiplications and no storage.
#[derive(Clone, Debug)]
pub struct PhoneOptions {
    /// The network's seed.
    pub seed: u64,
    /// The number without `+`; with the seed it decides every key.
    pub phone: String,
    pub push_name: Option<String>,
    pub behaviour: Behaviour,
    /// How many one-time prekeys to make at first.
    pub prekeys: u32,
    /// Whether to decrypt when the behaviour does not say.
    pub decrypt: bool,
}

/* The rest is being written; these signatures hold:

impl Phone {
    pub fn new(options: PhoneOptions) -> Self;
    pub fn keys(&self) -> PhoneKeys;                       // for World::create_account
    pub fn register(&mut self, account: AccountId, pn: Jid, lid: Option<Jid>);   // after World::create_account

    // -- linking -------------------------------------------------------------------------------
    /// Accepts a companion whose QR code was scanned (section: ADV).
    pub fn accept(&mut self, now: Millis, companion_identity: &[u8; 32], adv_secret: &[u8], key_index: u32) -> AcceptedCompanion;
    /// A companion is gone; answers the new signed key-index list.
    pub fn forget(&mut self, now: Millis, device: u16) -> KeyIndexList { bytes: Bytes, timestamp: u64 };
    /// Scans a QR text: finds the ref, accepts, completes the link through the port. Answers the device id.
    pub fn scan(&mut self, now, qr_text: &str, port) -> Result<u16, LinkError>;
    /// Answers a `companion_hello` with the code its owner typed in. The stanza itself is the world's to build.
    pub fn enter_code(&mut self, now, reference: &str, code: &str, wrapped_companion_ephemeral: &[u8]) -> Result<PrimaryHello { wrapped_ephemeral: [u8; 80], identity: [u8; 32] }, LinkError>;
    /// The companion's `companion_finish`: opens the bundle, accepts, completes through the port.
    pub fn finish_code(&mut self, now, reference: &str, wrapped_bundle: &[u8], companion_identity: &[u8], port) -> Result<u16, LinkError>;
    /// The companion uploaded its first prekeys: app-state key share, then history notification.
    pub fn greet(&mut self, now, device: u16, port);

    // -- stanzas ---------------------------------------------------------------------------------
    /// A stanza that the server delivers to device 0: message, receipt, ack, notification, chatstate, presence.
    pub fn handle(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort);
    /// Due automatic work (reads, answers).
    pub fn tick(&mut self, now: Millis, port: &mut dyn PhonePort);
    pub fn next_deadline(&self) -> Option<Millis>;

    // -- its owner's hands -----------------------------------------------------------------------
    pub fn send_text(&mut self, now, to: &Jid, text: &str, port) -> Result<String /*id*/, PhoneError>;
    pub fn send(&mut self, now, to: &Jid, Outgoing, port) -> Result<String, PhoneError>;     // text, reply, reaction, edit, delete
    pub fn read(&mut self, now, chat: &Jid, ids: &[String] /* empty = all unread */, port) -> usize;
    pub fn play(...); pub fn typing(&mut self, to: &Jid, ChatState, port); pub fn presence(&mut self, available: bool, port);
    pub fn set_behaviour(&mut self, Behaviour); pub fn behaviour(&self) -> &Behaviour;
    pub fn screen(&self) -> &Screen;
}
/// Checks the signature that a companion put under its device identity (pair-device-sign). World calls it.
pub fn verify_device_signature(device_identity: &[u8], companion_identity: &[u8; 32], phone_identity: &[u8; 32]) -> Result<(), LinkError>;
*/
