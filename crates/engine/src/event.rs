//! What a device tells its actor, in our words.
//!
//! Events of one device arrive through one bounded channel. Acknowledgements and receipts carry no order
//! among themselves (engine rule 7): whoever stores them merges by rank (MP-3). [`EngineEvent::Ended`] is
//! always the last event of a device, and comes exactly once.

use wagate_domain::{Jid, LinkChallenge, ReceiptKind, Timestamp, WaMessageId};

use crate::device::Identity;

/// One thing that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// An attempt to connect begins. Emitted before each one.
    Connecting,
    /// There is a QR text or a pairing code to show; it replaces an earlier challenge of its kind.
    Challenge(LinkChallenge),
    /// The challenge that was shown is no longer valid, and no other follows by itself.
    ///
    /// After the last QR text the device ends ([`Ended::ChallengeExpired`]) unless a pairing code is
    /// still valid.
    ChallengeExpired,
    /// The owner's phone accepted this device. `Connected` follows.
    Paired(Identity),
    /// An attempt to link failed; the device goes on unless `Ended` follows.
    PairingFailed {
        /// For logs and for the caller who asked to link; carries no secret.
        reason: String,
    },
    /// Logged in: sending works.
    Connected(Identity),
    /// The connection is gone; the device connects again by itself at `retry_at`. What was written and
    /// not acknowledged may have been taken, and gets no time-out: send it again with the same id.
    Disconnected { reason: String, retry_at: Timestamp },
    /// The connection was up but said nothing, and is being replaced. `Disconnected` follows.
    Silent,
    /// WhatsApp refused a login, or ended the connection, for too many requests (429). `Disconnected`
    /// follows; whoever sends should slow down.
    RateLimited,
    /// WhatsApp's server answered a message: taken, or refused with a code (MP-5).
    ///
    /// Emitted for every acknowledged message id, also for one whose time-out has passed.
    ServerAck {
        wa_id: WaMessageId,
        chat: Option<Jid>,
        error: Option<u32>,
        at: Timestamp,
    },
    /// No acknowledgement came in time. The message may have been taken: send again with the same id.
    AckTimeout { wa_id: WaMessageId },
    /// A device of a recipient, or of the owner, says what became of messages. The library has
    /// acknowledged it already, so WhatsApp does not say it again: keep it until it is stored.
    Receipt {
        chat: Jid,
        sender: Jid,
        ids: Vec<WaMessageId>,
        kind: ReceiptKind,
        at: Timestamp,
    },
    /// A message came that could not be decrypted. The library asks its sender again.
    Undecryptable {
        chat: Jid,
        sender: Jid,
        wa_id: WaMessageId,
        at: Timestamp,
    },
    /// That many receipts were dropped since the channel was full: what depends on receipts may now be
    /// behind, and catches up with the next receipt of the same message only.
    Missed { receipts: u64 },
    /// The device has stopped for good; open another to go on. Always last.
    Ended(Ended),
}

/// Why a device stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// [`crate::Device::stop`] was called. Keys are kept.
    Stopped,
    /// The link is gone: unlinked from the phone, by [`crate::Device::logout`], or refused at login.
    /// The keys are worthless; the caller deletes them through the store.
    LoggedOut { reason: String },
    /// WhatsApp locked the account (failure 403). Not an unlink: keep the keys, do not hammer.
    Locked { reason: String },
    /// Another connection with the same keys took over (SL-1 broken from outside).
    Replaced,
    /// The account is banned for a time; `until` is when WhatsApp says that it ends.
    Banned { until: Option<Timestamp>, code: u32 },
    /// WhatsApp no longer accepts the version that we say we are.
    Outdated,
    /// WhatsApp refused the connection with a code that trying again does not cure.
    Refused { code: u32, reason: String },
    /// The other side is not WhatsApp: its certificate chain does not lead to WhatsApp's key.
    RefusedCertificate { reason: String },
    /// Nobody scanned any of the QR texts, and no pairing code is open.
    ChallengeExpired,
    /// Another worker holds the lease now (SL-1); nothing more may be written.
    LeaseLost,
    /// A fault of ours, such as a database that refused device state for too long.
    Fault { reason: String },
}

impl Ended {
    /// Whether connecting again needs a person: a new link, an upgrade, or patience with a ban.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::LoggedOut { .. }
            | Self::Locked { .. }
            | Self::Replaced
            | Self::Banned { .. }
            | Self::Outdated
            | Self::Refused { .. }
            | Self::RefusedCertificate { .. } => true,
            Self::Stopped | Self::ChallengeExpired | Self::LeaseLost | Self::Fault { .. } => false,
        }
    }
}
