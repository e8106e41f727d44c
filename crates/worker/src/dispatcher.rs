//! Message path, step 3 of 7: wakes the actors that have something to send.
//!
//! A wake-up from the bus goes straight to the session's actor, which claims when it is connected and has
//! a slot free (`queue::claim`, under its own lease). A wake-up may be lost; so each tick asks the
//! database which of this worker's sessions have something due, which also finds retries whose wait is
//! over.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wagate_store::bus::{BusMessage, Heard};
use wagate_store::queue;

use crate::worker::Shared;

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut bus = shared.bus.subscribe();
    let mut tick = interval(shared.options.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let look = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => true,
            heard = bus.recv() => match heard {
                Heard::Message(BusMessage::QueueReady { session }) => {
                    if let Some(handle) = shared.handles().get(&session) {
                        handle.wake();
                    }
                    false
                }
                Heard::Message(_) => false,
                Heard::Missed => true,
                Heard::Closed => return,
            },
        };
        if look {
            wake_due(&shared).await;
        }
    }
}

async fn wake_due(shared: &Shared) {
    let worker = shared.options.id.clone();
    let now = shared.clock.now();
    match shared
        .db
        .read(move |tx| queue::due_sessions(tx, &worker, now))
        .await
    {
        Ok(due) => {
            let handles = shared.handles();
            for session in due {
                if let Some(handle) = handles.get(&session) {
                    handle.wake();
                }
            }
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "the queue could not be looked through, next tick tries again"
            );
        }
    }
}
