//! Query parameters; what is wrong with one is said in the usual form.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wagate_app::Code;

use super::wording::complaint;
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
        .split_once("query string: ")
        .map_or(text, |(_, rest)| rest);
    let whole = complaint(text);
    let (path, sentence) = match (whole.field, text.split_once(": ")) {
        (Some(field), _) => (field, whole.sentence),
        (None, Some((path, why))) => {
            let part = complaint(why);
            (part.field.unwrap_or_else(|| path.to_owned()), part.sentence)
        }
        (None, None) => ("query".to_owned(), whole.sentence),
    };
    ApiError::field(
        Code::InvalidField,
        path,
        format!("(in the query) {sentence}"),
    )
}
