//! Strict JSON bodies: a wrong or unknown field is refused with its path.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use wagate_app::Code;

use super::wording::complaint;
use crate::error::ApiError;
use crate::router::ApiState;

/// How long a client may take to send its body.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body that may be left out; then the default stands.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if !is_json {
            return Err(not_json());
        }
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<ApiState> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if matches!(bytes.trim_ascii(), b"" | b"null") {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(not_json());
        }
        parse(&bytes).map(Self)
    }
}

async fn read(request: Request, state: &ApiState) -> Result<Bytes, ApiError> {
    let body = tokio::time::timeout(BODY_WAIT, Bytes::from_request(request, state)).await;
    let body = body.map_err(|_| {
        ApiError::new(
            Code::RequestTimeout,
            "the body of the request did not arrive in time",
        )
    })?;
    body.map_err(|rejection| {
        if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new(
                Code::BodyTooLarge,
                format!(
                    "the body is larger than {} bytes",
                    state.options().body_bytes_max
                ),
            )
        } else {
            ApiError::new(
                Code::MalformedJson,
                "the body of the request could not be read",
            )
        }
    })
}

fn not_json() -> ApiError {
    ApiError::new(
        Code::UnsupportedMediaType,
        "send JSON, with `Content-Type: application/json`",
    )
}

/// Reads a field that may be `null`, and tells that from one that was left out; goes with `default`.
pub(crate) fn given<'de, D, T>(input: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(input).map(Some)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str())
    else {
        return false;
    };
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde reads an array as a struct whose fields stand in order, which nobody means; of the rest it
    // would complain with the struct's name, which nobody knows.
    if bytes.trim_ascii_start().first() != Some(&b'{')
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    {
        return Err(ApiError::field(
            Code::InvalidField,
            "body",
            "must be a JSON object",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // A number where a word out of a list stands is reported as if the text were broken.
        let is_whole = || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        if !error.inner().is_data() && path != "." && is_whole() {
            return ApiError::field(Code::InvalidField, path, "must be one of its words");
        }
        refusal(path, error.inner())
    })?;
    json.end().map_err(|error| refusal(String::new(), &error))?;
    Ok(value)
}

fn refusal(path: String, error: &serde_json::Error) -> ApiError {
    if !error.is_data() {
        return ApiError::new(
            Code::MalformedJson,
            format!("the body is not valid JSON: {}", without_position(error)),
        );
    }
    let complaint = complaint(&without_position(error));
    let path = match complaint.field {
        Some(field) if path == "." => field,
        Some(field) if path != field && !path.ends_with(&format!(".{field}")) => {
            format!("{path}.{field}")
        }
        _ if path == "." => "body".to_owned(),
        _ => path,
    };
    ApiError::field(Code::InvalidField, path, complaint.sentence)
}

/// The message of `serde_json` without its line and column, which say nothing about one-line bodies.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
