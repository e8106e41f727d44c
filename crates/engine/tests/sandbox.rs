//! A device of this engine against the simulated network: link, send, receive, and every way to end.
//!
//! Each test ends with the network's own judgement over what crossed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "sandbox/endings.rs"]
mod endings;
#[path = "support/harness.rs"]
mod harness;
#[path = "sandbox/linking.rs"]
mod linking;
#[path = "sandbox/receiving.rs"]
mod receiving;
#[path = "sandbox/sending.rs"]
mod sending;
#[path = "sandbox/trouble.rs"]
mod trouble;
