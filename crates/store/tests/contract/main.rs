//! The contract of the store: every function on SQLite and on PostgreSQL, from one text.
//!
//! `contract!(name)` makes `sqlite::name` and `postgres::name`. The latter needs a server, whose URL is
//! in `WAGATE_TEST_POSTGRES_URL`; each test gets a schema of its own there.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

#[macro_use]
mod support;

mod accept;
mod api_keys;
mod bus;
mod commit;
mod dead_letters;
mod device_state;
mod faults;
mod inbound;
mod killed;
mod leases;
mod locks;
mod migrations;
mod neighbours;
mod outbox;
mod pacing;
mod places;
mod queue;
mod queue_admin;
mod queue_lists;
mod queue_races;
mod queue_settings;
mod resends;
mod sessions;
mod states;
mod tenancy;
mod turns;
mod workers;
