//! Path segments. One that cannot name anything is "not found", like one that names nothing.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use wagate_app::{AppError, Code};
use wagate_domain::{ApiKeyId, MessageId, SessionName};

use crate::error::ApiError;
use crate::router::ApiState;

/// The `{session}` of a path: what the tenant calls the session.
#[derive(Debug)]
pub(crate) struct SessionPath(pub(crate) SessionName);

/// The `{message}` of a path.
#[derive(Debug)]
pub(crate) struct MessagePath(pub(crate) MessageId);

/// The `{key}` of a path.
#[derive(Debug)]
pub(crate) struct ApiKeyPath(pub(crate) ApiKeyId);

async fn only_segment(parts: &mut Parts, state: &ApiState) -> String {
    match Path::<String>::from_request_parts(parts, state).await {
        Ok(Path(text)) => text,
        Err(_) => String::new(),
    }
}

impl FromRequestParts<ApiState> for SessionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        SessionName::parse(&only_segment(parts, state).await)
            .map(Self)
            .map_err(|_| AppError::session_not_found().into())
    }
}

impl FromRequestParts<ApiState> for MessagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        MessageId::parse(&only_segment(parts, state).await)
            .map(Self)
            .map_err(|_| AppError::message_not_found().into())
    }
}

impl FromRequestParts<ApiState> for ApiKeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        ApiKeyId::parse(&only_segment(parts, state).await)
            .map(Self)
            .map_err(|_| ApiError::new(Code::ApiKeyNotFound, "there is no such API key"))
    }
}
