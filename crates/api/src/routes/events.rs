//! `/api/v1/events`: what happened, from a cursor on.

use axum::extract::State;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{Code, EventsRequest};
use wagate_domain::limits::PAGE_ROWS_DEFAULT;
use wagate_domain::{Event, EventSeq};

use super::sessions::check_limit;
use crate::envelope::List;
use crate::error::ApiError;
use crate::extract::{Params, Tenant};
use crate::router::ApiState;
use crate::send::read_wait;
use crate::shapes::EventOut;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct EventsParams {
    /// Events behind this one; 0 or nothing begins with the oldest that is kept.
    #[param(minimum = 0, required = false)]
    after: Option<i64>,
    /// Events at most.
    #[param(minimum = 1, maximum = 200, required = false)]
    limit: Option<u32>,
    /// Seconds to wait for the first event.
    #[param(maximum = 60, required = false)]
    wait: Option<u64>,
    /// Names of events, separated by commas, such as `message.received,message.status`.
    #[param(required = false)]
    types: Option<String>,
}

/// Reads events in order; waits for the first one where the caller wants that.
///
/// `page.next` is the cursor for the next call, also when there was nothing.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "events", operation_id = "event_list",
    params(EventsParams),
    responses((status = 200, description = "events in order", body = List<EventOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Params(params): Params<EventsParams>,
) -> Result<List<EventOut>, ApiError> {
    let after = params.after.unwrap_or(0);
    if after < 0 {
        return Err(ApiError::field(
            Code::InvalidField,
            "after",
            "must not be negative",
        ));
    }
    let limit = match check_limit(params.limit)? {
        0 => PAGE_ROWS_DEFAULT,
        limit => limit,
    };
    let types = read_types(params.types.as_deref().unwrap_or_default())?;
    let request = EventsRequest {
        after: EventSeq(after),
        limit,
        types,
        wait: read_wait(params.wait)?.unwrap_or_default(),
    };
    let events = state.app().events(&caller, request).await?;
    let next = events.last().map_or(after, |event| event.seq.0);
    Ok(List::new(
        events.into_iter().map(EventOut::from).collect(),
        Some(next.to_string()),
    ))
}

/// The names in a list; a name that no event has would wait for ever.
fn read_types(list: &str) -> Result<Vec<String>, ApiError> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            if Event::NAMES.contains(&name) {
                return Ok(name.to_owned());
            }
            let message = format!("must be names out of: {}", Event::NAMES.join(", "));
            Err(ApiError::field(Code::InvalidField, "types", message))
        })
        .collect()
}
