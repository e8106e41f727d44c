//! A simulated WhatsApp network.
//!
//! [`network::Network`] runs it, [`handle::PhoneHandle`] drives its phones, [`control`] does both over
//! HTTP. Bytes become stanzas in [`noise`], [`frame`] and [`codec`]; what a stanza means is decided by
//! the pure [`world`]; [`faults`] disturb it on demand and [`check`] judges what happened. Nothing here
//! knows wagate: the crate stands on the other side of the wire and serves any client that speaks the
//! protocol.

pub mod certificates;
pub mod check;
pub mod clock;
pub mod codec;
mod connection;
pub mod control;
pub mod counters;
pub mod faults;
pub mod frame;
pub mod handle;
pub mod jid;
mod listener;
pub mod network;
pub mod node;
pub mod noise;
pub mod pairing;
pub mod phone;
pub mod phones;
mod stanza;
pub mod transcript;
pub mod world;
