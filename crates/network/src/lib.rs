//! A simulated WhatsApp network.
//!
//! Bytes become stanzas in [`noise`], [`frame`] and [`codec`]; what a
//! stanza means is decided by a pure state machine. Nothing here knows wagate: the crate stands on
//! the other side of the wire and serves any client that speaks the protocol.

pub mod certificates;
pub mod check;
pub mod clock;
pub mod codec;
pub mod counters;
pub mod faults;
pub mod frame;
pub mod jid;
pub mod node;
pub mod noise;
pub mod pairing;
pub mod phone;
mod stanza;
pub mod transcript;
pub mod world;
