//! The one decision after a failure: again at once, later, when the session is back, or never.
//!
//! [`table`] says it for every code that WhatsApp answers with and for every fault of our own; engine and
//! worker look there and decide nothing by themselves.

pub mod table;

use std::time::Duration;

pub use table::{Ending, Fault, SessionMove, Trouble, Verdict};

/// What to do with work that failed. A class decides, never a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// Again at once: the attempt did not reach WhatsApp and nothing speaks against another.
    Now,
    /// Again, not before this long.
    After(Duration),
    /// Again with the usual backoff.
    Backoff,
    /// The session is away or paused; the work waits for it and the attempt does not count.
    SessionDown,
    /// Never: the reason will not go away by itself.
    Never,
}

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// No wait is longer, before jitter.
    pub longest: Duration,
    /// The share of a wait by which jitter lengthens or shortens it, in percent.
    pub jitter_percent: u8,
}

impl Backoff {
    /// A message's waits: 2, 4, 8, 16 and 32 seconds.
    pub const MESSAGE: Self = Self {
        first: Duration::from_secs(2),
        longest: Duration::from_secs(32),
        jitter_percent: 20,
    };
    /// A session's waits between attempts to connect.
    pub const RECONNECT: Self = Self {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
        jitter_percent: 30,
    };
    /// The waits of a session whose changes the database refused for now. Short, since what it heard of
    /// messages is in memory only until they are written.
    pub const COMMIT: Self = Self {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
        jitter_percent: 30,
    };

    /// The wait after `failures` failures in a row (from 1), given a random number in `0.0..1.0`.
    pub fn wait(self, failures: u32, random: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(20));
        let wait = doubled.min(self.longest);
        let share = f64::from(self.jitter_percent) / 100.0;
        wait.mul_f64(1.0 + share * (random.clamp(0.0, 1.0) * 2.0 - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_wait_2_4_8_16_32_seconds() {
        let waits: Vec<u64> = (1..=6)
            .map(|n| Backoff::MESSAGE.wait(n, 0.5).as_secs())
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 32]);
    }

    #[test]
    fn what_is_in_memory_only_is_tried_again_soon() {
        let waits: Vec<u128> = (1..=7)
            .map(|n| Backoff::COMMIT.wait(n, 0.5).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(failures in 0u32.., random in 0.0f64..1.0) {
            let wait = Backoff::MESSAGE.wait(failures, random);
            prop_assert!(wait >= Duration::from_millis(1600));
            prop_assert!(wait <= Duration::from_millis(38_400));
        }
    }
}
