//! Messages: what is in them, which way they go, how their state moves.

pub mod priority;
pub mod state;

use serde::{Deserialize, Serialize};

pub use priority::{Priority, UnknownPriority};
pub use state::{MessageInput, MessageState, Step};

use crate::limits::TEXT_BYTES_MAX;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Plain text.
    Text { text: String },
    /// A kind that this version stores by name only, so that nothing received is lost from sight.
    Unsupported { kind: String },
}

/// The content cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("must not be empty")]
    Empty,
    #[error("is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("must not contain NUL characters")]
    Nul,
}

impl Content {
    /// A text to send, checked against the bounds.
    pub fn text(text: impl Into<String>) -> Result<Self, ContentError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(ContentError::Empty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(ContentError::TooLong);
        }
        // PostgreSQL cannot store it, so the message could not be kept.
        if text.contains('\0') {
            return Err(ContentError::Nul);
        }
        Ok(Self::Text { text })
    }

    /// The word for the kind, as the API has it.
    pub fn kind(&self) -> &str {
        match self {
            Self::Text { .. } => "text",
            Self::Unsupported { kind } => kind,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            Self::Unsupported { .. } => None,
        }
    }
}

/// Why a message failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable machine word, such as `recipient_not_registered`.
    pub code: String,
    /// One sentence for people; no phone number, no message text.
    pub reason: String,
}
