//! Where the time comes from, so that tests can say what time it is.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::time::Timestamp;

/// Tells the wall-clock time. Time-outs and intervals use tokio's clock instead, which never jumps.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Timestamp;
}

/// Milliseconds by which [`SystemClock`] is ahead of the machine's.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Moves [`SystemClock`] to so many milliseconds ahead of the machine's clock, for the whole process.
///
/// For programs that test the gateway as a process; the gateway itself never calls it.
pub fn shift_system_clock(ahead: i64) {
    AHEAD.store(ahead, Ordering::Relaxed);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = elapsed.map_or(0, |since| since.as_millis());
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        Timestamp::from_millis(millis.saturating_add(AHEAD.load(Ordering::Relaxed)))
    }
}

/// A clock that only moves when told to.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_millis())))
    }

    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}
