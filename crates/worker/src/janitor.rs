//! Forgets what is kept for a time only, idempotency keys and old events, and lets sessions connect again
//! whose ban for a time is over.
//!
//! Works in small bites, so that nobody waits for the database because of it (BD-1).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use wagate_store::bus::BusMessage;
use wagate_store::{StoreError, idempotency, outbox, pacing};

use crate::worker::Shared;

const EVERY: Duration = Duration::from_secs(60);
const BANS_EVERY: Duration = Duration::from_secs(5);
/// Sessions that one round lets connect again.
const BANS_BITE: u32 = 100;
/// Rows that one transaction removes.
const BITE: u32 = 1_000;
/// Between two bites others have their turn.
const BREATH: Duration = Duration::from_millis(20);

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bans = interval(BANS_EVERY);
    bans.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            _ = bans.tick() => {
                if let Err(error) = end_bans(&shared).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "bans could not be looked through, the next round tries again");
                }
                continue;
            }
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

async fn end_bans(shared: &Shared) -> Result<(), StoreError> {
    let now = shared.clock.now();
    // Nearly always there are none, and then nobody needs to write.
    if !shared
        .db
        .read(move |tx| pacing::any_ban_over(tx, now))
        .await?
    {
        return Ok(());
    }
    let over = shared
        .db
        .write(move |tx| pacing::end_bans(tx, now, BANS_BITE))
        .await?;
    for session in over {
        tracing::info!(session.id = %session, "a ban is over");
        shared.bus.publish(BusMessage::DesiredChanged { session });
    }
    Ok(())
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
