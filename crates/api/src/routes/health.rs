//! Liveness, readiness and metrics.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::Code;

use crate::compat::WorkerHealth;
use crate::envelope::Data;
use crate::error::ApiError;
use crate::extract::{bearer, same_secret};
use crate::router::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
struct HealthOut {
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    #[schema(format = DateTime)]
    timestamp: String,
}

/// One of the two forms.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum HealthAnswer {
    Plain(HealthOut),
    Worker(Data<WorkerHealth>),
}

/// Says that the process lives; with the worker token, in the worker's form and with its figures.
///
/// A tenant's API key changes nothing; a bearer token that nobody knows is refused.
#[utoipa::path(
    get, path = "/health", tag = "operations", operation_id = "health",
    responses(
        (status = 200, description = "alive", body = HealthAnswer),
    ),
    security((), ("workerToken" = [])),
)]
async fn health(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Json<HealthAnswer>, ApiError> {
    if headers.contains_key(header::AUTHORIZATION) {
        let given = bearer(&headers).unwrap_or_default();
        let worker_token = state.options().worker_token.as_deref();
        if worker_token.is_some_and(|wanted| same_secret(given, wanted)) {
            let figures = Data::new(WorkerHealth::of(&state));
            return Ok(Json(HealthAnswer::Worker(figures)));
        }
        // A database that is away cannot tell whose token it is, and does not make the process dead.
        if let Ok(None) = state.app().authenticate(given).await {
            let message = "the bearer token is neither the worker token nor a valid API key";
            return Err(ApiError::new(Code::Unauthorized, message));
        }
    }
    let timestamp = state.app().now().to_string();
    Ok(Json(HealthAnswer::Plain(HealthOut {
        status: "ok",
        timestamp,
    })))
}

/// Whether the process can do its work.
#[derive(Debug, Serialize, ToSchema)]
struct ReadyOut {
    success: bool,
    /// `ready` or `not_ready`.
    #[schema(value_type = String, example = "ready")]
    status: &'static str,
    /// Each thing that must hold.
    #[schema(value_type = Object)]
    checks: BTreeMap<&'static str, bool>,
}

/// Says whether the process can do its work; 503 while it cannot.
#[utoipa::path(
    get, path = "/ready", tag = "operations", operation_id = "ready",
    responses(
        (status = 200, description = "ready", body = ReadyOut),
        (status = 503, description = "not ready", body = ReadyOut),
    ),
)]
async fn ready(State(state): State<ApiState>) -> Response {
    let mut checks: BTreeMap<_, _> = (state.options().ready)()
        .into_iter()
        .map(|check| (check.name, check.ready))
        .collect();
    checks.insert("database", state.app().ready().await.is_ok());
    let success = checks.values().all(|ready| *ready);
    let (code, status) = if success {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (
        code,
        Json(ReadyOut {
            success,
            status,
            checks,
        }),
    )
        .into_response()
}

/// Shows the metrics in Prometheus' text form; needs the metrics token or the worker token.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics",
    responses((status = 200, description = "the metrics", body = String, content_type = "text/plain")),
    security(("workerToken" = [])),
)]
async fn metrics(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, ApiError> {
    let options = state.options();
    let wanted = [
        options.metrics_token.as_deref(),
        options.worker_token.as_deref(),
    ];
    let given = bearer(&headers).unwrap_or_default();
    // Both are compared, so that the time does not tell which one was nearly right.
    let opened = wanted
        .into_iter()
        .flatten()
        .filter(|wanted| same_secret(given, wanted))
        .count();
    if opened == 0 {
        let message = "send the metrics token as `Authorization: Bearer`";
        return Err(ApiError::new(Code::Unauthorized, message));
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, (options.metrics)()).into_response())
}
