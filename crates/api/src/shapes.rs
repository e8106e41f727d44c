//! What sessions, messages and events look like in canonical answers.

use serde::Serialize;
use utoipa::ToSchema;
use wagate_app::{
    ApiKey, App, Counters, HistoryEntry, Message, MessageWithHistory, Session, SessionStatus,
    Status, StoredEvent, qr,
};
use wagate_domain::message::Failure;
use wagate_domain::{Direction, LinkChallenge, Timestamp};

use crate::routes::pacing::PauseOut;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionOut {
    /// What the client called the session, or a generated id.
    #[schema(example = "user123-personal")]
    pub(crate) id: String,
    #[schema(example = "Personal WhatsApp")]
    pub(crate) session_name: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) status: StatusWord,
    /// The finer state beneath `status`: `idle`, `connecting`, `awaiting_scan`, `connected`, `backoff`,
    /// `stopped`, `link_failed`, `logged_out`, `banned`, `replaced` or `outdated`.
    #[schema(value_type = String, example = "connected")]
    pub(crate) link_state: &'static str,
    /// Why the session is in this state, where there is something to say.
    pub(crate) reason: Option<ReasonOut>,
    /// Whether WhatsApp knows this session as a linked device.
    pub(crate) linked: bool,
    #[schema(example = "+6281234567890")]
    pub(crate) phone_number: Option<String>,
    #[schema(example = "6281234567890@s.whatsapp.net")]
    pub(crate) jid: Option<String>,
    pub(crate) lid: Option<String>,
    pub(crate) push_name: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) last_activity: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StatusWord {
    Initializing,
    QrRequired,
    Pairing,
    Connecting,
    Connected,
    Disconnected,
    LoggedOut,
    Error,
}

/// Why a session is in its state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReasonOut {
    /// A stable machine word.
    #[schema(example = "stream_conflict")]
    pub(crate) code: String,
    /// One sentence for people.
    pub(crate) text: String,
}

/// A session's status, with the challenge that waits to be scanned or entered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusOut {
    #[serde(flatten)]
    pub(crate) session: SessionOut,
    #[serde(flatten)]
    pub(crate) challenge: ChallengeOut,
    pub(crate) counters: CountersOut,
    /// Of the newest 1,000 messages, those that WhatsApp acknowledged more than a minute ago and no device
    /// of the recipient has confirmed: it is off, or does not get through.
    pub(crate) undelivered: u64,
    /// What WhatsApp asked for; empty when it did not. Messages stay queued meanwhile.
    pub(crate) pauses: Vec<PauseOut>,
}

/// What the owner of the phone must scan or enter; all absent when nothing waits.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChallengeOut {
    /// The QR code as a PNG in a `data:` URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "data:image/png;base64,iVBORw0KGgo…")]
    pub(crate) qr_code: Option<String>,
    /// The text that the QR code shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qr_string: Option<String>,
    /// Eight characters to be entered on the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ABCD1234")]
    pub(crate) pairing_code: Option<String>,
    /// When the QR code or the pairing code ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(crate) expires_at: Option<String>,
}

/// How many messages of a session are in which state.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CountersOut {
    /// Accepted, and not yet acknowledged by WhatsApp.
    pub(crate) queued: u64,
    /// Acknowledged by WhatsApp, and nothing more yet.
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) read: u64,
    pub(crate) failed: u64,
    pub(crate) received: u64,
}

