//! `/api/v1/queue`: what waits and what failed, figures, settings; clearing and trying again.

use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::queue::success_rate;
use wagate_app::{
    Changed, Clear, Code, DeadLetter, Job, JobState, PageRequest, QueueConfig, QueueStanding,
    SessionQueue, SettingsChange, TenantQueue,
};
use wagate_domain::{SessionName, Timestamp};

use super::sessions::check_limit;
use crate::envelope::{Data, List, Paged};
use crate::error::ApiError;
use crate::extract::{Body, OptionalBody, Params, SessionPath, Tenant};
use crate::router::ApiState;
use crate::shapes::MessageOut;

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

/// Where a message stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobWord {
    /// Due, or behind another message of its chat.
    Waiting,
    /// Being sent.
    Active,
    /// Waits for another attempt.
    Delayed,
    /// Waits for the time for which it was scheduled.
    Scheduled,
    /// Failed or expired.
    Failed,
}

impl From<JobState> for JobWord {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Waiting => Self::Waiting,
            JobState::Active => Self::Active,
            JobState::Delayed => Self::Delayed,
            JobState::Scheduled => Self::Scheduled,
        }
    }
}

impl JobWord {
    /// None for what is not in the queue any more.
    fn state(self) -> Option<JobState> {
        match self {
            Self::Waiting => Some(JobState::Waiting),
            Self::Active => Some(JobState::Active),
            Self::Delayed => Some(JobState::Delayed),
            Self::Scheduled => Some(JobState::Scheduled),
            Self::Failed => None,
        }
    }
}

/// A message in its queue, or one that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobOut {
    #[serde(flatten)]
    pub(crate) message: MessageOut,
    pub(crate) state: JobWord,
    /// When it may go out, for what waits for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(crate) due_at: Option<String>,
    /// Why it failed; `expired` for one that expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "recipient_not_registered")]
    pub(crate) code: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// When it failed or expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(crate) failed_at: Option<String>,
}

impl From<Job> for JobOut {
    fn from(job: Job) -> Self {
        let waits_for_time = matches!(job.state, JobState::Delayed | JobState::Scheduled);
        Self {
            due_at: waits_for_time.then(|| job.due.to_string()),
            state: job.state.into(),
            message: job.message.into(),
            code: None,
            reason: None,
            failed_at: None,
        }
    }
}

impl From<DeadLetter> for JobOut {
    fn from(dead: DeadLetter) -> Self {
        let reason = match &dead.message.failure {
            Some(failure) => failure.reason.clone(),
            None => "the message expired before it was sent".to_owned(),
        };
        Self {
            state: JobWord::Failed,
            due_at: None,
            code: Some(dead.code),
            reason: Some(reason),
            failed_at: Some(dead.at.to_string()),
            message: dead.message.into(),
        }
    }
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

/// Which failed messages are to be tried again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct RetryFailedIn {
    /// One session; without, all that take messages.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    session: Option<SessionName>,
    /// Only what failed with this code, such as `unconfirmed` or `expired`.
    #[schema(example = "unconfirmed")]
    code: Option<String>,
}

/// How far a change of many messages came.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedOut {
    /// Messages that were changed.
    pub(crate) count: u32,
    /// Sessions that were left out, since they take no messages at present.
    pub(crate) skipped_sessions: u32,
    /// True: the bound of one request is reached and something is left; ask again.
    pub(crate) more: bool,
}

impl From<Changed> for ChangedOut {
    fn from(changed: Changed) -> Self {
        Self {
            count: changed.count,
            skipped_sessions: changed.skipped_sessions,
            more: changed.more,
        }
    }
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

/// What can be cleared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClearWord {
    /// Everything that waits: `waiting`, `delayed` and `scheduled`.
    #[default]
    All,
    Waiting,
    Delayed,
    Scheduled,
    /// What failed or expired; it is deleted.
    Failed,
}

impl From<ClearWord> for Clear {
    fn from(word: ClearWord) -> Self {
        match word {
            ClearWord::All => Self::AllWaiting,
            ClearWord::Waiting => Self::Only(JobState::Waiting),
            ClearWord::Delayed => Self::Only(JobState::Delayed),
            ClearWord::Scheduled => Self::Only(JobState::Scheduled),
            ClearWord::Failed => Self::Dead,
        }
    }
}

/// What is to be cleared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct ClearIn {
    /// One session; without, all of them.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    session: Option<SessionName>,
    #[schema(inline)]
    state: ClearWord,
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

