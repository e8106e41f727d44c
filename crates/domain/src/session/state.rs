//! A session's link state: where it stands with WhatsApp.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Where a session stands with WhatsApp, as the worker that holds its lease last saw it.
///
/// `Idle → Connecting → AwaitingScan → Connecting → Connected`, and from any of them to the others.
/// The challenge of `AwaitingScan` is kept beside the state, since it rotates without changing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// Created; nobody asked for it to run yet.
    Idle,
    /// On the way to WhatsApp.
    Connecting,
    /// Shows a QR or pairing code.
    AwaitingScan,
    /// Linked and connected.
    Connected,
    /// Lost the connection; the next attempt is at `until`.
    Backoff {
        until: Timestamp,
        reason: LinkReason,
    },
    /// Disconnected as asked; keys kept.
    Stopped,
    /// Nobody scanned or entered the challenge in time, or WhatsApp refused the link.
    LinkFailed { reason: LinkReason },
    /// No longer linked.
    LoggedOut { reason: LinkReason },
    /// WhatsApp has banned the number, until then where it said so.
    Banned {
        until: Option<Timestamp>,
        reason: LinkReason,
    },
    /// Another connection of the same device took over; not fought over.
    Replaced,
    /// WhatsApp no longer takes this client version; update wagate.
    Outdated,
}

/// Why; `code` is a stable machine word, `text` one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReason {
    pub code: String,
    pub text: String,
}

impl LinkReason {
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            text: text.into(),
        }
    }
}

impl LinkState {
    /// Stays as it is until somebody asks for something else: no reconnect by itself.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::LinkFailed { .. }
                | Self::LoggedOut { .. }
                | Self::Banned { .. }
                | Self::Replaced
                | Self::Outdated
        )
    }

    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }

    /// The state's machine word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::AwaitingScan => "awaiting_scan",
            Self::Connected => "connected",
            Self::Backoff { .. } => "backoff",
            Self::Stopped => "stopped",
            Self::LinkFailed { .. } => "link_failed",
            Self::LoggedOut { .. } => "logged_out",
            Self::Banned { .. } => "banned",
            Self::Replaced => "replaced",
            Self::Outdated => "outdated",
        }
    }

    /// Why, where there is a reason to give.
    pub fn reason(&self) -> Option<&LinkReason> {
        match self {
            Self::Backoff { reason, .. }
            | Self::LinkFailed { reason }
            | Self::LoggedOut { reason }
            | Self::Banned { reason, .. } => Some(reason),
            Self::Idle
            | Self::Connecting
            | Self::AwaitingScan
            | Self::Connected
            | Self::Stopped
            | Self::Replaced
            | Self::Outdated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_tag() {
        let reason = LinkReason::new("stream_conflict", "another client took over");
        for state in [
            LinkState::Idle,
            LinkState::Connected,
            LinkState::Backoff {
                until: Timestamp::EPOCH,
                reason: reason.clone(),
            },
            LinkState::Banned {
                until: None,
                reason,
            },
            LinkState::Outdated,
        ] {
            let json = serde_json::to_value(&state).unwrap();
            assert_eq!(json["state"], state.as_str());
            assert_eq!(serde_json::from_value::<LinkState>(json).unwrap(), state);
        }
    }
}
