//! The dialect of the gateway: `/api/sessions/…`, with a tenant's API key.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{CreateSession, Settled};
use wagate_domain::LinkMethod;

use super::shapes::{
    DialectSessionIn, DialectStatusOut, MessagesOut, MessagesParams, SentOut, StateOut, status_word,
};
use crate::envelope::{Data, List, with_status};
use crate::error::ApiError;
use crate::extract::{Body, IdempotencyKey, OptionalBody, Params, SessionPath, Tenant};
use crate::router::ApiState;
use crate::routes::links::{ConnectIn, ConnectParams, LinkOut, QrOut, QrParams, link, show_qr};
use crate::routes::sessions::PageParams;
use crate::send::{SendIn, SendParams, answer};

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, delete))
        .routes(routes!(connect))
        .routes(routes!(read_qr))
        .routes(routes!(status))
        .routes(routes!(disconnect))
        .routes(routes!(logout))
        .routes(routes!(restart))
        .routes(routes!(send))
        .routes(routes!(messages))
}

/// A session's new status, with a sentence.
#[derive(Debug, Serialize, ToSchema)]
struct StateAndMessage {
    #[schema(example = true)]
    success: bool,
    data: StateOut,
    #[schema(value_type = String)]
    message: &'static str,
}

/// 200 when it is done, 202 while it goes on; the status is what it is at this moment.
fn settled(settled: &Settled, done: StateOut, message: &'static str) -> Response {
    let (code, data) = if settled.done {
        (StatusCode::OK, done)
    } else {
        (StatusCode::ACCEPTED, StateOut::of(&settled.session))
    };
    (
        code,
        Json(StateAndMessage {
            success: true,
            data,
            message,
        }),
    )
        .into_response()
}

