//! How fast a session may send, so that WhatsApp takes its number for a person's, and when WhatsApp itself
//! has asked for patience. Pure: state, time and event in, decision out.
//!
//! [`PacingRules`] are what the tenant or the operator set, [`Pacing`] is what has happened so far; it is
//! stored before a message goes out, so that a crash forgets no message of the day. Limits and pauses defer,
//! they never fail a message.

mod rules;
mod state;
mod window;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use rules::{OutOfRange, PacingPatch, PacingRules};
pub use state::{Hold, Pacing, Pause, Permit};

use crate::limits;

/// What a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    All,
    /// First messages to somebody with whom there was no message yet. Known chats go on.
    NewChats,
}

/// Why WhatsApp wants a session to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The account may not write to strangers for a while (463).
    ReachOutLimited,
    /// Too many new chats were begun (475).
    NewChatsCapped,
    /// Too many messages or requests (429).
    RateLimited,
    /// The number is banned for a time (402).
    Banned,
}

/// What keeps a message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The gap to the message before.
    Gap,
    /// The budget of a minute.
    Minute,
    /// The budget of a day, as far as a young number has it.
    Day,
    /// The day's budget of first messages to strangers.
    Strangers,
    /// WhatsApp asked for it.
    Pause(Reason),
}

/// The word names no scope or reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a scope or reason of a pause")]
pub struct UnknownPause;

impl Scope {
    pub const ALL: [Self; 2] = [Self::All, Self::NewChats];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::NewChats => "new_chats",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownPause;

    fn from_str(text: &str) -> Result<Self, UnknownPause> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or(UnknownPause)
    }
}

impl Reason {
    pub const ALL: [Self; 4] = [
        Self::ReachOutLimited,
        Self::NewChatsCapped,
        Self::RateLimited,
        Self::Banned,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReachOutLimited => "reach_out_limited",
            Self::NewChatsCapped => "new_chats_capped",
            Self::RateLimited => "rate_limited",
            Self::Banned => "banned",
        }
    }

    /// One sentence for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::ReachOutLimited => {
                "WhatsApp does not let this number write to new people for a while"
            }
            Self::NewChatsCapped => "WhatsApp has capped how many new chats this number may begin",
            Self::RateLimited => "WhatsApp says that this number asks or sends too much",
            Self::Banned => "WhatsApp has banned this number for a time",
        }
    }

    /// The first guess when WhatsApp names no time, and the longest after which it is tried again.
    fn guess(self) -> (Duration, Duration) {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        match self {
            Self::RateLimited => (minutes(1), minutes(60)),
            Self::ReachOutLimited | Self::NewChatsCapped => (minutes(60), minutes(24 * 60)),
            Self::Banned => (minutes(12 * 60), minutes(7 * 24 * 60)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownPause;

    fn from_str(text: &str) -> Result<Self, UnknownPause> {
        let found = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        found.ok_or(UnknownPause)
    }
}

impl Why {
    /// The word for it in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Minute => "per_minute",
            Self::Day => "per_day",
            Self::Strangers => "strangers_per_day",
            Self::Pause(reason) => reason.as_str(),
        }
    }
}

/// How long "typing" is shown before a text of so many characters, given a random number in `0.0..1.0`.
pub fn typing_time(characters: usize, random: f64) -> Duration {
    let characters = u32::try_from(characters).unwrap_or(u32::MAX);
    let even = limits::TYPING_PER_CHARACTER.saturating_mul(characters);
    let even = even.clamp(limits::TYPING_MIN, limits::TYPING_MAX);
    let swung = even.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
    swung.clamp(limits::TYPING_MIN, limits::TYPING_MAX)
}

#[cfg(test)]
mod tests;
