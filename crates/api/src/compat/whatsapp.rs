//! The dialect `whatsapp`: `/api/whatsapp/…`, with a tenant's API key.
//!
//! It was made for one account: the session may be left out where the tenant has one only.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::queue::success_rate;
use wagate_app::{
    App, AppError, Caller, DeadLetter, Job, JobState, Message, PageRequest, QueueStanding, Session,
    SettingsChange,
};
use wagate_domain::{MessageState, SessionName};

use super::shapes::status_word;
use crate::envelope::Data;
use crate::error::ApiError;
use crate::extract::{Body, IdempotencyKey, OptionalBody, Params, Tenant};
use crate::router::ApiState;
use crate::routes::queue::{ChangedOut, ClearWord, ConfigOut, StandingWord};
use crate::routes::sessions::check_limit;
use crate::send::{SendIn, SendParams, answer};
use crate::shapes::phone_number;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(send))
        .routes(routes!(retry_queue))
        .routes(routes!(clear))
        .routes(routes!(configure))
        .routes(routes!(status))
}

/// A message as a job of the queue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WhatsappJob {
    #[schema(example = "msg_01jd8w4qk3v5t9x2r7y6m1n0ba")]
    id: String,
    /// The same.
    message_id: String,
    session_id: String,
    #[schema(example = "6289876543210@c.us")]
    chat_id: String,
    /// The text.
    message: Option<String>,
    /// `waiting`, `active`, `completed`, `failed` or `canceled`.
    #[schema(value_type = String, example = "waiting")]
    status: &'static str,
    #[schema(value_type = String, example = "normal")]
    priority: &'static str,
    attempts: u32,
    #[schema(format = DateTime)]
    created_at: String,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Message> for WhatsappJob {
    fn from(message: Message) -> Self {
        let status = match message.state {
            MessageState::Queued => "waiting",
            MessageState::Sending => "active",
            MessageState::Failed | MessageState::Expired => "failed",
            MessageState::Canceled => "canceled",
            MessageState::Sent
            | MessageState::Delivered
            | MessageState::Read
            | MessageState::Played
            | MessageState::Received => "completed",
        };
        let id = message.id.to_string();
        Self {
            message_id: id.clone(),
            id,
            session_id: message.session_name.to_string(),
            chat_id: message.chat.to_string().replace("@s.whatsapp.net", "@c.us"),
            message: message.content.as_text().map(ToOwned::to_owned),
            status,
            priority: message.priority.as_str(),
            attempts: message.attempts,
            created_at: message.at.to_string(),
            next_attempt_at: None,
            error: message.failure.map(|failure| failure.reason),
        }
    }
}

impl From<Job> for WhatsappJob {
    fn from(job: Job) -> Self {
        Self {
            next_attempt_at: Some(job.due.to_string()),
            ..Self::from(job.message)
        }
    }
}

impl From<DeadLetter> for WhatsappJob {
    fn from(dead: DeadLetter) -> Self {
        let job = Self::from(dead.message);
        let error = job.error.clone().or(Some(dead.code));
        Self { error, ..job }
    }
}

