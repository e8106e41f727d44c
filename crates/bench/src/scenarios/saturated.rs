//! B04: as many as go. A message counts when the gateway has recorded it as delivered and its event
//! was read.

use anyhow::Result;
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::Load;
use crate::events::Feed;
use crate::load::Senders;
use crate::process;
use crate::report;
use crate::rig::Rig;

pub(crate) async fn run(messages: usize, in_flight: usize, load: Load) -> Result<()> {
    let rig = Rig::start().await?;
    load.prepare(&rig).await?;
    let mut feed = Feed::from_now(&rig.client).await?;
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    eprintln!("{messages} messages …");
    let started = Instant::now();
    let senders = Senders::start(&rig.client, messages, in_flight, move |n| {
        load.message(n, "0")
    });
    feed.follow(&senders, messages, Duration::from_secs(1800))
        .await?;
    let took = started.elapsed();
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    senders.finish().await?;
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
