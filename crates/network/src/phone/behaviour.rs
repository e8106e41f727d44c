//! What a phone does by itself: receipts, reading, echo and scripted answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The settings of one phone. The default confirms delivery and does nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Decrypt incoming copies. Without it the phone still confirms delivery, and the screen shows
    /// `encrypted`, so that a load test measures the gateway. `None` follows the network's setting.
    pub decrypt: Option<bool>,
    /// Confirm delivery at once.
    pub deliver: bool,
    /// Send a `read` receipt this long after a message appeared. `None`: only when told.
    pub read_after_ms: Option<u64>,
    /// Send a `played` receipt for voice notes this long after they appeared.
    pub play_after_ms: Option<u64>,
    /// What to answer to a message of somebody else.
    pub answer: Answer,
}

/// An automatic answer. Phones never answer an automatic answer, so two of them do not talk forever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Nothing.
    #[default]
    Silent,
    /// The same text, after a delay.
    Echo {
        #[serde(default)]
        delay_ms: u64,
        /// Show "typing" while the delay lasts.
        #[serde(default)]
        typing: bool,
    },
    /// Always this text.
    Fixed {
        text: String,
        #[serde(default)]
        delay_ms: u64,
        #[serde(default)]
        typing: bool,
    },
    /// The first rule whose `contains` is in the text (case ignored).
    Script { rules: Vec<ScriptRule> },
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptRule {
    /// Empty matches everything.
    pub contains: String,
    pub reply: String,
    #[serde(default)]
    pub delay_ms: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            decrypt: None,
            deliver: true,
            read_after_ms: None,
            play_after_ms: None,
            answer: Answer::Silent,
        }
    }
}