/// Queues a text and answers at once.
#[utoipa::path(
    post, path = "/api/whatsapp/send-message", tag = "dialect: whatsapp", operation_id = "whatsapp_send",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and body get the first answer"),
        SendParams,
    ),
    request_body = SendIn,
    responses(
        (status = 200, description = "acknowledged by WhatsApp", body = Data<WhatsappJob>),
        (status = 202, description = "queued", body = Data<WhatsappJob>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn send(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<SendParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<SendIn>,
) -> Result<Response, ApiError> {
    let app = state.app();
    let name = app.meant_session(&caller, body.named_session()).await?.name;
    let request = body
        .at_once(&params)
        .into_request(&name, &params, key, state.options())?;
    let sent = app.send(&caller, &name, request).await?;
    Ok(answer(sent, WhatsappJob::from))
}

/// Which jobs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct RetryQueueParams {
    /// One session; without, all of them.
    #[serde(rename = "sessionId")]
    #[param(rename = "sessionId", value_type = Option<String>, required = false)]
    session_id: Option<SessionName>,
    /// Jobs of each kind at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
}

/// What waits for another attempt, and what has none left.
#[derive(Debug, Serialize, ToSchema)]
struct RetryQueueOut {
    retrying: Vec<WhatsappJob>,
    failed: Vec<WhatsappJob>,
}

/// Lists what waits for another attempt and what failed; `/api/v1/queue` shows more than a page of them.
#[utoipa::path(
    get, path = "/api/whatsapp/retry-queue", tag = "dialect: whatsapp", operation_id = "whatsapp_retry_queue",
    params(RetryQueueParams),
    responses((status = 200, description = "the jobs", body = Data<RetryQueueOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn retry_queue(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<RetryQueueParams>,
) -> Result<Data<RetryQueueOut>, ApiError> {
    let page = PageRequest::first(check_limit(params.limit)?);
    let (app, session) = (state.app(), params.session_id.as_ref());
    let delayed = Some(JobState::Delayed);
    let retrying = app
        .queue_jobs(&caller, session, delayed, page.clone())
        .await?;
    let failed = app.dead_letters(&caller, session, None, page).await?;
    Ok(Data::new(RetryQueueOut {
        retrying: retrying.items.into_iter().map(Into::into).collect(),
        failed: failed.items.into_iter().map(Into::into).collect(),
    }))
}

/// What is to be cleared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WhatsappClearIn {
    /// One session; without, all of them.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    session_id: Option<SessionName>,
    #[serde(alias = "state")]
    #[schema(inline)]
    status: ClearWord,
}

/// Withdraws what waits, never what is being sent; or deletes what failed.
#[utoipa::path(
    post, path = "/api/whatsapp/queue/clear", tag = "dialect: whatsapp", operation_id = "whatsapp_queue_clear",
    request_body = Option<WhatsappClearIn>,
    responses((status = 200, description = "how many", body = Data<ChangedOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn clear(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    OptionalBody(body): OptionalBody<WhatsappClearIn>,
) -> Result<Data<ChangedOut>, ApiError> {
    let session = body.session_id.as_ref();
    let changed = state
        .app()
        .clear_queue(&caller, session, body.status.into())
        .await?;
    Ok(Data::new(changed.into()))
}

/// How the queue is to work.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WhatsappConfigIn {
    /// One session; without, all that have no setting of their own.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "user123-personal")]
    session_id: Option<SessionName>,
    /// Messages on their way at once, at most.
    #[serde(alias = "maxConcurrent")]
    #[schema(minimum = 1, maximum = 20, example = 3)]
    concurrency: u32,
}

/// Sets how many messages are on their way at once. It counts at once, with no restart.
#[utoipa::path(
    post, path = "/api/whatsapp/queue/config", tag = "dialect: whatsapp", operation_id = "whatsapp_queue_config",
    request_body = WhatsappConfigIn,
    responses((status = 200, description = "the settings now", body = Data<ConfigOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn configure(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Body(body): Body<WhatsappConfigIn>,
) -> Result<Data<ConfigOut>, ApiError> {
    let change = SettingsChange {
        concurrency: Some(Some(body.concurrency)),
        ..SettingsChange::default()
    };
    let config = state
        .app()
        .configure_queue(&caller, body.session_id.as_ref(), change)
        .await?;
    Ok(Data::new(config.into()))
}

/// Which session.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct WhatsappStatusParams {
    /// The session; may be left out where there is one only.
    #[serde(rename = "sessionId")]
    #[param(rename = "sessionId", value_type = Option<String>, required = false)]
    session_id: Option<SessionName>,
}

/// Where the session and its queue stand, at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WhatsappStatusOut {
    session_id: String,
    /// `initializing`, `qr_required`, `pairing`, `connected`, `disconnected`, `logged_out` or `error`.
    #[schema(value_type = String, example = "connected")]
    status: &'static str,
    connected: bool,
    #[schema(example = "+6281234567890")]
    phone_number: Option<String>,
    queue_status: StandingWord,
    active_jobs: u64,
    /// Jobs that may be active at once.
    concurrency: u32,
    /// Waiting for their turn, for another attempt, or for their time.
    pending_jobs: u64,
    completed_jobs: u64,
    failed_jobs: u64,
    /// In percent; `null` before anything ended.
    success_rate: Option<f64>,
}

/// Says whether the session is connected, and how its queue does.
#[utoipa::path(
    get, path = "/api/whatsapp/status", tag = "dialect: whatsapp", operation_id = "whatsapp_status",
    params(WhatsappStatusParams),
    responses((status = 200, description = "the status", body = Data<WhatsappStatusOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn status(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<WhatsappStatusParams>,
) -> Result<Data<WhatsappStatusOut>, ApiError> {
    let app = state.app();
    let session = app
        .meant_session(&caller, params.session_id.as_ref())
        .await?;
    Ok(Data::new(shown(app, &caller, &session).await?))
}

async fn shown(
    app: &App,
    caller: &Caller,
    session: &Session,
) -> Result<WhatsappStatusOut, ApiError> {
    let page = PageRequest::first(1);
    let figures = app.queue_figures(caller, Some(&session.name), page).await?;
    // Deleted between the two looks.
    let found = figures.sessions.items.first();
    let found = found.ok_or_else(AppError::session_not_found)?;
    let queue = &found.queue;
    let word = status_word(session);
    Ok(WhatsappStatusOut {
        session_id: session.name.to_string(),
        status: word,
        connected: word == "connected",
        phone_number: phone_number(session),
        queue_status: QueueStanding::of(found).into(),
        active_jobs: queue.active,
        concurrency: found.settings.concurrency.unwrap_or(figures.concurrency),
        pending_jobs: queue.waiting + queue.delayed + queue.scheduled,
        completed_jobs: queue.completed,
        failed_jobs: queue.failed,
        success_rate: success_rate(queue),
    })
}
