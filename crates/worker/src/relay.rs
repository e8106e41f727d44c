//! Message path, step 7 of 7: tells readers of the outbox that there is news.
//!
//! Whoever appends an event wakes its readers right after the commit. A process that dies in between
//! would leave them asleep, so each tick compares where every tenant's outbox ends with what was last
//! announced (EV-1: the rows are there, only the wake-up was lost).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wagate_domain::{EventSeq, TenantId};
use wagate_store::bus::BusMessage;
use wagate_store::outbox;

use crate::worker::Shared;

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut announced: HashMap<TenantId, EventSeq> = HashMap::new();
    let mut tick = interval(shared.options.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let heads = match shared.db.read(outbox::heads).await {
            Ok(heads) => heads,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the outbox could not be looked through");
                continue;
            }
        };
        for (tenant, head) in heads {
            let news = announced.get(&tenant).is_none_or(|known| *known < head);
            if news {
                announced.insert(tenant.clone(), head);
                shared.bus.publish(BusMessage::EventsAppended { tenant });
            }
        }
    }
}
