//! B01: N paired sessions, the gateway killed and started cold, all allowed to connect at once.

use anyhow::Result;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::report;
use crate::rig::Rig;

pub(crate) async fn run(sizes: &[usize]) -> Result<()> {
    for &sessions in sizes {
        let mut rig = Rig::start().await?;
        rig.link(0, sessions).await?;
        eprintln!("restarting the gateway with {sessions} sessions …");
        let started = Instant::now();
        rig.restart().await?;
        rig.until_connected(sessions, Duration::from_secs(600))
            .await?;
        let took = started.elapsed();
        let usage = rig.usage()?;
        rig.check()?;
        report::print(
            "connect-storm",
            &json!({ "sessions": sessions }),
            &json!({
                "all_connected_ms": took.as_millis(),
                "gateway_cpu_ms_per_session": report::ratio(usage.cpu_ms, sessions as u64),
                "gateway_rss_peak_kib": usage.rss_peak_kib,
                "gateway_threads": usage.threads,
            }),
        )?;
        rig.stop().await?;
    }
    Ok(())
}
