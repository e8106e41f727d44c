//! What a device says about a message it got.

use serde::{Deserialize, Serialize};

/// A receipt's meaning, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptKind {
    /// A device of the recipient has it.
    Delivered,
    /// The recipient has seen it.
    Read,
    /// The recipient has played it (voice and video notes).
    Played,
}
