//! Workers against the simulated network: leases, lost wake-ups, order, stopping.
//!
//! What a caller of the API sees is tested end to end; here is what only a worker's own interface shows.
//! Each test ends with the network's judgement over what crossed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "sandbox/harness.rs"]
mod harness;
#[path = "sandbox/holding.rs"]
mod holding;
#[path = "sandbox/leases.rs"]
mod leases;
#[path = "sandbox/messages.rs"]
mod messages;
#[path = "sandbox/pacing.rs"]
mod pacing;
#[path = "sandbox/supervising.rs"]
mod supervising;
