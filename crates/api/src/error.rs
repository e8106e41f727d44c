//! [`ApiError`], the only type that becomes a failing response.
//!
//! Its body is `{"success": false, "error", "code", "details"?, "data"?, "requestId"}`. The request id is
//! known to the middleware only, so the response leaves the handler with the error as an extension and
//! [`crate::middleware::observe`] writes the body. A 5xx never carries internal text.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wagate_app::{AppError, Code, Detail};
use wagate_domain::plant;

use crate::shapes::MessageOut;

/// A failing answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    data: Option<Value>,
    retry_after_secs: Option<u32>,
}

/// The status that goes with a code: one table for every surface.
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::IdempotencyConflict if plant::is("conflict_is_500") => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Code::InvalidRecipient | Code::MalformedJson => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::ApiKeyNotFound
        | Code::MessageNotFound
        | Code::NotFound
        | Code::SessionNotFound
        | Code::TenantNotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::ClientOutdated
        | Code::IdempotencyConflict
        | Code::LinkFailed
        | Code::MessageNotCancelable
        | Code::MessageNotRetryable
        | Code::QrNotAvailable
        | Code::SessionAlreadyLinked
        | Code::SessionAmbiguous
        | Code::SessionBanned
        | Code::SessionExists
        | Code::SessionNotLinked
        | Code::SessionReplaced
        | Code::SessionStopped
        | Code::TenantExists => StatusCode::CONFLICT,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidField
        | Code::MessageExpired
        | Code::RecipientBlocked
        | Code::RecipientNotRegistered
        | Code::SendFailed
        | Code::UnsupportedRecipient
        | Code::UnsupportedType => StatusCode::UNPROCESSABLE_ENTITY,
        Code::LimitReached | Code::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        Code::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        Code::DatabaseUnavailable | Code::LinkTimeout | Code::Overloaded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::SendUnconfirmed => StatusCode::GATEWAY_TIMEOUT,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// The body of every failing answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// Always `false`.
    #[schema(example = false)]
    success: bool,
    /// One clear sentence.
    error: String,
    /// A stable machine word.
    #[schema(example = "invalid_field")]
    code: &'static str,
    /// What is wrong, and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<ErrorDetail>,
    /// The message that failed, where one was accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    /// The id under which the log has this request.
    request_id: String,
}

/// One thing that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    #[schema(example = "to")]
    path: String,
    message: String,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            data: None,
            retry_after_secs: None,
        }
    }

    /// Refuses one field, naming it in the sentence and in `details`.
    pub(crate) fn field(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        AppError::field(code, path, message).into()
    }

    pub(crate) fn internal() -> Self {
        Self::new(Code::InternalError, "something went wrong on our side")
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Writes the body, with the id that only the middleware knows.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let body = ErrorBody {
            success: false,
            error: self.message.clone().into_owned(),
            code: self.code.as_str(),
            details: self
                .details
                .iter()
                .map(|detail| ErrorDetail {
                    path: detail.path.clone(),
                    message: detail.message.clone(),
                })
                .collect(),
            data: self.data.clone(),
            request_id: request_id.to_owned(),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        let code = error.code();
        let message = error.to_string();
        match error {
            AppError::Refused { details, .. } => {
                let retry_after_secs =
                    (status_of(code) == StatusCode::TOO_MANY_REQUESTS).then_some(60);
                Self {
                    details,
                    retry_after_secs,
                    ..Self::new(code, message)
                }
            }
            AppError::SendFailed { sent, .. } => {
                let data = serde_json::to_value(MessageOut::from(*sent)).ok();
                Self {
                    data,
                    ..Self::new(code, message)
                }
            }
            AppError::Unavailable {
                retry_after_secs,
                source,
                ..
            } => {
                let cause = source.as_ref().map(|source| chain(source));
                tracing::warn!(error.code = %code, error = cause, "not available");
                Self {
                    retry_after_secs: Some(retry_after_secs),
                    ..Self::new(code, message)
                }
            }
            AppError::StorageFull(source) => {
                tracing::error!(error = chain(&source), "the storage is full");
                Self::new(code, message)
            }
            AppError::Internal(source) => {
                tracing::error!(error = chain(source.as_ref()), "a use case failed");
                Self::internal()
            }
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status_of(self.code);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}
