//! Message path, step 3 of 7: wakes the actors that have something to send.
//!
//! A wake-up from the bus goes straight to the session's actor, which claims when it is connected and has
//! a slot free (`queue::claim`, under its own lease). A wake-up may be lost; so each tick asks the
//! database which of this worker's sessions have something due, which also finds retries whose wait is
//! over, and messages that a device asked for again. The same tick ends what is past its validity, whoever
//! runs its session and whether or not anybody does.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wagate_store::bus::{BusMessage, Heard};
use wagate_store::{StoreError, messages, queue};

use crate::session::{Control, longest_resend_wait};
use crate::worker::Shared;

/// Messages that one look ends at most, and looks of one tick.
const EXPIRE_MAX: u32 = 500;
const EXPIRE_LOOKS: u32 = 20;

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut bus = shared.bus.subscribe_to_orders();
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
            if let Err(error) = expire(&shared).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "messages could not be expired, next tick tries again"
                );
            }
            wake_due(&shared).await;
        }
    }
}

/// Ends the messages whose validity is over.
async fn expire(shared: &Shared) -> Result<(), StoreError> {
    for _ in 0..EXPIRE_LOOKS {
        let now = shared.clock.now();
        let found = shared
            .db
            .read(move |tx| queue::overdue(tx, now, EXPIRE_MAX))
            .await?;
        let mut ended = 0;
        for overdue in found {
            let (tenant, session) = (overdue.tenant.clone(), overdue.session.clone());
            let messages = shared
                .db
                .write_for(&tenant, move |tx| queue::expire(tx, &overdue, now))
                .await?;
            if messages.is_empty() {
                continue;
            }
            ended += messages.len();
            for message in messages {
                shared.bus.publish(BusMessage::MessageSettled { message });
            }
            shared.bus.publish(BusMessage::EventsAppended { tenant });
            // What waited behind them in their chats is due now.
            shared.bus.publish(BusMessage::QueueReady { session });
        }
        if ended < usize::try_from(EXPIRE_MAX).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
    Ok(())
}

async fn wake_due(shared: &Shared) {
    let worker = shared.options.id.clone();
    let now = shared.clock.now();
    let longest = longest_resend_wait(shared.options.resend_after);
    let looked = shared.db.read(move |tx| {
        let due = queue::due_sessions(tx, &worker, now)?;
        Ok((
            due,
            messages::sessions_to_resend(tx, &worker, now, longest)?,
        ))
    });
    match looked.await {
        Ok((due, asked_again)) => {
            let handles = shared.handles();
            for handle in due.iter().filter_map(|session| handles.get(session)) {
                handle.wake();
            }
            for handle in asked_again
                .iter()
                .filter_map(|session| handles.get(session))
            {
                // A full lane: the next tick says it again.
                handle.tell(Control::Resend);
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
