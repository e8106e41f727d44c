//! Who calls. A handler that takes [`Tenant`] or [`WorkerToken`] cannot be reached without.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;
use wagate_app::{Caller, Code};

use crate::error::ApiError;
use crate::router::ApiState;

/// A caller with a tenant's API key, in `x-api-key` or as `Authorization: Bearer`.
#[derive(Debug)]
pub(crate) struct Tenant(pub(crate) Caller);

/// A backend with the worker token, acting for the tenant that the configuration names.
#[derive(Debug)]
pub(crate) struct WorkerToken(pub(crate) Caller);

fn unauthorized(message: &'static str) -> ApiError {
    ApiError::new(Code::Unauthorized, message)
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that does not depend on where the two differ.
pub(crate) fn same_secret(given: &str, wanted: &str) -> bool {
    given.as_bytes().ct_eq(wanted.as_bytes()).into()
}

impl FromRequestParts<ApiState> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let secret = match parts.headers.get("x-api-key") {
            Some(value) => value.to_str().ok(),
            None => bearer(&parts.headers),
        };
        let secret = secret.ok_or_else(|| {
            unauthorized("send an API key as `x-api-key` or as `Authorization: Bearer`")
        })?;
        let caller = state.app().authenticate(secret).await?;
        caller
            .map(Self)
            .ok_or_else(|| unauthorized("the API key is not valid"))
    }
}

impl FromRequestParts<ApiState> for WorkerToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let given = bearer(&parts.headers)
            .ok_or_else(|| unauthorized("send the worker token as `Authorization: Bearer`"))?;
        let wanted = state.options().worker_token.as_deref();
        if !wanted.is_some_and(|wanted| same_secret(given, wanted)) {
            return Err(unauthorized("the worker token is not valid"));
        }
        Ok(Self(state.app().worker_caller().await?))
    }
}