/// Creates a session and begins to link it: a QR code follows.
#[utoipa::path(
    post, path = "/api/sessions", tag = "dialect: gateway", operation_id = "gateway_create",
    request_body = Option<DialectSessionIn>,
    responses((status = 201, description = "created", body = Data<StateOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn create(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    OptionalBody(body): OptionalBody<DialectSessionIn>,
) -> Result<Response, ApiError> {
    let request = CreateSession {
        name: body.session_id,
        label: body.session_name,
        user_id: body.user_id,
        link: Some(LinkMethod::Qr),
    };
    let session = state.app().create_session(&caller, request).await?;
    Ok(with_status(
        StatusCode::CREATED,
        StateOut::new(&session, "initializing"),
    ))
}

/// Lists the sessions.
#[utoipa::path(
    get, path = "/api/sessions", tag = "dialect: gateway", operation_id = "gateway_list",
    params(PageParams),
    responses((status = 200, description = "a page", body = List<DialectStatusOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<PageParams>,
) -> Result<List<DialectStatusOut>, ApiError> {
    let page = state
        .app()
        .sessions(&caller, params.into_request()?)
        .await?;
    let shape = |session| DialectStatusOut::new(state.app(), session, None);
    Ok(List::new(page.items.iter().map(shape).collect(), page.next))
}

/// Reads a session.
#[utoipa::path(
    get, path = "/api/sessions/{session}", tag = "dialect: gateway", operation_id = "gateway_read",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the session", body = Data<DialectStatusOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<DialectStatusOut>, ApiError> {
    let session = state.app().session(&caller, &name).await?;
    Ok(Data::new(DialectStatusOut::new(
        state.app(),
        &session,
        None,
    )))
}

/// Deletes a session with all that belongs to it.
#[utoipa::path(
    delete, path = "/api/sessions/{session}", tag = "dialect: gateway", operation_id = "gateway_delete",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "gone", body = StateAndMessage),
        (status = 202, description = "out of sight, and being removed", body = StateAndMessage),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn delete(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().delete_session(&caller, &name).await?;
    let data = StateOut::new(&outcome.session, "deleted");
    let code = if outcome.done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let message = "Session deleted successfully";
    Ok((
        code,
        Json(StateAndMessage {
            success: true,
            data,
            message,
        }),
    )
        .into_response())
}

/// Links a session, or connects it again when it is linked.
#[utoipa::path(
    post, path = "/api/sessions/{session}/connect", tag = "dialect: gateway", operation_id = "gateway_connect",
    params(("session" = String, Path, description = "the session's id"), ConnectParams),
    request_body = Option<ConnectIn>,
    responses(
        (status = 200, description = "what to scan or enter, or connected", body = Data<LinkOut>),
        (status = 202, description = "on its way; read the status", body = Data<LinkOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn connect(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<ConnectParams>,
    OptionalBody(body): OptionalBody<ConnectIn>,
) -> Result<Response, ApiError> {
    link(state.app(), &caller, &name, body, &params).await
}

/// Shows the QR code.
#[utoipa::path(
    get, path = "/api/sessions/{session}/qr", tag = "dialect: gateway", operation_id = "gateway_qr",
    params(("session" = String, Path, description = "the session's id"), QrParams),
    responses((status = 200, description = "the QR code", content(
        (Data<QrOut> = "application/json"),
        (String = "image/png"),
        (String = "image/svg+xml"),
        (String = "text/plain"),
    ))),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read_qr(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<QrParams>,
) -> Result<Response, ApiError> {
    show_qr(state.app(), &caller, &name, &params).await
}

/// Reads where a session stands.
#[utoipa::path(
    get, path = "/api/sessions/{session}/status", tag = "dialect: gateway", operation_id = "gateway_status",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the status", body = Data<DialectStatusOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn status(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<DialectStatusOut>, ApiError> {
    let (session, counters) = state.app().session_with_counters(&caller, &name).await?;
    Ok(Data::new(DialectStatusOut::new(
        state.app(),
        &session,
        Some(counters),
    )))
}

/// Closes the connection and keeps the link.
#[utoipa::path(
    post, path = "/api/sessions/{session}/disconnect", tag = "dialect: gateway", operation_id = "gateway_disconnect",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "disconnected", body = StateAndMessage),
        (status = 202, description = "being disconnected", body = StateAndMessage),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn disconnect(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().disconnect(&caller, &name).await?;
    let data = StateOut::new(&outcome.session, status_word(&outcome.session));
    Ok(settled(&outcome, data, "Session disconnected"))
}

/// Unlinks the device at WhatsApp and deletes its keys; the session stays.
#[utoipa::path(
    post, path = "/api/sessions/{session}/logout", tag = "dialect: gateway", operation_id = "gateway_logout",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "logged out", body = StateAndMessage),
        (status = 202, description = "being logged out", body = StateAndMessage),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn logout(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().logout(&caller, &name).await?;
    let data = StateOut::new(&outcome.session, "logged_out");
    Ok(settled(&outcome, data, "Session logged out successfully"))
}

/// Closes the connection and opens it again.
#[utoipa::path(
    post, path = "/api/sessions/{session}/restart", tag = "dialect: gateway", operation_id = "gateway_restart",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "being restarted", body = Data<StateOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn restart(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<StateOut>, ApiError> {
    let session = state.app().restart(&caller, &name).await?;
    Ok(Data::new(StateOut::new(&session, "initializing")))
}

/// Sends a message, and waits, bounded, for WhatsApp's acknowledgement.
#[utoipa::path(
    post, path = "/api/sessions/{session}/send", tag = "dialect: gateway", operation_id = "gateway_send",
    params(
        ("session" = String, Path, description = "the session's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and body get the first answer"),
        SendParams,
    ),
    request_body = SendIn,
    responses(
        (status = 200, description = "acknowledged by WhatsApp", body = Data<SentOut>),
        (status = 202, description = "stored, and on its way", body = Data<SentOut>),
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
    Ok(answer(sent, SentOut::from))
}

/// Lists a session's messages, newest first.
#[utoipa::path(
    get, path = "/api/sessions/{session}/messages", tag = "dialect: gateway", operation_id = "gateway_messages",
    params(("session" = String, Path, description = "the session's id"), MessagesParams),
    responses((status = 200, description = "a page", body = Data<MessagesOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn messages(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<MessagesParams>,
) -> Result<Data<MessagesOut>, ApiError> {
    let page = params.into_request()?;
    let (session, page, total) = state
        .app()
        .messages_with_total(&caller, &name, page)
        .await?;
    Ok(Data::new(MessagesOut::new(&session, &page, total)))
}
