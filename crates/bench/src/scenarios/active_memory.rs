//! B02 in state S1: what a session costs that has written to so many contacts, as the slope between the
//! numbers of sessions. Above the limit the run fails.
//!
//! Each point is a network and a gateway of its own, restarted after linking, so that what linking
//! allocated and freed does not count.

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::Duration;

use super::{Load, make_contacts, slope};
use crate::report;
use crate::rig::Rig;

pub(crate) async fn run(
    sizes: &[usize],
    contacts: usize,
    quiet: u64,
    limit_kib: f64,
) -> Result<()> {
    let (mut idle, mut active) = (Vec::new(), Vec::new());
    for &sessions in sizes {
        let mut rig = Rig::start().await?;
        rig.link(0, sessions).await?;
        rig.restart().await?;
        rig.until_connected(sessions, Duration::from_secs(600))
            .await?;
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        let before = rig.usage()?;
        make_contacts(&rig, contacts)?;
        Load::new(sessions, contacts).meet(&rig.client).await?;
        eprintln!("{sessions} sessions have written to {contacts} contacts; quiet for {quiet} s …");
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        let after = rig.usage()?;
        idle.push((sessions, before.rss_anon_kib));
        active.push((sessions, after.rss_anon_kib));
        rig.check()?;
        report::print(
            "active-memory",
            &json!({ "sessions": sessions, "contacts": contacts, "quiet_s": quiet }),
            &json!({
                "idle_rss_anon_kib": before.rss_anon_kib,
                "active_rss_anon_kib": after.rss_anon_kib,
                "idle_slope_kib_per_session": slope(&idle),
                "active_slope_kib_per_session": slope(&active),
                "gateway_cpu_us_per_first_message": report::ratio(
                    (after.cpu_ms - before.cpu_ms) * 1000,
                    (sessions * contacts) as u64,
                ),
            }),
        )?;
        rig.stop().await?;
    }
    match slope(&active) {
        Some(kib) if kib > limit_kib => {
            bail!("{kib} KiB a session are more than the limit of {limit_kib}")
        }
        _ => Ok(()),
    }
}
