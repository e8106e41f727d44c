//! B03: sends that answer after WhatsApp's acknowledgement, open loop: each is due at an instant fixed
//! beforehand and measured from it, whether or not earlier ones have come back.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use serde_json::json;

use super::Load;
use crate::load::open_loop;
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
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    let never = AtomicBool::new(false);
    let paced = open_loop(f64::from(rate), count, &never, |n| {
        let client = rig.client.clone();
        let (path, body) = load.message(first + n, "10");
        async move { Ok(client.post(&path, &body).await?.status == 200) }
    });
    let paced = paced.await?;
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    if paced.missed > 0 {
        bail!(
            "{} of {count} sends were not acknowledged within 10 s",
            paced.missed
        );
    }
    rig.check()?;
    report::print(
        "sync-send",
        &json!({ "rate": rate, "seconds": seconds, "load": load.to_json() }),
        &json!({
            "latency": report::latencies(&paced.latency),
            "gateway_cpu_us_per_message":
                report::ratio((after.cpu_ms - before.cpu_ms) * 1000, count as u64),
            "network_and_generator_cpu_us_per_message":
                report::ratio((own_after.cpu_ms - own_before.cpu_ms) * 1000, count as u64),
            "generator_latest_ms": paced.latest.as_millis(),
        }),
    )?;
    Ok(first + count)
}
