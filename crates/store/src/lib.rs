//! Everything that survives or crosses a process: tables, outbox, queue, leases, device state, bus.
//!
//! | module | what it holds |
//! |---|---|
//! | [`db`] | opening, migrating, and the two ways in: [`Db::write`] and [`Db::read`] |
//! | [`tenants`], [`api_keys`], [`workers`] | who may call, who runs sessions |
//! | [`sessions`], [`leases`] | desired and observed state; the fenced right to run a session (SL-1) |
//! | [`messages`], [`queue`] | both directions; what still has to be sent, in order (MP-1 to MP-5, IN-1) |
//! | [`pacing`] | how far a session has used its limits, and what WhatsApp asked of it |
//! | [`outbox`] | the events of tenants, without gaps (EV-1) |
//! | [`device_state`] | the engine's sealed keys (SL-2) |
//! | [`seal`] | the master key |
//! | [`bus`] | wake-ups between tasks and processes; may lose |
//!
//! A store function is plain synchronous code over `&mut Tx`; it takes a tenant or a lease (TN-1), and
//! the time from its caller. No other crate names `rusqlite` or `postgres`.

pub mod api_keys;
pub mod bus;
pub mod db;
pub mod device_state;
pub mod error;
pub mod idempotency;
pub mod leases;
pub mod messages;
pub mod outbox;
pub mod pacing;
pub mod page;
pub mod queue;
pub mod seal;
pub mod sessions;
pub mod tenants;
pub mod workers;

pub use db::{Db, DbOptions, Dialect, MigrationReport, Tx, When};
pub use error::StoreError;
pub use leases::Lease;
pub use page::{Page, PageRequest};
pub use seal::{MasterKey, Sealer};
