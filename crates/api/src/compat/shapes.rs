//! The bodies that the dialects `gateway` and `worker` share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wagate_app::{App, Code, Counters, Message, Page, PageRequest, Session, Status};
use wagate_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use wagate_domain::{Direction, SessionName};

use crate::error::ApiError;
use crate::router::ApiState;
use crate::shapes::{ChallengeOut, CountersOut, direction_word, phone_number};

/// The word for a session's status in these dialects.
pub(super) fn status_word(session: &Session) -> &'static str {
    match Status::of(session) {
        Status::Initializing | Status::Connecting => "initializing",
        Status::QrRequired => "qr_required",
        Status::Pairing => "pairing",
        Status::Connected => "connected",
        Status::Disconnected => "disconnected",
        Status::LoggedOut => "logged_out",
        Status::Error => "error",
    }
}

/// A session to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct DialectSessionIn {
    /// What to call the session: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[serde(alias = "id")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$", example = "user123-personal")]
    pub(super) session_id: Option<SessionName>,
    #[schema(min_length = 1, max_length = 200, example = "user123")]
    pub(super) user_id: Option<String>,
    #[schema(min_length = 1, max_length = 200, example = "Personal WhatsApp")]
    pub(super) session_name: Option<String>,
}

/// A session and its status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateOut {
    #[schema(example = "user123-personal")]
    session_id: String,
    #[schema(value_type = String, example = "initializing")]
    status: &'static str,
}

impl StateOut {
    pub(super) fn new(session: &Session, status: &'static str) -> Self {
        Self {
            session_id: session.name.to_string(),
            status,
        }
    }

    pub(super) fn of(session: &Session) -> Self {
        Self::new(session, status_word(session))
    }
}

/// Everything about a session's status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DialectStatusOut {
    #[schema(example = "user123-personal")]
    session_id: String,
    /// `initializing`, `qr_required`, `pairing`, `connected`, `disconnected`, `logged_out` or `error`.
    #[schema(value_type = String, example = "connected")]
    status: &'static str,
    /// When the session is linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "+6281234567890")]
    phone_number: Option<String>,
    #[serde(flatten)]
    challenge: ChallengeOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_activity: Option<String>,
    /// Why, when the status is `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<CountersOut>,
}

impl DialectStatusOut {
    pub(super) fn new(app: &App, session: &Session, counters: Option<Counters>) -> Self {
        let reason = session
            .link
            .reason()
            .filter(|_| Status::of(session) == Status::Error);
        Self {
            session_id: session.name.to_string(),
            status: status_word(session),
            phone_number: phone_number(session),
            challenge: app.challenge_of(session).into(),
            last_activity: session.last_activity.map(|at| at.to_string()),
            error: reason.map(|reason| reason.text.clone()),
            user_id: session.user_id.clone(),
            session_name: session.label.clone(),
            counters: counters.map(Into::into),
        }
    }
}

/// A message that was taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SentOut {
    #[schema(example = "msg_01jd8w4qk3v5t9x2r7y6m1n0ba")]
    message_id: String,
    /// `sent` when WhatsApp acknowledged it, else `queued`.
    #[schema(value_type = String, example = "sent")]
    status: &'static str,
    session_id: String,
    #[schema(format = DateTime)]
    timestamp: String,
}

impl From<Message> for SentOut {
    fn from(message: Message) -> Self {
        let sent = message.state.is_sent();
        Self {
            message_id: message.id.to_string(),
            status: if sent { "sent" } else { "queued" },
            session_id: message.session_name.to_string(),
            timestamp: message
                .sent_at
                .filter(|_| sent)
                .unwrap_or(message.at)
                .to_string(),
        }
    }
}

/// Which messages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MessagesParams {
    /// Messages at most; what is more than 200 counts as 200.
    #[param(minimum = 1, required = false)]
    limit: Option<u32>,
    /// Messages to skip.
    #[param(required = false)]
    offset: Option<u32>,
    /// `nextCursor` of the page before, in place of an offset.
    #[param(required = false)]
    cursor: Option<String>,
}