/// A message, in either direction.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageOut {
    #[schema(example = "msg_01jd8w4qk3v5t9x2r7y6m1n0ba")]
    pub(crate) id: String,
    #[schema(example = "user123-personal")]
    pub(crate) session_id: String,
    /// `inbound` or `outbound`; a message written on the owner's own phone is outbound.
    #[schema(value_type = String, example = "outbound")]
    pub(crate) direction: &'static str,
    /// The conversation it belongs to.
    #[schema(example = "6289876543210@s.whatsapp.net")]
    pub(crate) chat: String,
    /// Who wrote it; `null` for what this gateway sends.
    pub(crate) sender: Option<String>,
    /// Whether it comes from the linked account: sent here, or written on the owner's phone.
    pub(crate) from_me: bool,
    /// The name that the sender goes by.
    pub(crate) push_name: Option<String>,
    /// The kind of content.
    #[serde(rename = "type")]
    #[schema(example = "text")]
    pub(crate) kind: String,
    /// The text, where it has one.
    pub(crate) text: Option<String>,
    /// `queued`, `sending`, `sent`, `delivered`, `read`, `played`, `failed`, `canceled`, `expired`, and
    /// `received` for what came in.
    #[schema(value_type = String, example = "sent")]
    pub(crate) status: &'static str,
    pub(crate) failure: Option<FailureOut>,
    /// The message's id on WhatsApp.
    #[schema(example = "3EB0C431C26A1916E07A")]
    pub(crate) wa_message_id: String,
    /// When it was accepted, or came in.
    #[schema(format = DateTime)]
    pub(crate) timestamp: String,
    /// When WhatsApp's server acknowledged it.
    #[schema(format = DateTime)]
    pub(crate) sent_at: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) delivered_at: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) read_at: Option<String>,
    /// Attempts to send it so far.
    pub(crate) attempts: u32,
    /// `high`, `normal` or `low`; `null` for what came in.
    #[schema(value_type = Option<String>, example = "normal")]
    pub(crate) priority: Option<&'static str>,
    /// The time for which it was scheduled.
    #[schema(format = DateTime)]
    pub(crate) send_at: Option<String>,
    /// From then on it is not sent any more.
    #[schema(format = DateTime)]
    pub(crate) expires_at: Option<String>,
}

/// Why a message failed for good.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureOut {
    #[schema(example = "recipient_not_registered")]
    pub(crate) code: String,
    pub(crate) reason: String,
}

/// A message and how its status moved.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageHistoryOut {
    #[serde(flatten)]
    pub(crate) message: MessageOut,
    pub(crate) history: Vec<HistoryOut>,
}

/// One step of a message's status.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryOut {
    #[schema(value_type = String, example = "delivered")]
    pub(crate) status: &'static str,
    #[schema(format = DateTime)]
    pub(crate) at: String,
    pub(crate) failure: Option<FailureOut>,
}

/// One event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventOut {
    /// The event's place; give the last one as `after` to go on.
    pub(crate) seq: i64,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub(crate) at: String,
    /// `type` and `data`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) event: wagate_domain::Event,
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeyOut {
    #[schema(example = "key_01jd8w4qk3v5t9x2r7y6m1n0ba")]
    pub(crate) id: String,
    pub(crate) name: String,
    /// The secret's first characters, to recognise it by.
    pub(crate) prefix: String,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    #[schema(format = DateTime)]
    pub(crate) expires_at: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) revoked_at: Option<String>,
}

