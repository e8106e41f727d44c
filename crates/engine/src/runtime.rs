//! The library's runtime: tokio, with more patience where the library writes Signal sessions behind.
//!
//! The library marks a session as changed with every message and writes what changed 25 ms later, in one
//! go. That is a write for nearly every message of a busy device. What may wait so may wait longer: a
//! counter is used only within a lease that was written before (SL-2), what was received is derived
//! again, and a prekey is deleted only after the session that used it is written.

use std::pin::Pin;
use std::time::Duration;

use wacore::runtime::{AbortHandle, Runtime};
use whatsapp_rust::TokioRuntime;

/// The library's `SIGNAL_FLUSH_WINDOW`; nothing else in it sleeps for exactly this long.
const LIBRARY_WINDOW: Duration = Duration::from_millis(25);
const WINDOW: Duration = Duration::from_millis(150);

type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Tokio, as far as the library uses it.
pub(crate) struct Patient;

impl Runtime for Patient {
    fn spawn(&self, future: Task) -> AbortHandle {
        TokioRuntime.spawn(future)
    }

    fn spawn_detached(&self, future: Task) {
        TokioRuntime.spawn_detached(future);
    }

    fn sleep(&self, duration: Duration) -> Task {
        TokioRuntime.sleep(patience(duration))
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> Task {
        TokioRuntime.spawn_blocking(work)
    }

    fn yield_now(&self) -> Option<Task> {
        TokioRuntime.yield_now()
    }
}

fn patience(asked: Duration) -> Duration {
    if asked == LIBRARY_WINDOW {
        WINDOW
    } else {
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_write_behind_is_put_off() {
        assert_eq!(patience(Duration::from_millis(25)), WINDOW);
        // What it waits after a write that failed.
        for asked in [0, 24, 50, 100, 5000].map(Duration::from_millis) {
            assert_eq!(patience(asked), asked);
        }
    }
}