/// A page of messages, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessagesOut {
    messages: Vec<HistoryMessage>,
    total: u64,
    has_more: bool,
    next_cursor: Option<String>,
}

/// A message of a session's history.
#[derive(Debug, Serialize, ToSchema)]
struct HistoryMessage {
    id: String,
    #[schema(value_type = String, example = "outbound")]
    direction: &'static str,
    #[schema(example = "6281234567890@s.whatsapp.net")]
    from: Option<String>,
    #[schema(example = "6289876543210@s.whatsapp.net")]
    to: Option<String>,
    #[serde(rename = "type")]
    #[schema(example = "text")]
    kind: String,
    /// The text; `null` for a kind that has none.
    #[schema(example = "Hello!")]
    content: Option<String>,
    #[schema(format = DateTime)]
    timestamp: String,
    #[schema(value_type = String, example = "delivered")]
    status: &'static str,
}

impl HistoryMessage {
    fn new(session: &Session, message: &Message) -> Self {
        let own = session
            .identity
            .as_ref()
            .map(|identity| identity.jid.to_bare().to_string());
        let chat = Some(message.chat.to_string());
        let sender = message.sender.as_ref().map(ToString::to_string);
        let (from, to) = match message.direction {
            Direction::Outbound => (own, chat),
            Direction::Inbound => (sender.or(chat), own),
        };
        Self {
            id: message.id.to_string(),
            direction: direction_word(message.direction),
            from,
            to,
            kind: message.content.kind().to_owned(),
            content: message.content.as_text().map(ToOwned::to_owned),
            timestamp: message.at.to_string(),
            status: message.state.as_str(),
        }
    }
}

impl MessagesParams {
    pub(super) fn into_request(self) -> Result<PageRequest, ApiError> {
        let limit = self.limit.unwrap_or(PAGE_ROWS_DEFAULT);
        if limit == 0 {
            return Err(ApiError::field(
                Code::InvalidField,
                "limit",
                "must be 1 or more",
            ));
        }
        if self.cursor.is_some() && self.offset.is_some() {
            let message = "goes without `offset`; send one of the two";
            return Err(ApiError::field(Code::InvalidField, "cursor", message));
        }
        Ok(PageRequest {
            limit: limit.min(PAGE_ROWS_MAX),
            offset: self.offset.unwrap_or(0),
            after: self.cursor,
        })
    }
}

impl MessagesOut {
    pub(super) fn new(session: &Session, page: &Page<Message>, total: u64) -> Self {
        Self {
            messages: page
                .items
                .iter()
                .map(|m| HistoryMessage::new(session, m))
                .collect(),
            total,
            has_more: page.next.is_some(),
            next_cursor: page.next.clone(),
        }
    }
}

/// What a worker says about itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerHealth {
    #[schema(value_type = String, example = "online")]
    status: &'static str,
    session_count: u64,
    /// Percent of one core.
    cpu_usage: f64,
    /// Percent of the machine's memory.
    memory_usage: f64,
    /// Seconds since the start.
    uptime: u64,
    max_sessions: u64,
    available_slots: u64,
}

impl WorkerHealth {
    pub(crate) fn of(state: &ApiState) -> Self {
        let figures = (state.options().figures)();
        Self {
            status: "online",
            session_count: figures.sessions,
            cpu_usage: figures.cpu_percent,
            memory_usage: figures.memory_percent,
            uptime: state.uptime().as_secs(),
            max_sessions: figures.sessions_max,
            available_slots: figures.sessions_max.saturating_sub(figures.sessions),
        }
    }
}

/// What a worker is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkerInfo {
    worker_id: String,
    #[schema(value_type = String)]
    version: &'static str,
    environment: String,
    /// The types of messages that can be sent.
    #[schema(value_type = Vec<String>)]
    capabilities: [&'static str; 1],
    /// Always `null`: this worker does not run on Baileys.
    #[serde(rename = "baileys_version")]
    baileys_version: Option<String>,
}

impl WorkerInfo {
    pub(super) fn of(state: &ApiState) -> Self {
        Self {
            worker_id: state.options().worker_id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            environment: state.options().environment.clone(),
            capabilities: ["text"],
            baileys_version: None,
        }
    }
}
