//! What goes into the world and what comes out of it.

use serde::Serialize;
use waproto::whatsapp::ClientPayload;

use super::{AccountId, ConnId, DeviceId, Millis};
use crate::node::Node;

/// A connection whose Noise handshake is over.
#[derive(Debug)]
pub struct Hello {
    pub conn: ConnId,
    pub payload: ClientPayload,
    /// The client's static Noise key, which authenticates a login.
    pub static_key: [u8; 32],
    /// The fourth byte of the `WA` header: 2 or 3.
    pub dictionary: u8,
}

/// What the shell has to carry out, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send a stanza; `not_before` delays it (a fault, or pacing).
    Send {
        conn: ConnId,
        node: Node,
        not_before: Option<Millis>,
    },
    /// Close the socket after what was sent before has gone out; `abrupt` means at once and without a
    /// close frame, as when a cable is pulled.
    Close { conn: ConnId, abrupt: bool },
    /// Stop reading and answering, but keep the socket: a half-open connection.
    Silence { conn: ConnId },
    /// A stanza for the account's phone (device 0).
    Phone { account: AccountId, node: Node },
    /// A companion uploaded its first prekeys: its phone should share the app-state key and send the
    /// history notification.
    Greet {
        account: AccountId,
        device: DeviceId,
    },
    /// Something that waiters may wait for; the shell broadcasts it.
    Event(NetworkEvent),
}

/// What happened in the network.
#[expect(
    clippy::large_enum_variant,
    reason = "events are few, and waiters match on their content"
)]
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkEvent {
    /// A registration waits with its first QR reference.
    Waiting { conn: ConnId, reference: String },
    /// A companion asked for a pairing code for this account's number.
    CodeRequested {
        account: AccountId,
        reference: String,
    },
    /// A companion proved its identity and got its device number.
    Linked {
        account: AccountId,
        device: DeviceId,
    },
    /// A link came to nothing: the companion refused it or its signature is wrong.
    LinkRefused { account: AccountId, reason: String },
    /// A companion is gone, by its own logout or from the phone. The phone signs a new key-index list.
    Unlinked {
        account: AccountId,
        device: DeviceId,
        by_phone: bool,
    },
    /// A companion logged in.
    Connected {
        account: AccountId,
        device: DeviceId,
    },
    /// A companion's connection ended.
    Disconnected {
        account: AccountId,
        device: DeviceId,
    },
    /// A login was refused with this `failure` reason.
    LoginRefused { reason: u16 },
    /// A companion took everything that waited for it.
    OfflineDone {
        account: AccountId,
        device: DeviceId,
        count: u64,
    },
    /// Something happened at a phone.
    Phone(crate::phone::PhoneEvent),
}

/// Why the world refused what the phone or the control API asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// No such account.
    #[error("no account {}", .0.0)]
    UnknownAccount(AccountId),
    /// The account has no such device.
    #[error("account {} has no device {device}", .account.0)]
    UnknownDevice {
        account: AccountId,
        device: DeviceId,
    },
    /// The number or LID is taken.
    #[error("{0} is taken")]
    Taken(String),
    /// Not a phone number: 5 to 15 digits.
    #[error("`{0}` is not a phone number")]
    BadPhone(String),
    /// The QR or code reference is unknown, used or expired.
    #[error("nobody waits with this reference; it is unknown, used or expired")]
    UnknownReference,
    /// The third answer to a pairing code was given already.
    #[error("the pairing code was tried too often")]
    TooManyAttempts,
    /// The account has as many companions as it may have.
    #[error("account {} has its {max} companions already", .account.0)]
    TooManyCompanions { account: AccountId, max: usize },
}
