//! How a message's state moves: forward only (MP-3), and to `Sent` by the server's word alone (MP-5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::receipt::ReceiptKind;

/// The state of a message; inbound ones are `Received` and stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageState {
    /// Accepted and stored; waits for its turn.
    Queued,
    /// Claimed by a worker; may be on the wire.
    Sending,
    /// WhatsApp's server has taken it.
    Sent,
    /// A device of the recipient has it.
    Delivered,
    Read,
    Played,
    /// Will never be sent; the reason is stored.
    Failed,
    /// Withdrawn by the caller before it was sent.
    Canceled,
    /// Its validity ended before it could be sent.
    Expired,
    /// Came from WhatsApp.
    Received,
}

/// What can happen to an outbound message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageInput {
    /// A worker took it for an attempt.
    Claimed,
    /// The attempt failed in a way that allows another.
    Requeued,
    /// WhatsApp's server took it.
    ServerAck,
    Receipt(ReceiptKind),
    /// It cannot be sent.
    Failed,
    Canceled,
    Expired,
    /// Somebody wants it to be tried again, from the beginning.
    Revived,
}

/// The outcome of [`MessageState::apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Moved(MessageState),
    /// Late or repeated news; nothing changes and nothing is wrong.
    Ignored,
    /// A request that this state does not allow, such as cancelling what was sent.
    Refused,
}

const NAMES: [(MessageState, &str, u8); 10] = [
    (MessageState::Queued, "queued", 0),
    (MessageState::Sending, "sending", 1),
    (MessageState::Sent, "sent", 2),
    (MessageState::Delivered, "delivered", 3),
    (MessageState::Read, "read", 4),
    (MessageState::Played, "played", 5),
    (MessageState::Failed, "failed", 6),
    (MessageState::Canceled, "canceled", 6),
    (MessageState::Expired, "expired", 6),
    (MessageState::Received, "received", 7),
];

impl MessageState {
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|row| row.0 == self)
            .map_or("", |row| row.1)
    }

    /// The order of states; among what was sent it only rises.
    pub fn rank(self) -> u8 {
        NAMES
            .iter()
            .find(|row| row.0 == self)
            .map_or(0, |row| row.2)
    }

    /// The server has it, so it needs no further attempt.
    pub fn is_sent(self) -> bool {
        matches!(
            self,
            Self::Sent | Self::Delivered | Self::Read | Self::Played
        )
    }

    /// No attempt will follow.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Sending)
    }

    /// What `input` does to a message in this state. Total: any input in any state has an answer.
    ///
    /// Receipts may overtake the server's acknowledgement, and a receipt proves what the
    /// acknowledgement says; rank decides. A receipt or acknowledgement even lifts `Failed` when that
    /// verdict was wrong (an attempt that timed out did arrive): better late truth than a false loss.
    #[must_use]
    pub fn apply(self, input: MessageInput) -> Step {
        match input {
            MessageInput::Claimed => match self {
                Self::Queued => Step::Moved(Self::Sending),
                _ => Step::Refused,
            },
            MessageInput::Requeued => match self {
                Self::Sending => Step::Moved(Self::Queued),
                _ => Step::Ignored,
            },
            MessageInput::ServerAck => self.raise(Self::Sent),
            MessageInput::Receipt(kind) => self.raise(match kind {
                ReceiptKind::Delivered => Self::Delivered,
                ReceiptKind::Read => Self::Read,
                ReceiptKind::Played => Self::Played,
            }),
            MessageInput::Failed => match self {
                Self::Queued | Self::Sending => Step::Moved(Self::Failed),
                _ => Step::Ignored,
            },
            MessageInput::Canceled => match self {
                Self::Queued => Step::Moved(Self::Canceled),
                Self::Canceled => Step::Ignored,
                _ => Step::Refused,
            },
            MessageInput::Expired => match self {
                Self::Queued => Step::Moved(Self::Expired),
                _ => Step::Ignored,
            },
            // The one way back, and by request only: what is final otherwise stays so (MP-3).
            MessageInput::Revived => match self {
                Self::Failed | Self::Expired => Step::Moved(Self::Queued),
                _ => Step::Refused,
            },
        }
    }

    fn raise(self, to: Self) -> Step {
        match self {
            Self::Received => Step::Refused,
            Self::Failed | Self::Canceled | Self::Expired => Step::Moved(to),
            _ if self.rank() < to.rank() => Step::Moved(to),
            _ => Step::Ignored,
        }
    }
}

impl fmt::Display for MessageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no message state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a message state")]
pub struct UnknownState;

impl FromStr for MessageState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        NAMES
            .iter()
            .find(|row| row.1 == text)
            .map(|row| row.0)
            .ok_or(UnknownState)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(inputs: &[MessageInput]) -> MessageState {
        inputs.iter().fold(MessageState::Sending, |state, input| {
            match state.apply(*input) {
                Step::Moved(next) => next,
                Step::Ignored | Step::Refused => state,
            }
        })
    }

    #[test]
    fn late_read_receipt_does_not_move_a_played_message_back() {
        let state = MessageState::Played;
        assert_eq!(
            state.apply(MessageInput::Receipt(ReceiptKind::Read)),
            Step::Ignored
        );
        assert_eq!(state.apply(MessageInput::ServerAck), Step::Ignored);
    }

    #[test]
    fn what_was_sent_cannot_be_cancelled_or_fail() {
        assert_eq!(
            MessageState::Sent.apply(MessageInput::Canceled),
            Step::Refused
        );
        assert_eq!(
            MessageState::Sent.apply(MessageInput::Failed),
            Step::Ignored
        );
        assert_eq!(
            MessageState::Sending.apply(MessageInput::Canceled),
            Step::Refused
        );
    }

    #[test]
    fn only_what_failed_or_expired_is_tried_again() {
        for (state, _, _) in NAMES {
            let dead = matches!(state, MessageState::Failed | MessageState::Expired);
            let want = if dead {
                Step::Moved(MessageState::Queued)
            } else {
                Step::Refused
            };
            assert_eq!(state.apply(MessageInput::Revived), want, "{state}");
        }
    }

    #[test]
    fn the_servers_word_lifts_a_wrong_verdict_and_nothing_takes_it_back() {
        let failed = MessageState::Failed;
        let sent = Step::Moved(MessageState::Sent);
        assert_eq!(failed.apply(MessageInput::ServerAck), sent);
        let read = MessageInput::Receipt(ReceiptKind::Read);
        assert_eq!(failed.apply(read), Step::Moved(MessageState::Read));
        let sent = MessageState::Sent;
        assert_eq!(sent.apply(MessageInput::Requeued), Step::Ignored);
    }

    #[test]
    fn names_read_back() {
        for (state, name, _) in NAMES {
            assert_eq!(name.parse::<MessageState>().unwrap(), state);
            assert_eq!(state.to_string(), name);
        }
    }

    proptest! {
        #[test]
        fn any_order_of_receipts_ends_in_the_highest(order in Just(vec![
            MessageInput::ServerAck,
            MessageInput::Receipt(ReceiptKind::Delivered),
            MessageInput::Receipt(ReceiptKind::Read),
            MessageInput::Receipt(ReceiptKind::Played),
        ]).prop_shuffle(), keep in 1usize..=4) {
            let kept = &order[..keep];
            let highest = kept.iter().map(|input| match MessageState::Sending.apply(*input) {
                Step::Moved(state) => state.rank(),
                Step::Ignored | Step::Refused => 0,
            }).max().unwrap();
            prop_assert_eq!(run(kept).rank(), highest);
        }
    }
}
