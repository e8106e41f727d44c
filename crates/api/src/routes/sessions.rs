//! `/api/v1/sessions`: create, list, read, stop, restart, log out and delete.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{CreateSession, PageRequest, Settled};
use wagate_domain::SessionName;
use wagate_domain::limits::PAGE_ROWS_MAX;

use crate::envelope::{Data, List, with_status};
use crate::error::ApiError;
use crate::extract::{OptionalBody, Params, SessionPath, Tenant};
use crate::router::ApiState;
use crate::shapes::{SessionOut, StatusOut};

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, delete))
        .routes(routes!(status))
        .routes(routes!(disconnect))
        .routes(routes!(restart))
        .routes(routes!(logout))
}

/// A session to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct CreateSessionIn {
    /// What to call the session: 1 to 64 of `A-Z a-z 0-9 . _ -`. Without one it gets an id.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$", example = "user123-personal")]
    id: Option<SessionName>,
    #[schema(min_length = 1, max_length = 200, example = "Personal WhatsApp")]
    session_name: Option<String>,
    #[schema(min_length = 1, max_length = 200, example = "user123")]
    user_id: Option<String>,
}

/// Which rows of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PageParams {
    /// Rows at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// `page.next` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

impl PageParams {
    pub(crate) fn into_request(self) -> Result<PageRequest, ApiError> {
        Ok(PageRequest {
            limit: check_limit(self.limit)?,
            after: self.cursor,
            offset: 0,
        })
    }
}

/// A limit within its bounds; 0 stands for the default.
pub(crate) fn check_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        None => Ok(0),
        Some(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(limit),
        Some(_) => {
            let message = format!("must be 1 to {PAGE_ROWS_MAX}");
            Err(ApiError::field(
                wagate_app::Code::InvalidField,
                "limit",
                message,
            ))
        }
    }
}

/// A session that something was asked of.
#[derive(Debug, Serialize, ToSchema)]
struct SettledOut {
    #[serde(flatten)]
    session: SessionOut,
    /// False: it is accepted and goes on; the status was 202.
    done: bool,
}

/// A session that is out of sight.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedOut {
    #[schema(example = "user123-personal")]
    id: String,
    /// False: a worker is still removing what belongs to it; the status was 202.
    done: bool,
}

fn settled(settled: &Settled) -> Response {
    let status = if settled.done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    with_status(
        status,
        SettledOut {
            session: (&settled.session).into(),
            done: settled.done,
        },
    )
}

/// Creates a session. It does nothing until it is connected.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions", operation_id = "session_create",
    request_body = Option<CreateSessionIn>,
    responses((status = 201, description = "created", body = Data<SessionOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn create(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    OptionalBody(body): OptionalBody<CreateSessionIn>,
) -> Result<Response, ApiError> {
    let request = CreateSession {
        name: body.id,
        label: body.session_name,
        user_id: body.user_id,
        link: None,
    };
    let session = state.app().create_session(&caller, request).await?;
    Ok(with_status(StatusCode::CREATED, SessionOut::from(&session)))
}

/// Lists the sessions.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "sessions", operation_id = "session_list",
    params(PageParams),
    responses((status = 200, description = "a page", body = List<SessionOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<PageParams>,
) -> Result<List<SessionOut>, ApiError> {
    let page = state
        .app()
        .sessions(&caller, params.into_request()?)
        .await?;
    Ok(List::new(
        page.items.iter().map(SessionOut::from).collect(),
        page.next,
    ))
}

/// Reads a session.
#[utoipa::path(
    get, path = "/api/v1/sessions/{session}", tag = "sessions", operation_id = "session_read",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the session", body = Data<SessionOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<SessionOut>, ApiError> {
    let session = state.app().session(&caller, &name).await?;
    Ok(Data::new((&session).into()))
}

/// Deletes a session with its messages; unlinks the device at WhatsApp where it can.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{session}", tag = "sessions", operation_id = "session_delete",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "gone", body = Data<DeletedOut>),
        (status = 202, description = "out of sight, and being removed", body = Data<DeletedOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn delete(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let Settled { session, done } = state.app().delete_session(&caller, &name).await?;
    let status = if done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok(with_status(
        status,
        DeletedOut {
            id: session.name.to_string(),
            done,
        },
    ))
}

/// Reads where a session stands, what waits to be scanned or entered, and its counters.
#[utoipa::path(
    get, path = "/api/v1/sessions/{session}/status", tag = "sessions", operation_id = "session_status",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the status", body = Data<StatusOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn status(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<StatusOut>, ApiError> {
    let status = state.app().session_status(&caller, &name).await?;
    Ok(Data::new(StatusOut::new(state.app(), status)))
}

/// Closes the connection and keeps the link: the session connects again with no QR code.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/disconnect", tag = "sessions", operation_id = "session_disconnect",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "disconnected", body = Data<SettledOut>),
        (status = 202, description = "being disconnected", body = Data<SettledOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn disconnect(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    Ok(settled(&state.app().disconnect(&caller, &name).await?))
}

/// Closes the connection and opens it again.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/restart", tag = "sessions", operation_id = "session_restart",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 202, description = "being restarted", body = Data<SessionOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn restart(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    let session = state.app().restart(&caller, &name).await?;
    Ok(with_status(
        StatusCode::ACCEPTED,
        SessionOut::from(&session),
    ))
}

/// Unlinks the device at WhatsApp and deletes its keys; the session stays and can be linked again.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/logout", tag = "sessions", operation_id = "session_logout",
    params(("session" = String, Path, description = "the session's id")),
    responses(
        (status = 200, description = "logged out", body = Data<SettledOut>),
        (status = 202, description = "being logged out", body = Data<SettledOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn logout(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Response, ApiError> {
    Ok(settled(&state.app().logout(&caller, &name).await?))
}
