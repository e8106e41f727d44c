//! B04: as many as go. A message counts when the gateway has recorded it as delivered and its event
//! was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::Load;
use crate::events::Feed;
use crate::process;
use crate::report;
use crate::rig::Rig;

/// Requests in flight at once.
const CONNECTIONS: usize = 32;

pub(crate) async fn run(messages: usize, in_flight: usize, load: Load) -> Result<()> {
    let rig = Rig::start().await?;
    load.prepare(&rig).await?;
    let mut feed = Feed::from_now(&rig.client).await?;
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    eprintln!("{messages} messages …");
    let started = Instant::now();

    let window = Arc::new(Semaphore::new(in_flight));
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, window, next) = (rig.client.clone(), Arc::clone(&window), Arc::clone(&next));
        senders.spawn(async move {
            loop {
                window.acquire().await?.forget();
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= messages {
                    return Ok(());
                }
                let (path, body) = load.message(n, "0");
                client.post(&path, &body).await?;
            }
        });
    }
    let bound = Duration::from_secs(1800);
    while feed.delivered.len() < messages {
        let had = feed.delivered.len();
        feed.read(1).await?;
        window.add_permits(feed.delivered.len() - had);
        if let Some(failed) = feed.failed.first() {
            bail!("a message failed: {failed}");
        }
        if started.elapsed() > bound {
            bail!(
                "{} of {messages} delivered within {} s",
                feed.delivered.len(),
                bound.as_secs()
            );
        }
    }
    let took = started.elapsed();
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    window.add_permits(CONNECTIONS);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    rig.check()?;
    let count = messages as u64;
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    report::print(
        "saturated",
        &json!({ "messages": messages, "in_flight": in_flight, "load": load.to_json() }),
        &json!({
            "messages_per_second": report::ratio(count * 1000, millis),
            "gateway_cpu_us_per_message": report::ratio((after.cpu_ms - before.cpu_ms) * 1000, count),
            "network_and_generator_cpu_us_per_message":
                report::ratio((own_after.cpu_ms - own_before.cpu_ms) * 1000, count),
            "gateway_rss_anon_kib": after.rss_anon_kib,
        }),
    )?;
    rig.stop().await
}
