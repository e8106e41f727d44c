//! The shape of every answer, and the extractors that turn bad input into it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::faults::FaultError;
use crate::world::WorldError;

/// A success with its data.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Success<T> {
    /// Always true.
    pub success: bool,
    pub data: T,
}

/// A failure as it goes out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Always false.
    pub success: bool,
    /// What is wrong, in words, with the name of the field.
    pub error: String,
    /// What is wrong, as a stable word.
    pub code: String,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// The answer of a handler.
pub(super) type Answer<T> = Result<Json<Success<T>>, ControlError>;

/// Wraps a handler's data.
pub(super) fn done<T>(data: T) -> Answer<T> {
    Ok(Json(Success {
        success: true,
        data,
    }))
}

impl ControlError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// 404: there is no such thing.
    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 422: a field's value cannot be used.
    pub(super) fn invalid(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            format!("{field}: {reason}"),
        )
    }

    /// 409: not in the present state.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 504: what was waited for did not happen in time.
    pub(super) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let body = Failure {
            success: false,
            error: self.message,
            code: self.code.to_owned(),
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<FaultError> for ControlError {
    fn from(error: FaultError) -> Self {
        Self::invalid(error.field, error.reason)
    }
}

impl From<WorldError> for ControlError {
    fn from(error: WorldError) -> Self {
        let text = error.to_string();
        match error {
            WorldError::UnknownAccount(_) => Self::not_found("account_not_found", text),
            WorldError::UnknownDevice { .. } => Self::not_found("device_not_found", text),
            WorldError::Taken(_) => Self::conflict("taken", text),
            WorldError::BadPhone(_) => Self::invalid("phone", text),
            WorldError::UnknownReference => Self::conflict("nobody_waits", text),
            _ => Self::conflict("refused", text),
        }
    }
}

/// A JSON body; what is wrong with it is told by the path of the field.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ControlError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ControlError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "the body must be JSON, with the header `content-type: application/json`",
            )),
            Err(JsonRejection::JsonSyntaxError(error)) => Err(ControlError::new(
                StatusCode::BAD_REQUEST,
                "not_json",
                cause(&error),
            )),
            Err(error @ JsonRejection::BytesRejection(_)) => Err(ControlError::new(
                error.status(),
                "unreadable",
                error.body_text(),
            )),
            Err(error) => Err(ControlError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                cause(&error),
            )),
        }
    }
}

/// The query string.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ControlError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(params)| Self(params))
            .map_err(|error: QueryRejection| {
                ControlError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", cause(&error))
            })
    }
}

/// The variable parts of the path.
#[derive(Debug)]
pub(super) struct Place<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Place<T> {
    type Rejection = ControlError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(place)| Self(place))
            .map_err(|error: PathRejection| {
                ControlError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", cause(&error))
            })
    }
}

pub(super) async fn no_such_path(request: Request) -> ControlError {
    let path = request.uri().path();
    let text = format!("there is no {path}; /control/openapi.json lists what there is");
    ControlError::not_found("no_such_path", text)
}

pub(super) async fn wrong_method(request: Request) -> ControlError {
    let text = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    ControlError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", text)
}

/// The innermost cause: axum's own wrapper only repeats that the body is wrong.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        // serde_json's error below the path-aware one has no path.
        if inner.to_string().ends_with(&source.to_string())
            && inner.to_string() != source.to_string()
        {
            return inner.to_string();
        }
        inner = source;
    }
    inner.to_string()
}
