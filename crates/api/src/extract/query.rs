//! Query parameters; what is wrong with one is said in the usual form.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wagate_app::Code;

use crate::error::ApiError;
use crate::router::ApiState;

/// The query of a request.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(refusal(&rejection.body_text())),
        }
    }
}

/// `Failed to deserialize query string: limit: invalid digit found in string` is axum's form.
fn refusal(text: &str) -> ApiError {
    let text = text
        .rsplit_once("query string: ")
        .map_or(text, |(_, rest)| rest);
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| text.split_once(start))
        .and_then(|(_, rest)| rest.split_once('`'))
        .map(|(field, _)| (field, text));
    let (path, why) = named
        .or_else(|| text.split_once(": "))
        .unwrap_or(("query", text));
    ApiError::field(
        Code::InvalidField,
        path,
        format!("(in the query) is refused: {why}"),
    )
}
