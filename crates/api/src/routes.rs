//! The canonical routes, one noun a file.

pub(crate) mod api_keys;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod links;
pub(crate) mod messages;
pub(crate) mod pacing;
pub(crate) mod queue;
pub(crate) mod sessions;
