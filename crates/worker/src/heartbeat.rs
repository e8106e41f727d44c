//! Says at an interval that this worker lives, and what it carries.
//!
//! The figures are those that worker dashboards have always shown; a reader tells a dead worker by the
//! age of its last heartbeat.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wagate_store::workers;

use crate::worker::{Shared, stats};

pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let started = Instant::now();
    let mut tick = interval(shared.options.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            _ = tick.tick() => false,
        };
        let status = if stopping { "offline" } else { "online" };
        let metrics = figures(&shared, started);
        let id = shared.options.id.clone();
        let now = shared.clock.now();
        let beat = shared
            .db
            .write(move |tx| workers::heartbeat(tx, &id, status, &metrics, now))
            .await;
        if let Err(error) = beat {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the heartbeat could not be written");
        }
        if stopping {
            return;
        }
    }
}

fn figures(shared: &Shared, started: Instant) -> Value {
    let stats = stats(shared);
    json!({
        "sessionCount": stats.sessions,
        "activeConnections": stats.connected,
        "uptime": started.elapsed().as_secs(),
        "sessionBreakdown": {
            "connected": stats.connected,
            "qr_required": stats.awaiting_scan,
            "disconnected": stats.sessions - stats.connected - stats.awaiting_scan,
        },
    })
}