/// The figures of one or of several queues.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FiguresOut {
    /// Being sent.
    pub(crate) active: u64,
    /// Due, or behind another message of its chat.
    pub(crate) waiting: u64,
    /// Waiting for another attempt.
    pub(crate) delayed: u64,
    /// Waiting for the time for which they were scheduled.
    pub(crate) scheduled: u64,
    /// All that wait: `waiting`, `delayed` and `scheduled`.
    pub(crate) pending: u64,
    /// Ended failed, and neither retried nor deleted since.
    pub(crate) failed: u64,
    /// Acknowledged by WhatsApp.
    pub(crate) completed: u64,
    /// `completed` of `completed` and `failed`, in percent; `null` before anything ended.
    pub(crate) success_rate: Option<f64>,
    /// How long the oldest one has been due that waits, in seconds.
    pub(crate) oldest_waiting_seconds: Option<u64>,
}

impl FiguresOut {
    pub(crate) fn new(queue: &TenantQueue, now: Timestamp) -> Self {
        Self {
            active: queue.active,
            waiting: queue.waiting,
            delayed: queue.delayed,
            scheduled: queue.scheduled,
            pending: queue.waiting + queue.delayed + queue.scheduled,
            failed: queue.failed,
            completed: queue.completed,
            success_rate: success_rate(queue),
            oldest_waiting_seconds: queue.oldest.map(|since| now.since(since).as_secs()),
        }
    }
}

/// What a queue is doing.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StandingWord {
    Processing,
    /// There is nothing to send.
    Idle,
    /// There is something to send, and the session is not connected.
    Held,
    /// Nothing goes out, as was asked.
    Paused,
}

impl From<QueueStanding> for StandingWord {
    fn from(standing: QueueStanding) -> Self {
        match standing {
            QueueStanding::Processing => Self::Processing,
            QueueStanding::Idle => Self::Idle,
            QueueStanding::Held => Self::Held,
            QueueStanding::Paused => Self::Paused,
        }
    }
}

/// One session's queue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionQueueOut {
    #[schema(example = "user123-personal")]
    session_id: String,
    status: StandingWord,
    /// Messages on their way at once, at most.
    concurrency: u32,
    paused: bool,
    #[serde(flatten)]
    figures: FiguresOut,
}

/// Figures over all sessions, and those of each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsOut {
    /// Over all sessions, whatever the page shows.
    total: FiguresOut,
    /// In force where a session has no setting of its own.
    concurrency: u32,
    sessions: Vec<SessionQueueOut>,
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
    let now = app.now();
    let one = |found: &SessionQueue| SessionQueueOut {
        session_id: found.name.to_string(),
        status: QueueStanding::of(found).into(),
        concurrency: found.settings.concurrency.unwrap_or(figures.concurrency),
        paused: found.settings.paused,
        figures: FiguresOut::new(&found.queue, now),
    };
    let shown = StatsOut {
        total: FiguresOut::new(&figures.total, now),
        concurrency: figures.concurrency,
        sessions: figures.sessions.items.iter().map(one).collect(),
    };
    Ok(Paged::new(shown, figures.sessions.next))
}

/// How a queue works.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigOut {
    /// `null`: what counts for all sessions that have no setting of their own.
    #[schema(example = "user123-personal")]
    pub(crate) session_id: Option<String>,
    /// Messages on their way at once, at most; in one chat always one.
    #[schema(example = 3)]
    pub(crate) concurrency: u32,
    /// What is set here; `null` where the next wider setting counts.
    pub(crate) configured: Option<u32>,
    /// Nothing goes out.
    pub(crate) paused: bool,
}

impl From<QueueConfig> for ConfigOut {
    fn from(config: QueueConfig) -> Self {
        Self {
            session_id: config.session.map(|name| name.to_string()),
            concurrency: config.concurrency,
            configured: config.set.concurrency,
            paused: config.set.paused,
        }
    }
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

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct ConfigIn {
    /// One session; without, all that have no setting of their own.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    session: Option<SessionName>,
    /// Messages on their way at once, at most; `null` takes the setting back.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 20, example = 3)]
    concurrency: Option<Option<u32>>,
    /// Nothing goes out while this is true; needs a session.
    paused: Option<bool>,
}

/// Tells `null` from what was left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::<u32>::deserialize(deserializer).map(Some)
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
    caller: &wagate_app::Caller,
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
