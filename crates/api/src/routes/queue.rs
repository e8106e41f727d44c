//! `/api/v1/queue`: what waits and what failed, figures, settings; clearing and trying again.

mod shapes;

use axum::extract::State;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{Caller, Code, PageRequest, SettingsChange};
use wagate_domain::SessionName;

pub(crate) use self::shapes::{ChangedOut, ClearWord, ConfigOut, StandingWord};
use self::shapes::{ClearIn, ConfigIn, JobOut, JobWord, RetryFailedIn, StatsOut};
use super::sessions::check_limit;
use crate::envelope::{Data, List, Paged};
use crate::error::ApiError;
use crate::extract::{Body, OptionalBody, Params, SessionPath, Tenant};
use crate::router::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(stats))
        .routes(routes!(failed))
        .routes(routes!(retry_failed))
        .routes(routes!(clear))
        .routes(routes!(read_config, configure))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// Which jobs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct ListParams {
    /// One session; without, all of them.
    #[param(value_type = Option<String>, required = false)]
    session: Option<SessionName>,
    /// One state; without, everything that is not finished.
    #[param(inline, required = false)]
    state: Option<JobWord>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// `page.next` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

/// Lists what waits or is being sent, in the order of acceptance, session by session; or what failed.
#[utoipa::path(
    get, path = "/api/v1/queue", tag = "queue", operation_id = "queue_list",
    params(ListParams),
    responses((status = 200, description = "a page", body = List<JobOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<ListParams>,
) -> Result<List<JobOut>, ApiError> {
    let page = request(params.limit, params.cursor)?;
    let (app, session) = (state.app(), params.session.as_ref());
    if params.state == Some(JobWord::Failed) {
        let page = app.dead_letters(&caller, session, None, page).await?;
        return Ok(jobs(page));
    }
    let wanted = params.state.and_then(JobWord::state);
    let page = app.queue_jobs(&caller, session, wanted, page).await?;
    Ok(jobs(page))
}

fn request(limit: Option<u32>, cursor: Option<String>) -> Result<PageRequest, ApiError> {
    Ok(PageRequest {
        limit: check_limit(limit)?,
        after: cursor,
        offset: 0,
    })
}

fn jobs<T: Into<JobOut>>(page: wagate_app::Page<T>) -> List<JobOut> {
    List::new(page.items.into_iter().map(Into::into).collect(), page.next)
}

/// Which failed messages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct FailedParams {
    /// One session; without, all of them.
    #[param(value_type = Option<String>, required = false)]
    session: Option<SessionName>,
    /// One reason, such as `recipient_not_registered` or `expired`.
    #[param(required = false)]
    code: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// `page.next` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

/// Lists what failed or expired, with code and reason, the last accepted first.
#[utoipa::path(
    get, path = "/api/v1/queue/failed", tag = "queue", operation_id = "queue_failed",
    params(FailedParams),
    responses((status = 200, description = "a page", body = List<JobOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn failed(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<FailedParams>,
) -> Result<List<JobOut>, ApiError> {
    let page = request(params.limit, params.cursor)?;
    let session = params.session.as_ref();
    let page = state
        .app()
        .dead_letters(&caller, session, params.code, page)
        .await?;
    Ok(jobs(page))
}

/// Queues again what failed or expired, 10,000 messages at most; each as by its own retry.
#[utoipa::path(
    post, path = "/api/v1/queue/failed/retry", tag = "queue", operation_id = "queue_retry_failed",
    request_body = Option<RetryFailedIn>,
    responses((status = 200, description = "how many", body = Data<ChangedOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn retry_failed(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    OptionalBody(body): OptionalBody<RetryFailedIn>,
) -> Result<Data<ChangedOut>, ApiError> {
    let session = body.session.as_ref();
    let changed = state.app().retry_many(&caller, session, body.code).await?;
    Ok(Data::new(changed.into()))
}

/// Withdraws what waits, 10,000 messages at most, never what is being sent; or deletes what failed.
///
/// What is withdrawn ends `canceled`, with an event each.
#[utoipa::path(
    post, path = "/api/v1/queue/clear", tag = "queue", operation_id = "queue_clear",
    request_body = Option<ClearIn>,
    responses((status = 200, description = "how many", body = Data<ChangedOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn clear(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    OptionalBody(body): OptionalBody<ClearIn>,
) -> Result<Data<ChangedOut>, ApiError> {
    let session = body.session.as_ref();
    let changed = state
        .app()
        .clear_queue(&caller, session, body.state.into())
        .await?;
    Ok(Data::new(changed.into()))
}

/// Which queues.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct StatsParams {
    /// One session; without, all of them, page by page.
    #[param(value_type = Option<String>, required = false)]
    session: Option<SessionName>,
    /// Sessions at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// `page.next` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

/// Reads the figures of the queues: of all together, and of each session.
#[utoipa::path(
    get, path = "/api/v1/queue/stats", tag = "queue", operation_id = "queue_stats",
    params(StatsParams),
    responses((status = 200, description = "the figures", body = Paged<StatsOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn stats(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<StatsParams>,
) -> Result<Paged<StatsOut>, ApiError> {
    let page = request(params.limit, params.cursor)?;
    let (app, session) = (state.app(), params.session.as_ref());
    let figures = app.queue_figures(&caller, session, page).await?;
    let shown = StatsOut::new(&figures, app.now());
    Ok(Paged::new(shown, figures.sessions.next))
}

/// Which queue.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct ConfigParams {
    /// One session; without, what counts for all that have no setting of their own.
    #[param(value_type = Option<String>, required = false)]
    session: Option<SessionName>,
}

/// Reads how a queue works.
#[utoipa::path(
    get, path = "/api/v1/queue/config", tag = "queue", operation_id = "queue_config_read",
    params(ConfigParams),
    responses((status = 200, description = "the settings", body = Data<ConfigOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read_config(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<ConfigParams>,
) -> Result<Data<ConfigOut>, ApiError> {
    let config = state
        .app()
        .queue_config(&caller, params.session.as_ref())
        .await?;
    Ok(Data::new(config.into()))
}

/// Changes how queues work. It counts from the next message on that is taken, with no restart.
#[utoipa::path(
    patch, path = "/api/v1/queue/config", tag = "queue", operation_id = "queue_configure",
    request_body = ConfigIn,
    responses((status = 200, description = "the settings now", body = Data<ConfigOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn configure(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Body(body): Body<ConfigIn>,
) -> Result<Data<ConfigOut>, ApiError> {
    if body.concurrency.is_none() && body.paused.is_none() {
        let message = "is missing; send it or `paused`";
        return Err(ApiError::field(Code::InvalidField, "concurrency", message));
    }
    let change = SettingsChange {
        concurrency: body.concurrency,
        paused: body.paused,
    };
    let config = state
        .app()
        .configure_queue(&caller, body.session.as_ref(), change)
        .await?;
    Ok(Data::new(config.into()))
}

async fn set_paused(
    state: &ApiState,
    caller: &Caller,
    name: &SessionName,
    paused: bool,
) -> Result<Data<ConfigOut>, ApiError> {
    let change = SettingsChange {
        paused: Some(paused),
        ..SettingsChange::default()
    };
    let app = state.app();
    let config = app.configure_queue(caller, Some(name), change).await?;
    Ok(Data::new(config.into()))
}

/// Pauses a session's queue: messages are accepted and wait. What is being sent goes on.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/queue/pause", tag = "queue", operation_id = "queue_pause",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the settings now", body = Data<ConfigOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn pause(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<ConfigOut>, ApiError> {
    set_paused(&state, &caller, &name, true).await
}

/// Lets a paused queue go on.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/queue/resume", tag = "queue", operation_id = "queue_resume",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the settings now", body = Data<ConfigOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn resume(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<ConfigOut>, ApiError> {
    set_paused(&state, &caller, &name, false).await
}
