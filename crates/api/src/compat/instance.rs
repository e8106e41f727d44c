//! The dialect `instance`, with a tenant's API key: the length of its queues.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::PageRequest;

use crate::envelope::Data;
use crate::error::ApiError;
use crate::extract::Tenant;
use crate::router::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(queue_stats))
}

/// How many messages are where, over all sessions of the tenant.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceQueueStats {
    waiting: u64,
    active: u64,
    completed: u64,
    failed: u64,
    /// Waiting for another attempt, or for their time.
    delayed: u64,
}

/// Counts the messages in the queues of all sessions.
#[utoipa::path(
    get, path = "/api/admin/queue-stats", tag = "dialect: instance", operation_id = "instance_queue_stats",
    responses((status = 200, description = "the counts", body = Data<InstanceQueueStats>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn queue_stats(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
) -> Result<Data<InstanceQueueStats>, ApiError> {
    let page = PageRequest::first(1);
    let queue = state.app().queue_figures(&caller, None, page).await?.total;
    Ok(Data::new(InstanceQueueStats {
        waiting: queue.waiting,
        active: queue.active,
        completed: queue.completed,
        failed: queue.failed,
        delayed: queue.delayed + queue.scheduled,
    }))
}
