//! The HTTP surface, in process on SQLite: shapes, statuses, credentials, limits. The tests play the
//! worker themselves, by the store's functions; WhatsApp is not here.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking, as the test does"
)]

mod api_keys;
mod coverage;
mod dialect_gateway;
mod dialect_whatsapp;
mod dialect_worker;
mod errors;
mod events;
mod health;
mod links;
mod logs;
mod messages;
mod pacing;
mod queue;
mod sessions;
mod support;
