//! What the network has counted since it started: plain numbers, raised by the world and the shell.
//!
//! They answer "how much crossed" without reading the transcript, which forgets its oldest entries.

use serde::Serialize;
use utoipa::ToSchema;

/// Totals since the start or the last reset. Never lowered otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counters {
    /// Sockets that finished the Noise handshake.
    pub connections_opened: u64,
    /// Sockets that ended, for whatever reason.
    pub connections_closed: u64,
    /// Connections ended because the same device connected again.
    pub connections_replaced: u64,
    /// Logins answered with success.
    pub logins: u64,
    /// Logins answered with a failure.
    pub logins_refused: u64,
    /// Connections that came to be linked.
    pub registrations: u64,
    /// Companions linked, by QR or by code.
    pub links: u64,
    /// Companions unlinked, from either side.
    pub unlinks: u64,
    /// Stanzas that came from devices, phones included.
    pub stanzas_in: u64,
    /// Stanzas that went to devices, phones included.
    pub stanzas_out: u64,
    /// Message stanzas that came from devices.
    pub messages_in: u64,
    /// Messages acknowledged without an error.
    pub messages_accepted: u64,
    /// Messages acknowledged with an error code.
    pub messages_refused: u64,
    /// Copies of messages that went out to a device at once.
    pub copies_delivered: u64,
    /// Copies of messages that were queued for a device that was away.
    pub copies_queued: u64,
    /// Stanzas dropped because a device's mailbox was full, the oldest first.
    pub mailbox_dropped: u64,
    /// Queued stanzas that went out after a login.
    pub offline_delivered: u64,
    /// Receipts that came from devices.
    pub receipts_in: u64,
    /// Receipts forwarded to the devices of a sender.
    pub receipts_forwarded: u64,
    /// Retry receipts among them.
    pub retries: u64,
    /// Requests (`iq`) that came from devices.
    pub requests: u64,
    /// Requests that the network does not know and answered with an empty result.
    pub requests_unknown: u64,
    /// One-time prekeys uploaded.
    pub prekeys_uploaded: u64,
    /// One-time prekeys handed out.
    pub prekeys_given: u64,
    /// Key bundles handed out without a one-time prekey, because none was left.
    pub prekeys_exhausted: u64,
    /// Faults that were carried out.
    pub faults: u64,
    /// Things that a client did and the protocol forbids.
    pub protocol_errors: u64,
}

impl Counters {
    /// Sets all of them to zero.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}
