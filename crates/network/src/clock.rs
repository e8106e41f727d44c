//! The network's time: the machine's clock plus an offset that tests move.
//!
//! Runs on tokio's clock after the start, so that paused time pauses the network as well.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// Tells the network's time.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// The time at `started`, moved by [`Clock::advance`].
    base: AtomicI64,
}

impl Clock {
    /// Begins with the machine's time.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the network's only look at the machine's time"
    )]
    pub fn system() -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::starting_at(millis(now))
    }

    /// Begins with `now`.
    pub fn starting_at(now: Millis) -> Self {
        Self {
            started: Instant::now(),
            base: AtomicI64::new(now),
        }
    }

    /// The present time.
    pub fn now(&self) -> Millis {
        self.base
            .load(Ordering::Relaxed)
            .saturating_add(millis(self.started.elapsed()))
    }

    /// Moves the time; backwards with a negative number.
    pub fn advance(&self, by: Millis) {
        self.base.fetch_add(by, Ordering::Relaxed);
    }

    /// When `time` will be by tokio's clock, if nobody moves the offset.
    pub fn instant(&self, time: Millis) -> Instant {
        let wait = u64::try_from(time.saturating_sub(self.now())).unwrap_or(0);
        Instant::now() + Duration::from_millis(wait)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_offset() {
        let clock = Clock::starting_at(1_000);
        assert!((1_000..30_000).contains(&clock.now()));
        clock.advance(60_000);
        assert!((61_000..90_000).contains(&clock.now()));
        let later = clock.instant(clock.now() + 100_000);
        assert!(later > Instant::now() + Duration::from_secs(60));
        clock.advance(100_000);
        assert!(clock.instant(100_000) <= Instant::now());
    }
}
