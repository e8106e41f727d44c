//! The dialect of a worker: `/api/session/…`, with the worker token, for backends that are not ours.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{AppError, Caller, Code, CreateSession, Session, Settled};
use wagate_domain::{LinkMethod, SessionName};

use super::shapes::{
    DialectSessionIn, DialectStatusOut, MessagesOut, MessagesParams, SentOut, StateOut,
    WorkerHealth, WorkerInfo,
};
use crate::envelope::{Data, Done, with_status};
use crate::error::ApiError;
use crate::extract::{Body, IdempotencyKey, Params, SessionPath, WorkerToken};
use crate::router::ApiState;
use crate::send::{SendIn, SendParams, answer};

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(start))
        .routes(routes!(status))
        .routes(routes!(delete))
        .routes(routes!(restart))
        .routes(routes!(disconnect))
        .routes(routes!(logout))
        .routes(routes!(send))
        .routes(routes!(send_by_body))
        .routes(routes!(messages))
        .routes(routes!(info))
        .routes(routes!(info_under_api))
        .routes(routes!(health_under_api))
}

/// The answer that has a sentence only; 202 while it goes on.
fn settled(settled: &Settled, message: &'static str) -> Response {
    let code = if settled.done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    (code, Json(Done::new(message))).into_response()
}

fn missing(path: &str) -> ApiError {
    ApiError::field(Code::InvalidField, path, "is missing")
}

async fn make(
    state: &ApiState,
    caller: &Caller,
    name: SessionName,
    body: DialectSessionIn,
) -> Result<Session, AppError> {
    let request = CreateSession {
        name: Some(name),
        label: body.session_name,
        user_id: body.user_id,
        link: Some(LinkMethod::Qr),
    };
    state.app().create_session(caller, request).await
}

/// Creates a session and begins to link it: a QR code follows.
#[utoipa::path(
    post, path = "/api/session/create", tag = "dialect: worker", operation_id = "worker_create",
    request_body = DialectSessionIn,
    responses((status = 201, description = "created", body = Data<StateOut>)),
    security(("workerToken" = [])),
)]
async fn create(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    Body(mut body): Body<DialectSessionIn>,
) -> Result<Response, ApiError> {
    let name = body.session_id.take().ok_or_else(|| missing("sessionId"))?;
    if body.user_id.is_none() {
        return Err(missing("userId"));
    }
    let session = make(&state, &caller, name, body).await?;
    Ok(with_status(
        StatusCode::CREATED,
        StateOut::new(&session, "initializing"),
    ))
}

/// Starts a session: creates it if it is not there (201), else connects it again (200).
#[utoipa::path(
    post, path = "/api/session/start", tag = "dialect: worker", operation_id = "worker_start",
    request_body = DialectSessionIn,
    responses(
        (status = 200, description = "it was there", body = Data<StateOut>),
        (status = 201, description = "created", body = Data<StateOut>),
    ),
    security(("workerToken" = [])),
)]
async fn start(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    Body(mut body): Body<DialectSessionIn>,
) -> Result<Response, ApiError> {
    let name = body.session_id.take().ok_or_else(|| missing("sessionId"))?;
    match make(&state, &caller, name.clone(), body).await {
        Ok(session) => Ok(with_status(
            StatusCode::CREATED,
            StateOut::new(&session, "initializing"),
        )),
        Err(error) if error.code() == Code::SessionExists => {
            let no_wait = Some(std::time::Duration::ZERO);
            let started = state
                .app()
                .connect(&caller, &name, LinkMethod::Qr, no_wait)
                .await?;
            Ok(Data::new(StateOut::of(&started.session)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads where a session stands.
#[utoipa::path(
    get, path = "/api/session/{session}/status", tag = "dialect: worker", operation_id = "worker_status",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the status", body = Data<DialectStatusOut>)),
    security(("workerToken" = [])),
)]
async fn status(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
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
    delete, path = "/api/session/{session}", tag = "dialect: worker", operation_id = "worker_delete",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "gone", body = Done),
        (status = 202, description = "out of sight, and being removed", body = Done),
    ),
    security(("workerToken" = [])),
)]
async fn delete(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().delete_session(&caller, &name).await?;
    Ok(settled(&outcome, "Session deleted successfully"))
}

