//! Which messages of a session go first.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which messages of a session go first. Low ones are not starved: every eighth turn is for the oldest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// The word or the number names no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be high, normal or low")]
pub struct UnknownPriority;

impl Priority {
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word for it in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// 0 is the first: so one direction of an index serves those who take from a queue.
    pub fn rank(self) -> i64 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }

    pub fn of_rank(rank: i64) -> Result<Self, UnknownPriority> {
        let found = Self::ALL
            .into_iter()
            .find(|priority| priority.rank() == rank);
        found.ok_or(UnknownPriority)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let found = Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == text);
        found.ok_or(UnknownPriority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_ranks_read_back() {
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(priority));
            assert_eq!(Priority::of_rank(priority.rank()), Ok(priority));
        }
        assert_eq!("urgent".parse::<Priority>(), Err(UnknownPriority));
        assert_eq!(Priority::of_rank(3), Err(UnknownPriority));
        assert!(Priority::High < Priority::Low);
    }
}
