//! B03: sends that answer after WhatsApp's acknowledgement, open loop: each is due at an instant fixed
//! beforehand and measured from it, whether or not earlier ones have come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::Load;
use crate::process;
use crate::report;
use crate::rig::Rig;

pub(crate) async fn run(rates: &[u32], seconds: u64, load: Load) -> Result<()> {
    let rig = Rig::start().await?;
    load.prepare(&rig).await?;
    let mut first = 0;
    for &rate in rates {
        eprintln!("{rate} sends a second for {seconds} s …");
        first = run_rate(&rig, rate, seconds, load, first).await?;
    }
    rig.stop().await
}

/// Runs one rate; returns the number behind the last message.
async fn run_rate(rig: &Rig, rate: u32, seconds: u64, load: Load, first: usize) -> Result<usize> {
    let count = usize::try_from(u64::from(rate) * seconds).unwrap_or(usize::MAX);
    let not_sent = Arc::new(AtomicU64::new(0));
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    let start = Instant::now() + Duration::from_millis(100);
    let mut latest = Duration::ZERO;
    let mut sends: JoinSet<Result<u64>> = JoinSet::new();
    for n in 0..count {
        let due = start + Duration::from_secs_f64(to_f64(n) / f64::from(rate));
        tokio::time::sleep_until(due).await;
        latest = latest.max(due.elapsed());
        let (client, not_sent) = (rig.client.clone(), Arc::clone(&not_sent));
        let (path, body) = load.message(first + n, "10");
        sends.spawn(async move {
            let answer = client.post(&path, &body).await?;
            if answer.status != 200 {
                not_sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX))
        });
    }
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    while let Some(sent) = sends.join_next().await {
        histogram.record(sent??)?;
    }
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    let late = not_sent.load(Ordering::Relaxed);
    if late > 0 {
        bail!("{late} of {count} sends were not acknowledged within 10 s");
    }
    rig.check()?;
    report::print(
        "sync-send",
        &json!({ "rate": rate, "seconds": seconds, "load": load.to_json() }),
        &json!({
            "latency": report::latencies(&histogram),
            "gateway_cpu_us_per_message":
                report::ratio((after.cpu_ms - before.cpu_ms) * 1000, count as u64),
            "network_and_generator_cpu_us_per_message":
                report::ratio((own_after.cpu_ms - own_before.cpu_ms) * 1000, count as u64),
            "generator_latest_ms": latest.as_millis(),
        }),
    )?;
    Ok(first + count)
}

fn to_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