/// Closes the connection and opens it again; a session that is not linked shows a new QR code.
#[utoipa::path(
    post, path = "/api/session/{session}/restart", tag = "dialect: worker", operation_id = "worker_restart",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "being restarted", body = Data<StateOut>)),
    security(("workerToken" = [])),
)]
async fn restart(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    SessionPath(name): SessionPath,
) -> Result<Data<StateOut>, ApiError> {
    let session = state.app().restart(&caller, &name).await?;
    Ok(Data::new(StateOut::new(&session, "initializing")))
}

/// Closes the connection and keeps the link.
#[utoipa::path(
    post, path = "/api/session/{session}/disconnect", tag = "dialect: worker", operation_id = "worker_disconnect",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "disconnected", body = Done),
        (status = 202, description = "being disconnected", body = Done),
    ),
    security(("workerToken" = [])),
)]
async fn disconnect(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().disconnect(&caller, &name).await?;
    Ok(settled(&outcome, "Session disconnected"))
}

/// Unlinks the device at WhatsApp and deletes its keys; the session stays.
#[utoipa::path(
    post, path = "/api/session/{session}/logout", tag = "dialect: worker", operation_id = "worker_logout",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "logged out", body = Done),
        (status = 202, description = "being logged out", body = Done),
    ),
    security(("workerToken" = [])),
)]
async fn logout(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let outcome = state.app().logout(&caller, &name).await?;
    Ok(settled(&outcome, "Session logged out successfully"))
}

/// Sends a message, and waits, bounded, for WhatsApp's acknowledgement.
#[utoipa::path(
    post, path = "/api/session/{session}/send", tag = "dialect: worker", operation_id = "worker_send",
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
    security(("workerToken" = [])),
)]
async fn send(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    SessionPath(name): SessionPath,
    Params(params): Params<SendParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<SendIn>,
) -> Result<Response, ApiError> {
    let request = body.into_request(&name, &params, key, state.options())?;
    let sent = state.app().send(&caller, &name, request).await?;
    Ok(answer(sent, SentOut::from))
}

/// Sends a message; the body names the session.
#[utoipa::path(
    post, path = "/message/send", tag = "dialect: worker", operation_id = "worker_send_by_body",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and body get the first answer"),
        SendParams,
    ),
    request_body = SendIn,
    responses(
        (status = 200, description = "acknowledged by WhatsApp", body = Data<SentOut>),
        (status = 202, description = "stored, and on its way", body = Data<SentOut>),
    ),
    security(("workerToken" = [])),
)]
async fn send_by_body(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
    Params(params): Params<SendParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<SendIn>,
) -> Result<Response, ApiError> {
    let name = body.session()?;
    let request = body.into_request(&name, &params, key, state.options())?;
    let sent = state.app().send(&caller, &name, request).await?;
    Ok(answer(sent, SentOut::from))
}

/// Lists a session's messages, newest first.
#[utoipa::path(
    get, path = "/api/session/{session}/messages", tag = "dialect: worker", operation_id = "worker_messages",
    params(("session" = String, Path, description = "the session's id"), MessagesParams),
    responses((status = 200, description = "a page", body = Data<MessagesOut>)),
    security(("workerToken" = [])),
)]
async fn messages(
    State(state): State<ApiState>,
    WorkerToken(caller): WorkerToken,
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

/// Says what this worker is.
#[utoipa::path(
    get, path = "/info", tag = "dialect: worker", operation_id = "worker_info",
    responses((status = 200, description = "the worker", body = Data<WorkerInfo>)),
    security(("workerToken" = [])),
)]
async fn info(State(state): State<ApiState>, _caller: WorkerToken) -> Data<WorkerInfo> {
    Data::new(WorkerInfo::of(&state))
}

/// Says what this worker is.
#[utoipa::path(
    get, path = "/api/info", tag = "dialect: worker", operation_id = "worker_info_under_api",
    responses((status = 200, description = "the worker", body = Data<WorkerInfo>)),
    security(("workerToken" = [])),
)]
async fn info_under_api(State(state): State<ApiState>, _caller: WorkerToken) -> Data<WorkerInfo> {
    Data::new(WorkerInfo::of(&state))
}

/// Says how this worker does; `/health` with the worker token says the same.
#[utoipa::path(
    get, path = "/api/health", tag = "dialect: worker", operation_id = "worker_health_under_api",
    responses((status = 200, description = "the figures", body = Data<WorkerHealth>)),
    security(("workerToken" = [])),
)]
async fn health_under_api(
    State(state): State<ApiState>,
    _caller: WorkerToken,
) -> Data<WorkerHealth> {
    Data::new(WorkerHealth::of(&state))
}
