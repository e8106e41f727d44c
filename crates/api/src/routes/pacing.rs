//! `/api/v1/sessions/{session}/pacing`: how fast a session sends, and what WhatsApp asked of it.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::SessionPacing;
use wagate_domain::pacing::{Hold, PacingPatch, Pause};

use crate::envelope::Data;
use crate::error::ApiError;
use crate::extract::{Body, SessionPath, Tenant, given};
use crate::router::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(read, configure))
}

/// How a session is paced, how far it has used its limits, and what waits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PacingOut {
    /// Without it no limit counts; what WhatsApp asks for does.
    enabled: bool,
    /// The least time between two messages, in milliseconds.
    #[schema(example = 1000)]
    gap_ms: u64,
    /// Up to this share of the gap more, by chance.
    #[schema(example = 100)]
    gap_jitter_percent: u32,
    /// Messages in any 60 seconds; `null`: no limit.
    #[schema(example = 30)]
    per_minute: Option<u32>,
    /// Messages in any 24 hours; `null`: no limit.
    #[schema(example = 2000)]
    per_day: Option<u32>,
    /// First messages to people with whom there was no message yet, in any 24 hours; `null`: no limit.
    #[schema(example = 200)]
    strangers_per_day: Option<u32>,
    /// The days after the first link in which a number's share of a day's budgets grows to all of it.
    #[schema(example = 14)]
    warm_up_days: u32,
    /// The share on the first of these days.
    #[schema(example = 10)]
    warm_up_start_percent: u32,
    /// Shows "typing" before a text.
    typing: bool,
    /// The names of the settings that were changed for this session; the rest are the operator's.
    changed: Vec<String>,
    used: UsedOut,
    /// Why no message goes out now, if none does.
    waits: Option<HoldOut>,
    /// Why no first message to a stranger goes out now, if none does.
    strangers_wait: Option<HoldOut>,
    /// What WhatsApp asked for; empty when it did not.
    pauses: Vec<PauseOut>,
}

/// How much of the limits is used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsedOut {
    /// Messages of the last 60 seconds.
    minute: u64,
    /// Messages of the last 24 hours.
    day: u64,
    /// Of these, first messages to strangers.
    strangers: u64,
    /// The share of both budgets of a day that the number's age gives it.
    warm_up_percent: u32,
}

/// What holds messages back, and until when.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HoldOut {
    /// `gap`, `per_minute`, `per_day`, `strangers_per_day`, or the reason of a pause.
    #[schema(value_type = String, example = "per_day")]
    reason: &'static str,
    #[schema(format = DateTime)]
    until: String,
}

/// A pause that WhatsApp caused. Messages stay queued.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PauseOut {
    /// `all`, or `new_chats`: first messages to strangers; known chats go on.
    #[schema(value_type = String, example = "new_chats")]
    scope: &'static str,
    /// `reach_out_limited`, `new_chats_capped`, `rate_limited` or `banned`.
    #[schema(value_type = String, example = "reach_out_limited")]
    reason: &'static str,
    /// The same in a sentence.
    #[schema(value_type = String)]
    text: &'static str,
    #[schema(format = DateTime)]
    since: String,
    /// The end: as WhatsApp named it, or a guess that doubles while it was too short.
    #[schema(format = DateTime)]
    until: String,
}

impl From<Hold> for HoldOut {
    fn from(hold: Hold) -> Self {
        Self {
            reason: hold.why.as_str(),
            until: hold.until.to_string(),
        }
    }
}

impl From<Pause> for PauseOut {
    fn from(pause: Pause) -> Self {
        Self {
            scope: pause.scope.as_str(),
            reason: pause.reason.as_str(),
            text: pause.reason.text(),
            since: pause.since.to_string(),
            until: pause.until.to_string(),
        }
    }
}

impl From<SessionPacing> for PacingOut {
    fn from(pacing: SessionPacing) -> Self {
        let (minute, day, strangers) = pacing.used;
        let rules = pacing.rules;
        Self {
            enabled: rules.enabled,
            gap_ms: u64::try_from(rules.gap.as_millis()).unwrap_or(u64::MAX),
            gap_jitter_percent: rules.gap_jitter_percent,
            per_minute: rules.per_minute,
            per_day: rules.per_day,
            strangers_per_day: rules.strangers_per_day,
            warm_up_days: rules.warm_up_days,
            warm_up_start_percent: rules.warm_up_start_percent,
            typing: rules.typing,
            changed: names(&pacing.changed),
            used: UsedOut {
                minute,
                day,
                strangers,
                warm_up_percent: pacing.share_percent,
            },
            waits: pacing.permit.all.map(Into::into),
            strangers_wait: pacing.permit.strangers.map(Into::into),
            pauses: pacing.pauses.into_iter().map(Into::into).collect(),
        }
    }
}

/// What a patch names; its own words are the ones of this interface.
fn names(patch: &PacingPatch) -> Vec<String> {
    match serde_json::to_value(patch) {
        Ok(serde_json::Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// What to change; the rest stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PacingIn {
    /// Drops what was changed before: what this request does not name is the operator's again.
    reset: bool,
    enabled: Option<bool>,
    #[schema(minimum = 0, maximum = 3_600_000, example = 1500)]
    gap_ms: Option<u64>,
    #[schema(minimum = 0, maximum = 100)]
    gap_jitter_percent: Option<u32>,
    /// `null` takes the limit away.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 6000)]
    per_minute: Option<Option<u32>>,
    /// `null` takes the limit away.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    per_day: Option<Option<u32>>,
    /// `null` takes the limit away.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    strangers_per_day: Option<Option<u32>>,
    #[schema(minimum = 0, maximum = 90)]
    warm_up_days: Option<u32>,
    #[schema(minimum = 1, maximum = 100)]
    warm_up_start_percent: Option<u32>,
    typing: Option<bool>,
}

/// Reads how a session is paced, how far it has used its limits, and whether it is paused.
#[utoipa::path(
    get, path = "/api/v1/sessions/{session}/pacing", tag = "sessions", operation_id = "pacing_read",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 200, description = "the pacing", body = Data<PacingOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
) -> Result<Data<PacingOut>, ApiError> {
    let pacing = state.app().pacing(&caller, &name).await?;
    Ok(Data::new(pacing.into()))
}

/// Changes how a session is paced. Counts from the next message on; what waits stays queued.
#[utoipa::path(
    patch, path = "/api/v1/sessions/{session}/pacing", tag = "sessions", operation_id = "pacing_configure",
    params(("session" = String, Path, description = "the session's id")),
    request_body = PacingIn,
    responses((status = 200, description = "the pacing now", body = Data<PacingOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn configure(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Body(body): Body<PacingIn>,
) -> Result<Data<PacingOut>, ApiError> {
    let change = PacingPatch {
        enabled: body.enabled,
        gap_ms: body.gap_ms,
        gap_jitter_percent: body.gap_jitter_percent,
        per_minute: body.per_minute,
        per_day: body.per_day,
        strangers_per_day: body.strangers_per_day,
        warm_up_days: body.warm_up_days,
        warm_up_start_percent: body.warm_up_start_percent,
        typing: body.typing,
    };
    let app = state.app();
    let pacing = app
        .configure_pacing(&caller, &name, body.reset, change)
        .await?;
    Ok(Data::new(pacing.into()))
}
