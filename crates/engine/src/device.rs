//! One linked device: the face that a session actor sees.
//!
//! A `Device` is made by [`crate::Engine::open`], inert; [`Device::start`] begins connecting, and goes
//! on doing so until [`Device::stop`], [`Device::logout`] or a reason that trying again does not cure.
//! After `EngineEvent::Ended` it is spent: open another.

use std::sync::Arc;

use wagate_domain::{Content, Jid, LinkChallenge, PhoneNumber, Timestamp, WaMessageId};

use crate::error::EngineError;

/// One linked device, or one on its way to be linked. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device(Arc<crate::runner::Inner>);

/// Who a device is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device's own address by phone number, with its device number.
    pub jid: Jid,
    /// The same by LID, when WhatsApp told it.
    pub lid: Option<Jid>,
    /// The name that the owner chose.
    pub push_name: Option<String>,
    /// The primary's kind, such as `android`; known right after pairing only.
    pub platform: Option<String>,
}

/// A message was written to the socket; whether WhatsApp took it, its acknowledgement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub wa_id: WaMessageId,
    pub at: Timestamp,
}

/// What WhatsApp says about one phone number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub phone: PhoneNumber,
    /// The account's address, if there is an account.
    pub jid: Option<Jid>,
    pub lid: Option<Jid>,
}

/// Counters of one device since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    pub connected: bool,
    /// Times that the device logged in.
    pub logins: u64,
    /// Messages that wait for the server's acknowledgement.
    pub awaiting_ack: usize,
    pub messages_written: u64,
    pub ack_timeouts: u64,
    pub nacks: u64,
    /// Receipts that did not fit the channel.
    pub receipts_missed: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Device {
    /// Begins connecting; what happens comes as events. Once; later calls change nothing.
    pub fn start(&self);

    /// Connects again now instead of at the end of the wait; for "the network is back".
    pub fn reconnect_now(&self);

    /// Asks WhatsApp for a pairing code for the account with this number, to be entered on its phone.
    /// Waits for the connection. The code comes as an event too.
    pub async fn request_code(&self, phone: &PhoneNumber) -> Result<LinkChallenge, EngineError>;

    /// Writes a message, under an id that was stored before (MP-2). `Ok` is not `sent`: wait for
    /// [`crate::EngineEvent::ServerAck`] or `AckTimeout`, one of which follows every `Ok`.
    pub async fn send(&self, id: &WaMessageId, to: &Jid, content: &Content) -> Result<Written, EngineError>;

    /// Asks which of these numbers have an account.
    pub async fn registrations(&self, phones: &[PhoneNumber]) -> Result<Vec<Registration>, EngineError>;

    /// Tells WhatsApp that the owner read messages of a chat here.
    pub async fn mark_read(&self, chat: &Jid, sender: Option<&Jid>, ids: &[WaMessageId]) -> Result<(), EngineError>;

    /// Shows the owner as online, or not (the default, engine rule 9), until the next connection.
    pub async fn set_online(&self, online: bool) -> Result<(), EngineError>;

    /// Unlinks at WhatsApp as far as it can be reached, and ends with `Ended::LoggedOut`. Deleting the
    /// keys is the caller's, through the store.
    pub async fn logout(&self);

    /// Flushes what is owed, closes the connection, keeps the keys; ends with `Ended::Stopped`. Returns
    /// when the device does nothing any more.
    pub async fn stop(&self);

    /// Who this device is linked to, if it is.
    pub fn identity(&self) -> Option<Identity>;

    pub fn is_connected(&self) -> bool;

    pub fn stats(&self) -> DeviceStats;
}
