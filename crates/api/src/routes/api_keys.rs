//! `/api/v1/api-keys`: the tenant's own keys.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_domain::Timestamp;

use crate::envelope::{Done, List, with_status};
use crate::error::ApiError;
use crate::extract::{ApiKeyPath, Body, Tenant};
use crate::router::ApiState;
use crate::shapes::ApiKeyOut;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateKeyIn {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100, example = "shop backend")]
    name: String,
    /// When it stops working; without, never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A new key.
#[derive(Debug, Serialize, ToSchema)]
struct NewKeyOut {
    #[serde(flatten)]
    key: ApiKeyOut,
    /// The key itself. It is shown here and never again.
    secret: String,
}

/// Makes a key. Its secret is in this answer only.
#[utoipa::path(
    post, path = "/api/v1/api-keys", tag = "api-keys", operation_id = "api_key_create",
    request_body = CreateKeyIn,
    responses((status = 201, description = "the key", body = crate::envelope::Data<NewKeyOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn create(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    Body(body): Body<CreateKeyIn>,
) -> Result<Response, ApiError> {
    let (key, secret) = state
        .app()
        .create_api_key(&caller, body.name, body.expires_at)
        .await?;
    Ok(with_status(
        StatusCode::CREATED,
        NewKeyOut {
            key: key.into(),
            secret,
        },
    ))
}

/// Lists the keys, without their secrets.
#[utoipa::path(
    get, path = "/api/v1/api-keys", tag = "api-keys", operation_id = "api_key_list",
    responses((status = 200, description = "the keys", body = List<ApiKeyOut>)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn list(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
) -> Result<List<ApiKeyOut>, ApiError> {
    let keys = state.app().api_keys(&caller).await?;
    Ok(List::new(
        keys.into_iter().map(ApiKeyOut::from).collect(),
        None,
    ))
}

/// Revokes a key: it works no longer.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{key}", tag = "api-keys", operation_id = "api_key_revoke",
    params(("key" = String, Path, description = "the key's id")),
    responses((status = 200, description = "revoked", body = Done)),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn revoke(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    ApiKeyPath(key): ApiKeyPath,
) -> Result<Done, ApiError> {
    state.app().revoke_api_key(&caller, &key).await?;
    Ok(Done::new("API key revoked"))
}
