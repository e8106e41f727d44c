//! The screen: what the phone's owner would see. Bounded per phone; shows each message id of a chat
//! once, as WhatsApp's clients do, and counts the wire's copies apart so that a test can tell "shown
//! once" from "came once".

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use crate::world::Millis;

/// How many messages a phone remembers; the oldest go first.
pub const SCREEN_MESSAGES_MAX: usize = 1_000;

/// One message as the phone shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScreenMessage {
    /// Position in the order of appearance, from 1, never reused.
    pub position: u64,
    pub id: String,
    /// The chat's address without device: the peer's (by number when known) or the group's.
    pub chat: String,
    /// The author's address without device.
    pub from: String,
    pub from_device: u16,
    /// Written by this phone's owner, here or on a companion.
    pub from_me: bool,
    /// `text`, `image`, `video`, `audio`, `document`, `sticker`, `location`, `contact`, `reaction`,
    /// `poll` … or `unknown`; `encrypted` when this phone does not decrypt.
    pub kind: String,
    /// The text, the caption or the reaction's emoji.
    pub text: Option<String>,
    /// The message that this one quotes or reacts to.
    pub quoted: Option<String>,
    pub edited: bool,
    pub deleted: bool,
    pub push_name: Option<String>,
    /// The server's time in the stanza.
    pub sent_at_ms: Millis,
    /// When it appeared here.
    pub shown_at_ms: Millis,
    /// How many stanzas brought it.
    pub wire_copies: u32,
    /// Whether this phone sent its `read` receipt.
    pub read: bool,
    /// Whether this phone sent its `played` receipt.
    pub played: bool,
    /// For `from_me`: the farthest that came back: `pending`, `server`, `delivered`, `read`, `played`, or `refused`.
    pub status: Option<String>,
}

/// The messages of one phone in order of appearance.
#[derive(Debug, Default)]
pub struct Screen {
    messages: VecDeque<ScreenMessage>,
    /// `(chat, author is me, id)` → position, for what `messages` holds.
    index: HashMap<(String, String), u64>,
    next: u64,
}
