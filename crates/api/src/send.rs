//! The body of a send, as the canonical route and the dialects have it.
//!
//! One reading for all of them: what may be written in one place may be written in every place.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use wagate_app::{Code, Message, SendRequest, Sent, Validity};
use wagate_domain::limits::WAIT_MAX;
use wagate_domain::{Content, Priority, SessionName, Timestamp};

use crate::envelope::with_status;
use crate::error::ApiError;
use crate::router::ApiOptions;

/// The types of messages that can be sent.
const TYPES: [&str; 1] = ["text"];
/// The types that are words of this interface, and cannot be sent.
const LATER: [&str; 10] = [
    "image", "video", "audio", "voice", "document", "sticker", "location", "contact", "poll",
    "reaction",
];

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendIn {
    /// Digits with any formatting, or a JID (`@s.whatsapp.net`, `@c.us`, `@lid`).
    #[serde(alias = "number", alias = "chatId")]
    #[schema(min_length = 1, example = "6281234567890")]
    to: String,
    /// The kind of message; `text` is the only one at present.
    #[serde(rename = "type", default)]
    #[schema(example = "text")]
    kind: Option<String>,
    /// The text.
    #[serde(default)]
    #[schema(example = "Hello World!", min_length = 1, max_length = 65536)]
    message: Option<String>,
    /// The text, under its other name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 65536)]
    text: Option<String>,
    /// Refused: media cannot be sent at present.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    media: Option<Value>,
    /// Refused: it belongs to media.
    #[serde(default)]
    caption: Option<String>,
    /// Refused: it belongs to media.
    #[serde(default)]
    filename: Option<String>,
    /// `high`, `normal` or `low`: which messages of the session go first. In one chat, a later message
    /// of a higher priority overtakes.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "normal")]
    priority: Option<Priority>,
    /// Not to be sent earlier; at most 366 days ahead.
    #[serde(rename = "sendAt", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<Timestamp>,
    /// Not to be sent from then on: it ends `expired`. Goes without `expiresIn`.
    #[serde(rename = "expiresAt", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The same in seconds, from now or from `sendAt` on.
    #[serde(rename = "expiresIn", default)]
    #[schema(minimum = 1, maximum = 31622400, example = 600)]
    expires_in: Option<u64>,
    /// Seconds to wait for WhatsApp's acknowledgement; 0 answers at once.
    #[serde(default)]
    #[schema(maximum = 60, example = 10)]
    wait: Option<u64>,
    /// The session, where the path does not name it; where it does, the same.
    #[serde(rename = "sessionId", default)]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    session_id: Option<SessionName>,
}

/// The query of a send.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendParams {
    /// Seconds to wait for WhatsApp's acknowledgement; 0 answers at once.
    #[param(maximum = 60, required = false)]
    wait: Option<u64>,
}

impl SendIn {
    /// The session that the body names, for the route whose path names none.
    pub(crate) fn session(&self) -> Result<SessionName, ApiError> {
        let missing = || ApiError::field(Code::InvalidField, "sessionId", "is missing");
        self.session_id.clone().ok_or_else(missing)
    }

    /// What the body names as session, if it does.
    pub(crate) fn named_session(&self) -> Option<&SessionName> {
        self.session_id.as_ref()
    }

    /// Does not wait, unless the caller says so.
    pub(crate) fn at_once(mut self, params: &SendParams) -> Self {
        self.wait = self.wait.or(params.wait).or(Some(0));
        self
    }

    /// Checks the form, and names what is wrong with it.
    pub(crate) fn into_request(
        self,
        session: &SessionName,
        params: &SendParams,
        idempotency_key: Option<String>,
        options: &ApiOptions,
    ) -> Result<SendRequest, ApiError> {
        if self
            .session_id
            .as_ref()
            .is_some_and(|named| named != session)
        {
            let message = "differs from the session in the path";
            return Err(ApiError::field(Code::InvalidField, "sessionId", message));
        }
        self.check_type()?;
        self.check_media()?;
        let (field, text) = match (self.text, self.message) {
            (Some(text), Some(message)) if text != message => {
                let message = "differs from `message`; send one of the two";
                return Err(ApiError::field(Code::InvalidField, "text", message));
            }
            (Some(text), _) => ("text", text),
            (None, Some(message)) => ("message", message),
            (None, None) => {
                return Err(ApiError::field(Code::InvalidField, "message", "is missing"));
            }
        };
        let content = Content::text(text)
            .map_err(|error| ApiError::field(Code::InvalidField, field, error.to_string()))?;
        let wait = match (self.wait, params.wait) {
            (Some(body), Some(query)) if body != query => {
                let message = "differs between the body and the query";
                return Err(ApiError::field(Code::InvalidField, "wait", message));
            }
            (body, query) => read_wait(body.or(query))?.unwrap_or(options.send_wait),
        };
        Ok(SendRequest {
            to: self.to,
            content,
            priority: self.priority.unwrap_or_default(),
            send_at: self.send_at,
            validity: read_validity(self.expires_at, self.expires_in)?,
            idempotency_key,
            wait,
        })
    }

    fn check_type(&self) -> Result<(), ApiError> {
        let Some(kind) = self.kind.as_deref() else {
            return Ok(());
        };
        if TYPES.contains(&kind) {
            return Ok(());
        }
        if LATER.contains(&kind) {
            let message = format!(
                "`{kind}` cannot be sent yet; supported now: {}",
                TYPES.join(", ")
            );
            return Err(ApiError::field(Code::UnsupportedType, "type", message));
        }
        let message = format!(
            "is not a type of message; supported now: {}",
            TYPES.join(", ")
        );
        Err(ApiError::field(Code::UnsupportedType, "type", message))
    }

    fn check_media(&self) -> Result<(), ApiError> {
        let field = match self {
            Self { media: Some(_), .. } => "media",
            Self {
                caption: Some(_), ..
            } => "caption",
            Self {
                filename: Some(_), ..
            } => "filename",
            _ => return Ok(()),
        };
        let message = "belongs to media, which cannot be sent yet; supported now: text";
        Err(ApiError::field(Code::UnsupportedType, field, message))
    }
}

/// Until when a message is worth sending, said in one of two ways.
pub(crate) fn read_validity(
    until: Option<Timestamp>,
    seconds: Option<u64>,
) -> Result<Option<Validity>, ApiError> {
    match (until, seconds) {
        (Some(_), Some(_)) => {
            let message = "goes without `expiresAt`; send one of the two";
            Err(ApiError::field(Code::InvalidField, "expiresIn", message))
        }
        (Some(at), None) => Ok(Some(Validity::Until(at))),
        (None, Some(seconds)) => Ok(Some(Validity::For(Duration::from_secs(seconds)))),
        (None, None) => Ok(None),
    }
}

/// A wait that a caller asked for, within its bound.
pub(crate) fn read_wait(seconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    if seconds > WAIT_MAX.as_secs() {
        let message = format!("must be 0 to {} seconds", WAIT_MAX.as_secs());
        return Err(ApiError::field(Code::InvalidField, "wait", message));
    }
    Ok(Some(Duration::from_secs(seconds)))
}

/// Answers 200 for what WhatsApp acknowledged and 202 for what goes on, in the shape of a surface.
pub(crate) fn answer<T: serde::Serialize>(
    sent: Sent,
    shape: impl FnOnce(Message) -> T,
) -> Response {
    let status = if sent.message.state.is_sent() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut response = with_status(status, shape(sent.message)).into_response();
    if sent.replayed {
        let name = HeaderName::from_static("idempotency-replayed");
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("true"));
    }
    response
}
