//! The one enum of what tenants see: written to the outbox with the change it reports (EV-1).

use serde::{Deserialize, Serialize};

use crate::id::{MessageId, WaMessageId};
use crate::jid::Jid;
use crate::message::{Content, Failure, MessageState};
use crate::pacing::{Reason, Scope};
use crate::session::{LinkChallenge, LinkState, SessionName};
use crate::time::Timestamp;

/// Something that happened to a tenant's session or message.
///
/// In JSON it is `{"type": "message.status", "data": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// A session was created.
    #[serde(rename = "session.created")]
    SessionCreated { session: SessionName },
    /// A session's link state changed. Sent for every change, beside the more specific events.
    #[serde(rename = "session.status")]
    SessionStatus {
        session: SessionName,
        status: LinkState,
    },
    /// A QR code waits to be scanned; each rotation sends another. Show the newest.
    #[serde(rename = "session.qr")]
    SessionQr {
        session: SessionName,
        challenge: LinkChallenge,
    },
    /// A pairing code waits to be entered on the phone.
    #[serde(rename = "session.pairing_code")]
    SessionPairingCode {
        session: SessionName,
        challenge: LinkChallenge,
    },
    /// The session is linked and connected.
    #[serde(rename = "session.connected")]
    SessionConnected {
        session: SessionName,
        #[serde(rename = "phoneNumber")]
        phone_number: Option<String>,
    },
    /// The connection ended; `reason` says why, `LinkState` says whether it will be tried again.
    #[serde(rename = "session.disconnected")]
    SessionDisconnected {
        session: SessionName,
        reason: String,
    },
    /// The device is no longer linked; its keys are gone or worthless. Link again.
    #[serde(rename = "session.logged_out")]
    SessionLoggedOut {
        session: SessionName,
        reason: String,
    },
    /// The connection was up and said nothing, not even when it was asked; it is being replaced.
    #[serde(rename = "session.silent")]
    SessionSilent { session: SessionName },
    /// WhatsApp wants the session to wait: it sends nothing of this scope until then. Messages stay
    /// queued. Sent again when the time becomes later.
    #[serde(rename = "session.paused")]
    SessionPaused {
        session: SessionName,
        scope: Scope,
        reason: Reason,
        until: Timestamp,
    },
    /// A pause is over.
    #[serde(rename = "session.resumed")]
    SessionResumed {
        session: SessionName,
        scope: Scope,
        reason: Reason,
    },
    /// A session was deleted.
    #[serde(rename = "session.deleted")]
    SessionDeleted { session: SessionName },
    /// A message came in, or was written on the owner's own phone (`fromMe`).
    #[serde(rename = "message.received")]
    MessageReceived(Box<MessageReceived>),
    /// An outbound message was accepted.
    #[serde(rename = "message.queued")]
    MessageQueued {
        session: SessionName,
        message: MessageId,
        chat: Jid,
    },
    /// An outbound message's state moved.
    #[serde(rename = "message.status")]
    MessageStatus {
        session: SessionName,
        message: MessageId,
        chat: Jid,
        status: MessageState,
        at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        failure: Option<Failure>,
    },
    /// A failed or expired message was removed, with its history, as somebody asked.
    #[serde(rename = "message.deleted")]
    MessageDeleted {
        session: SessionName,
        message: MessageId,
        chat: Jid,
    },
    /// How a queue works was changed: of one session, or of all that have no setting of their own.
    #[serde(rename = "queue.configured")]
    QueueConfigured {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        session: Option<SessionName>,
        /// Messages on their way at once; nothing means the default.
        concurrency: Option<u32>,
        /// Nothing of the queue goes out.
        paused: bool,
    },
    /// How a session is paced was changed.
    #[serde(rename = "pacing.configured")]
    PacingConfigured { session: SessionName },
}

/// The body of [`Event::MessageReceived`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageReceived {
    pub session: SessionName,
    pub message: MessageId,
    pub wa_message_id: WaMessageId,
    pub chat: Jid,
    pub sender: Jid,
    pub from_me: bool,
    pub push_name: Option<String>,
    pub content: Content,
    pub at: Timestamp,
}

impl Event {
    /// Every name that an event can have.
    pub const NAMES: [&'static str; 17] = [
        "session.created",
        "session.status",
        "session.qr",
        "session.pairing_code",
        "session.connected",
        "session.disconnected",
        "session.logged_out",
        "session.silent",
        "session.paused",
        "session.resumed",
        "session.deleted",
        "message.received",
        "message.queued",
        "message.status",
        "message.deleted",
        "queue.configured",
        "pacing.configured",
    ];

    /// The event's name, as filters and webhooks use it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionCreated { .. } => "session.created",
            Self::SessionStatus { .. } => "session.status",
            Self::SessionQr { .. } => "session.qr",
            Self::SessionPairingCode { .. } => "session.pairing_code",
            Self::SessionConnected { .. } => "session.connected",
            Self::SessionDisconnected { .. } => "session.disconnected",
            Self::SessionLoggedOut { .. } => "session.logged_out",
            Self::SessionSilent { .. } => "session.silent",
            Self::SessionPaused { .. } => "session.paused",
            Self::SessionResumed { .. } => "session.resumed",
            Self::SessionDeleted { .. } => "session.deleted",
            Self::MessageReceived(_) => "message.received",
            Self::MessageQueued { .. } => "message.queued",
            Self::MessageStatus { .. } => "message.status",
            Self::MessageDeleted { .. } => "message.deleted",
            Self::QueueConfigured { .. } => "queue.configured",
            Self::PacingConfigured { .. } => "pacing.configured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_tag() {
        let event = Event::SessionCreated {
            session: SessionName::parse("a").unwrap(),
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["type"], event.name());
        assert_eq!(json["data"]["session"], "a");
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn the_names_are_the_tags_that_can_be_read() {
        let unknown = serde_json::json!({ "type": "nothing", "data": {} });
        let error = serde_json::from_value::<Event>(unknown).unwrap_err();
        let listed = Event::NAMES.map(|name| format!("`{name}`")).join(", ");
        assert!(error.to_string().contains(&listed), "{error}");
    }
}
