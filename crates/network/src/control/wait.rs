//! Bounded waiting for what a CI job waits for, so that it need not poll.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::envelope::ControlError;
use crate::network::Network;

/// The longest wait that a request may ask for.
pub(super) const LONGEST_MS: u64 = 60_000;

/// How often to look where no event tells: the transcript grows without one.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until there is something, at most so long; then once more.
pub(super) async fn until<T>(
    network: &Network,
    wait_ms: Option<u64>,
    mut look: impl FnMut() -> Option<T>,
) -> Result<Option<T>, ControlError> {
    let wait_ms = wait_ms.unwrap_or_default();
    if wait_ms > LONGEST_MS {
        let reason = format!("at most {LONGEST_MS}; ask again to wait longer");
        return Err(ControlError::invalid("wait_ms", reason));
    }
    let mut events = network.subscribe();
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let found = timeout_at(deadline, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::select! {
                // Lagging behind is as good a reason to look as an event.
                _ = events.recv() => {}
                () = sleep(LOOK) => {}
            }
        }
    })
    .await;
    Ok(found.ok().or_else(look))
}
