//! The `Idempotency-Key` header.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use wagate_app::Code;
use wagate_domain::limits::IDEMPOTENCY_KEY_MAX;

use crate::error::ApiError;
use crate::router::ApiState;

/// The key with which a client makes a repeat recognisable, if it sent one.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequestParts<ApiState> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let bytes = value.as_bytes();
        let fits = (1..=IDEMPOTENCY_KEY_MAX).contains(&bytes.len())
            && bytes.iter().all(u8::is_ascii_graphic)
            && values.next().is_none();
        if !fits {
            return Err(ApiError::field(
                Code::InvalidField,
                "Idempotency-Key",
                format!("must be one value of 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters"),
            ));
        }
        Ok(Self(Some(String::from_utf8_lossy(bytes).into_owned())))
    }
}
