//! Message path, step 1 of 7: messages of a session, and one message.
//!
//! Parses the body, takes the caller from the key, calls the use case, shapes its answer; decides
//! nothing. The wait for the acknowledgement and the shape of the answer are shared with the dialects
//! (`crate::send`).

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{Code, MessageFilter, PageRequest};
use wagate_domain::{Direction, Jid, MessageState, Timestamp};

use super::sessions::check_limit;
use crate::envelope::{Data, List, with_status};
use crate::error::ApiError;
use crate::extract::{
    Body, IdempotencyKey, MessagePath, OptionalBody, Params, SessionPath, Tenant,
};
use crate::router::ApiState;
use crate::send::{SendIn, SendParams, answer, read_validity};
use crate::shapes::{MessageHistoryOut, MessageOut};

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(send, list))
        .routes(routes!(read, withdraw))
        .routes(routes!(retry))
}

/// Sends a message.
///
/// It is stored before it is answered. The answer waits, bounded, for WhatsApp's acknowledgement: 200
/// with `sent`, or 202 when it goes on. A session that lost its connection still takes messages; one
/// that is not linked, was disconnected on request, or is banned does not (409).
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/messages", tag = "messages", operation_id = "message_send",
    params(
        ("session" = String, Path, description = "the session's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and body get the first answer"),
        SendParams,
    ),
    request_body = SendIn,
    responses(
        (status = 200, description = "acknowledged by WhatsApp", body = Data<MessageOut>),
        (status = 202, description = "stored, and on its way", body = Data<MessageOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn send(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<SendParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<SendIn>,
) -> Result<Response, ApiError> {
    let request = body.into_request(&name, &params, key, state.options())?;
    let sent = state.app().send(&caller, &name, request).await?;
    Ok(answer(sent, MessageOut::from))
}

/// Which messages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct ListParams {
    /// Messages at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// `page.next` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
    /// `inbound` or `outbound`.
    #[param(value_type = Option<String>, required = false)]
    direction: Option<Direction>,
    /// A message status, such as `failed`.
    #[param(value_type = Option<String>, required = false)]
    status: Option<MessageState>,
    /// One conversation: a number or a JID.
    #[param(required = false)]
    chat: Option<String>,
}

/// Lists a session's messages, newest first.
#[utoipa::path(
    get, path = "/api/v1/sessions/{session}/messages", tag = "messages", operation_id = "message_list",
    params(("session" = String, Path, description = "the session's id"), ListParams),
    responses((status = 200, description = "a page", body = List<MessageOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<ListParams>,
) -> Result<List<MessageOut>, ApiError> {
    let chat = match &params.chat {
        Some(text) => Some(
            Jid::parse_recipient(text, None)
                .map_err(|error| ApiError::field(Code::InvalidField, "chat", error.to_string()))?,
        ),
        None => None,
    };
    let filter = MessageFilter {
        chat,
        direction: params.direction,
        state: params.status,
    };
    let limit = check_limit(params.limit)?;
    let page = PageRequest {
        limit,
        after: params.cursor,
        offset: 0,
    };
    let page = state.app().messages(&caller, &name, filter, page).await?;
    Ok(List::new(
        page.items.into_iter().map(MessageOut::from).collect(),
        page.next,
    ))
}

/// Reads a message, with the history of its status.
#[utoipa::path(
    get, path = "/api/v1/messages/{message}", tag = "messages", operation_id = "message_read",
    params(("message" = String, Path, description = "the message's id")),
    responses((status = 200, description = "the message", body = Data<MessageHistoryOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    MessagePath(id): MessagePath,
) -> Result<Data<MessageHistoryOut>, ApiError> {
    Ok(Data::new(state.app().message(&caller, &id).await?.into()))
}

/// A message that will not be sent.
#[derive(Debug, Serialize, ToSchema)]
struct WithdrawnOut {
    #[serde(flatten)]
    message: MessageOut,
    /// True: it had failed or expired, and is gone with its history. False: it is `canceled`.
    deleted: bool,
}

/// Cancels a message that is not being sent yet, or deletes one that failed or expired.
///
/// One that is being sent or was sent is 409.
#[utoipa::path(
    delete, path = "/api/v1/messages/{message}", tag = "messages", operation_id = "message_cancel",
    params(("message" = String, Path, description = "the message's id")),
    responses((status = 200, description = "canceled or deleted; as it last was", body = Data<WithdrawnOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn withdraw(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    MessagePath(id): MessagePath,
) -> Result<Data<WithdrawnOut>, ApiError> {
    let withdrawn = state.app().withdraw(&caller, &id).await?;
    Ok(Data::new(WithdrawnOut {
        message: withdrawn.message.into(),
        deleted: withdrawn.deleted,
    }))
}

/// How a message is to be tried again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RetryIn {
    /// A new validity. Without one the old one stays, unless it is over.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The same in seconds from now on.
    #[schema(minimum = 1, maximum = 31622400)]
    expires_in: Option<u64>,
}

/// Queues a failed or expired message again, at once, with all attempts and the same WhatsApp id.
///
/// Should it have arrived after all, the recipient's client knows it by its id and shows it once.
#[utoipa::path(
    post, path = "/api/v1/messages/{message}/retry", tag = "messages", operation_id = "message_retry",
    params(("message" = String, Path, description = "the message's id")),
    request_body = Option<RetryIn>,
    responses((status = 202, description = "queued again", body = Data<MessageOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn retry(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    MessagePath(id): MessagePath,
    OptionalBody(body): OptionalBody<RetryIn>,
) -> Result<Response, ApiError> {
    let validity = read_validity(body.expires_at, body.expires_in)?;
    let message = state.app().retry(&caller, &id, validity).await?;
    Ok(with_status(StatusCode::ACCEPTED, MessageOut::from(message)))
}
