//! Extractors whose refusals are [`crate::ApiError`]s that name what is wrong.

mod auth;
mod json;
mod key;
mod path;
mod query;
mod wording;

pub(crate) use auth::{Tenant, WorkerToken, bearer, same_secret};
pub(crate) use json::{Body, OptionalBody, given};
pub(crate) use key::IdempotencyKey;
pub(crate) use path::{ApiKeyPath, MessagePath, SessionPath};
pub(crate) use query::Params;
