//! End-to-end tests: the gateway as users run it, through HTTP, against the simulated network.
//!
//! One file a capability. Every test ends with the network's checkers.

mod command_line;
mod crash;
mod dialects;
mod first_message;
mod pairing;
mod postgres;
mod production;
mod receiving;
mod reconnect;
mod states;
mod support;