impl From<Status> for StatusWord {
    fn from(status: Status) -> Self {
        match status {
            Status::Initializing => Self::Initializing,
            Status::QrRequired => Self::QrRequired,
            Status::Pairing => Self::Pairing,
            Status::Connecting => Self::Connecting,
            Status::Connected => Self::Connected,
            Status::Disconnected => Self::Disconnected,
            Status::LoggedOut => Self::LoggedOut,
            Status::Error => Self::Error,
        }
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}

impl From<&Session> for SessionOut {
    fn from(session: &Session) -> Self {
        let identity = session.identity.as_ref();
        Self {
            id: session.name.to_string(),
            session_name: session.label.clone(),
            user_id: session.user_id.clone(),
            status: Status::of(session).into(),
            link_state: session.link.as_str(),
            reason: session.link.reason().map(|reason| ReasonOut {
                code: reason.code.clone(),
                text: reason.text.clone(),
            }),
            linked: identity.is_some(),
            phone_number: phone_number(session),
            jid: identity.map(|identity| identity.jid.to_bare().to_string()),
            lid: identity
                .and_then(|identity| identity.lid.as_ref())
                .map(|lid| lid.to_bare().to_string()),
            push_name: identity.and_then(|identity| identity.push_name.clone()),
            last_activity: session.last_activity.map(text),
            created_at: text(session.created_at),
        }
    }
}

/// The linked account's number, with its plus.
pub(crate) fn phone_number(session: &Session) -> Option<String> {
    let phone = session.identity.as_ref()?.jid.phone()?;
    Some(format!("+{}", phone.digits()))
}

impl StatusOut {
    pub(crate) fn new(app: &App, status: SessionStatus) -> Self {
        Self {
            session: (&status.session).into(),
            challenge: app.challenge_of(&status.session).into(),
            counters: status.counters.into(),
            undelivered: status.undelivered,
            pauses: status.pauses.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Option<&LinkChallenge>> for ChallengeOut {
    fn from(challenge: Option<&LinkChallenge>) -> Self {
        let Some(challenge) = challenge else {
            return Self::default();
        };
        let expires_at = Some(text(challenge.expires_at()));
        match challenge {
            LinkChallenge::Qr { qr: string, .. } => Self {
                qr_code: qr::data_url(string).ok(),
                qr_string: Some(string.clone()),
                expires_at,
                ..Self::default()
            },
            LinkChallenge::Code { code, .. } => Self {
                pairing_code: Some(code.clone()),
                expires_at,
                ..Self::default()
            },
        }
    }
}

impl From<Counters> for CountersOut {
    fn from(counters: Counters) -> Self {
        let Counters {
            queued,
            sent,
            delivered,
            read,
            failed,
            received,
        } = counters;
        Self {
            queued,
            sent,
            delivered,
            read,
            failed,
            received,
        }
    }
}

impl From<Failure> for FailureOut {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            reason: failure.reason,
        }
    }
}

impl From<Message> for MessageOut {
    fn from(message: Message) -> Self {
        Self {
            id: message.id.to_string(),
            session_id: message.session_name.to_string(),
            direction: direction_word(message.direction),
            chat: message.chat.to_string(),
            sender: message.sender.as_ref().map(ToString::to_string),
            from_me: message.from_me || message.direction == Direction::Outbound,
            kind: message.content.kind().to_owned(),
            text: message.content.as_text().map(ToOwned::to_owned),
            status: message.state.as_str(),
            failure: message.failure.map(Into::into),
            wa_message_id: message.wa_id.to_string(),
            timestamp: text(message.at),
            sent_at: message.sent_at.map(text),
            delivered_at: message.delivered_at.map(text),
            read_at: message.read_at.map(text),
            attempts: message.attempts,
            priority: (message.direction == Direction::Outbound)
                .then_some(message.priority.as_str()),
            send_at: message.not_before.map(text),
            expires_at: message.expires_at.map(text),
            push_name: message.push_name,
        }
    }
}

/// The word for a direction.
pub(crate) fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

impl From<MessageWithHistory> for MessageHistoryOut {
    fn from(found: MessageWithHistory) -> Self {
        let step = |step: HistoryEntry| HistoryOut {
            status: step.state.as_str(),
            at: text(step.at),
            failure: step.failure.map(Into::into),
        };
        Self {
            message: found.message.into(),
            history: found.history.into_iter().map(step).collect(),
        }
    }
}

impl From<StoredEvent> for EventOut {
    fn from(stored: StoredEvent) -> Self {
        Self {
            seq: stored.seq.0,
            at: text(stored.at),
            event: stored.event,
        }
    }
}

impl From<ApiKey> for ApiKeyOut {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            prefix: key.prefix,
            created_at: text(key.created_at),
            expires_at: key.expires_at.map(text),
            revoked_at: key.revoked_at.map(text),
        }
    }
}
