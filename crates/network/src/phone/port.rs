//! What a phone needs of the network while it works, and what it tells about its work.
//!
//! The port is the only way out of a phone. Its calls are short look-ups under the world's lock or
//! stanzas that the world routes as it routes a companion's; a phone never blocks on them.

use bytes::Bytes;
use serde::Serialize;

use super::screen::ScreenMessage;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::{AccountId, Millis};

/// The public half of a device's keys, as the server hands it to whoever wants to open a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrekeyBundle {
    pub registration_id: u32,
    pub identity: [u8; 32],
    pub signed_prekey: SignedPrekey,
    /// Absent when the device's one-time keys are exhausted.
    pub prekey: Option<Prekey>,
    /// `ADVSignedDeviceIdentity` of a companion; absent for a phone.
    pub device_identity: Option<Bytes>,
}

/// A one-time prekey's public half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prekey {
    pub id: u32,
    pub public: [u8; 32],
}

/// A signed prekey's public half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedPrekey {
    pub id: u32,
    pub public: [u8; 32],
    /// `XEdDSA` by the identity over `05 ‖ public`.
    pub signature: [u8; 64],
}

/// What a phone uploads when its account is created.
#[derive(Clone, Debug)]
pub struct PhoneKeys {
    pub registration_id: u32,
    pub identity: [u8; 32],
    pub signed_prekey: SignedPrekey,
    /// Few: more follow by `iq encrypt set` when the server says that they run low.
    pub prekeys: Vec<Prekey>,
}

/// An account as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub account: AccountId,
    /// The address by number, without device.
    pub pn: Jid,
    /// The address by LID, without device.
    pub lid: Option<Jid>,
    /// Whether this account writes to LIDs.
    pub migrated_to_lid: bool,
    /// All devices, 0 (the phone) included.
    pub devices: Vec<u16>,
}

/// A companion that a phone accepted: everything that `pair-success` and the device list need.
#[derive(Clone, Debug)]
pub struct AcceptedCompanion {
    pub key_index: u32,
    /// `ADVSignedDeviceIdentityHMAC`, the content of pair-success's `device-identity`.
    pub container: Bytes,
    /// `ADVSignedKeyIndexList` that lists the new index too, for device lists.
    pub key_index_list: Bytes,
    /// Seconds, the list's own timestamp.
    pub key_index_list_timestamp: u64,
}

/// The network as a phone sees it.
pub trait PhonePort {
    /// Who owns an address, with or without device, by number or LID; `None` when nobody does.
    fn peer(&mut self, jid: &Jid) -> Option<Peer>;
    /// A device's keys; takes one of its one-time prekeys.
    fn bundle(&mut self, account: AccountId, device: u16) -> Option<PrekeyBundle>;
    /// The members of a group, empty when the phone is not in it.
    fn group_members(&mut self, group: &Jid) -> Vec<Jid>;
    /// Completes a link that waits under `reference`: sends pair-success and stores the list. Answers
    /// the new device id, or why not.
    fn complete_link(
        &mut self,
        reference: &str,
        companion: AcceptedCompanion,
    ) -> Result<u16, String>;
    /// The account's next key index: 1, 2, 3 …, never twice.
    fn next_key_index(&mut self) -> u32;
    /// Hands the server a stanza as this phone's.
    fn send(&mut self, node: Node);
    /// Tells whoever waits or watches.
    fn event(&mut self, event: PhoneEvent);
}

/// What happened at a phone, for waiters, the control API and the transcript.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum PhoneEvent {
    /// A message appeared on the screen, for the first time.
    Shown {
        account: AccountId,
        message: ScreenMessage,
    },
    /// A further copy of a message that the screen shows already came over the wire.
    ShownAgain {
        account: AccountId,
        message: ScreenMessage,
    },
    /// A message on the screen was edited or deleted for everyone.
    Changed {
        account: AccountId,
        message: ScreenMessage,
    },
    /// A receipt for something that this phone (or its owner's companion) sent.
    Receipt(PhoneReceipt),
    /// The server took (or refused) a message that this phone sent.
    ServerAck {
        account: AccountId,
        id: String,
        error: Option<u16>,
    },
    /// A peer types, records or stopped.
    ChatState {
        account: AccountId,
        from: String,
        state: String,
    },
    /// A peer's presence changed.
    Presence {
        account: AccountId,
        from: String,
        available: bool,
    },
    /// A copy could not be decrypted; the phone asked its sender to try again.
    Undecryptable {
        account: AccountId,
        from: String,
        device: u16,
        id: String,
        reason: String,
    },
    /// A sender was asked to try again and the phone resent.
    Resent {
        account: AccountId,
        to: String,
        device: u16,
        id: String,
        count: u32,
    },
    /// The phone refused a companion, e.g. for a wrong code.
    LinkRefused { account: AccountId, reason: String },
    /// A new companion got its app-state key and the notification about its history.
    Greeted { account: AccountId, device: u16 },
}

/// A receipt as the phone of the message's author saw it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct PhoneReceipt {
    pub account: AccountId,
    /// Who received, without device.
    pub from: String,
    pub device: u16,
    pub ids: Vec<String>,
    /// `delivered`, `read`, `played`, `inactive`, `sender`, `retry` …
    pub receipt: String,
    pub at_ms: Millis,
}
