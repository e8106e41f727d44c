//! End-to-end tests: the gateway as users run it, through HTTP, against the simulated network.
//!
//! One file a capability. Every test ends with the network's checkers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers fail by panicking, as tests do"
)]

mod cluster;
mod command_line;
mod crash;
mod dialects;
mod disk;
mod failover;
mod first_message;
mod pacing;
mod pairing;
mod postgres;
mod production;
mod queue;
mod receiving;
mod reconnect;
mod resend;
mod soak;
mod states;
mod support;
mod tenants;
