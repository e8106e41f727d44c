//! Forgets what is kept for a time only: idempotency keys and old events.
//!
//! Works in small bites, so that nobody waits for the database because of it (BD-1).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use wagate_store::{StoreError, idempotency, outbox};

use crate::worker::Shared;

const EVERY: Duration = Duration::from_secs(60);
/// Rows that one transaction removes.
const BITE: u32 = 1_000;
/// Between two bites others have their turn.
const BREATH: Duration = Duration::from_millis(20);

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(&shared) => if let Err(error) = swept {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old rows could not be removed, the next round tries again");
            }
        }
    }
}

/// Removes everything that is too old.
async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let before = now.minus(shared.options.event_retention);
    let mut keys = 0;
    let mut events = 0;
    loop {
        let gone = shared
            .db
            .write(move |tx| idempotency::prune(tx, BITE, now))
            .await?;
        keys += gone;
        if gone < u64::from(BITE) {
            break;
        }
        sleep(BREATH).await;
    }
    loop {
        let gone = shared
            .db
            .write(move |tx| outbox::prune(tx, before, BITE))
            .await?;
        events += gone;
        if gone < u64::from(BITE) {
            break;
        }
        sleep(BREATH).await;
    }
    if keys + events > 0 {
        tracing::info!(idempotency_keys = keys, events, "removed old rows");
    }
    Ok(())
}
