//! Phones against companions that are played with the Signal library alone, and against each other.
//!
//! [`Street`] is the smallest network: it knows accounts and keys and carries stanzas to phones as the
//! server would, and keeps what goes to companions for the test to open.

mod companion;
mod companions;
mod linking;
mod messages;
mod street;

use companion::Companion;
use street::Street;
