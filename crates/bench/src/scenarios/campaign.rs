//! B06: one tenant writes to many people for the first time, while another sends at a steady rate and is
//! to feel nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::{Duration, Instant};
use wagate::client::Client;

use super::{Load, make_contacts, message};
use crate::events::Feed;
use crate::load::{Paced, Senders, open_loop};
use crate::process;
use crate::report;
use crate::rig::{self, Rig};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 20_000)]
    recipients: usize,
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Messages accepted and not yet delivered at any time.
    #[arg(long, default_value_t = 1024)]
    in_flight: usize,
    /// Sends a second of the other tenant.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// How long the other tenant is measured alone, in seconds.
    #[arg(long, default_value_t = 30)]
    alone: u64,
}

/// What the other tenant has: contacts that it has written to before.
const OTHERS_CONTACTS: usize = 20;

pub(crate) async fn run(options: Options) -> Result<()> {
    let rig = Rig::start().await?;
    let sessions = options.sessions;
    let (other, load) = prepare(&rig, &options).await?;

    eprintln!("the other tenant alone for {} s …", options.alone);
    let stop = AtomicBool::new(false);
    let rate = f64::from(options.rate);
    let count = usize::try_from(u64::from(options.rate) * options.alone).unwrap_or(usize::MAX);
    let alone = others_sends(&other, load, rate, count, &stop).await?;

    eprintln!("the campaign …");
    let mut feed = Feed::from_now(&rig.client).await?;
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    let started = Instant::now();
    let senders = Senders::start(
        &rig.client,
        options.recipients,
        options.in_flight,
        move |n| message(n % sessions, &recipient(n), n, "0"),
    );
    let campaign = async {
        let bound = Duration::from_secs(3600);
        let done = feed.follow(&senders, options.recipients, bound).await;
        stop.store(true, Ordering::Relaxed);
        done.map(|()| started.elapsed())
    };
    let beside = others_sends(&other, load, rate, usize::MAX, &stop);
    let (took, beside) = tokio::join!(campaign, beside);
    let (took, beside) = (took?, beside?);
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    senders.finish().await?;
    rig.check()?;
    let count = options.recipients as u64;
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // The other tenant's share of the gateway's work is in the figures too.
    report::print(
        "campaign",
        &json!({
            "recipients": options.recipients,
            "sessions": sessions,
            "in_flight": options.in_flight,
            "others_rate": options.rate,
        }),
        &json!({
            "wall_ms": millis,
            "recipients_per_second": report::ratio(count * 1000, millis),
            "gateway_cpu_us_per_recipient": report::ratio((after.cpu_ms - before.cpu_ms) * 1000, count),
            "network_and_generator_cpu_us_per_recipient":
                report::ratio((own_after.cpu_ms - own_before.cpu_ms) * 1000, count),
            "others_latency_alone": report::latencies(&alone.latency),
            "others_latency_beside": report::latencies(&beside.latency),
            "others_p99_ratio": report::ratio(
                beside.latency.value_at_quantile(0.99),
                alone.latency.value_at_quantile(0.99),
            ),
            "others_unacknowledged_in_10_s": beside.missed,
            "gateway_rss_anon_kib": after.rss_anon_kib,
        }),
    )?;
    rig.stop().await
}

/// Links both tenants' sessions and makes everybody's accounts; gives the other tenant and its load.
async fn prepare(rig: &Rig, options: &Options) -> Result<(Client, Load)> {
    let sessions = options.sessions;
    rig.link(0, sessions).await?;
    let other = rig.tenant("other").await?;
    rig.link_of(&other, sessions, sessions + 1).await?;
    make_contacts(rig, OTHERS_CONTACTS)?;
    let load = Load {
        first: sessions,
        ..Load::new(1, OTHERS_CONTACTS)
    };
    load.meet(&other).await?;
    eprintln!("{} recipients …", options.recipients);
    for n in 0..options.recipients {
        rig.account(&recipient(n), "Recipient")?;
    }
    Ok((other, load))
}

fn recipient(n: usize) -> String {
    rig::contact_number(OTHERS_CONTACTS + n)
}

/// The other tenant's sends, which wait for WhatsApp's word.
async fn others_sends(
    other: &Client,
    load: Load,
    rate: f64,
    count: usize,
    stop: &AtomicBool,
) -> Result<Paced> {
    let paced = open_loop(rate, count, stop, |n| {
        let client = other.clone();
        let (path, body) = load.message(n, "10");
        async move { Ok(client.post(&path, &body).await?.status == 200) }
    });
    let paced = paced.await?;
    if paced.latency.is_empty() {
        bail!("the other tenant sent nothing");
    }
    Ok(paced)
}
