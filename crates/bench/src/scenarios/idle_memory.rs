//! B02: what an idle connected session costs, as the slope between the numbers of sessions.
//!
//! Each point is a gateway started anew with that many sessions, so that what linking allocated and
//! freed does not count.

use anyhow::Result;
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::slope;
use crate::report;
use crate::rig::Rig;

pub(crate) async fn run(sizes: &[usize], quiet: u64) -> Result<()> {
    let mut points: Vec<(usize, u64)> = Vec::new();
    let mut rig = Rig::start().await?;
    let mut linked = 0;
    for &sessions in sizes {
        rig.link(linked, sessions).await?;
        linked = sessions;
        rig.restart().await?;
        rig.until_connected(sessions, Duration::from_secs(600))
            .await?;
        eprintln!("{sessions} sessions connected; quiet for {quiet} s …");
        let (before, started) = (rig.usage()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        let after = rig.usage()?;
        points.push((sessions, after.rss_anon_kib));
        rig.check()?;
        let busy = after.cpu_ms.saturating_sub(before.cpu_ms);
        let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report::print(
            "idle-memory",
            &json!({ "sessions": sessions, "quiet_s": quiet }),
            &json!({
                "rss_anon_kib": after.rss_anon_kib,
                "idle_cpu_share_of_a_core": report::ratio(busy, elapsed),
                "threads": after.threads,
                "slope_kib_per_session": slope(&points),
            }),
        )?;
    }
    rig.stop().await
}
