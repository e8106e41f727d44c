//! B07: one tenant has a large backlog; do the others feel it? And do equal backlogs of several tenants
//! drain evenly?
//!
//! The backlog is queued while its sessions are paused. At the end the gateway is killed in the midst of
//! what is left, and the checker judges what went out.

use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use wagate::client::Client;

use super::{Load, make_contacts};
use crate::events::Feed;
use crate::load::{Paced, Senders, open_loop, to_f64};
use crate::report;
use crate::rig::{self, Rig};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Messages that wait for the one tenant.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// How many other tenants there are, with one session each.
    #[arg(long, default_value_t = 19)]
    others: usize,
    /// Sends a second of each of them.
    #[arg(long, default_value_t = 5)]
    rate: u32,
    /// Length of each measurement, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Messages of each tenant's equal backlog.
    #[arg(long, default_value_t = 1000)]
    equal: usize,
}

/// The one tenant's.
const SESSIONS: usize = 10;
const CONTACTS: usize = 20;

/// A tenant with its sessions.
struct Tenant {
    client: Client,
    load: Load,
}

impl Tenant {
    /// Pauses or resumes its queues.
    async fn queues(&self, verb: &str) -> Result<()> {
        for n in self.load.first..self.load.first + self.load.sessions {
            let path = format!("/api/v1/sessions/{}/queue/{verb}", rig::session_name(n));
            self.client.post(&path, &Value::Null).await?;
        }
        Ok(())
    }

    async fn enqueue(&self, count: usize) -> Result<()> {
        let load = self.load;
        let message = move |n| load.message(n, "0");
        Senders::start(&self.client, count, count, message)
            .finish()
            .await
    }

    async fn waiting(&self) -> Result<u64> {
        let figures = self.client.get("/api/v1/queue/stats").await?;
        let waiting = &figures.data()["total"]["pending"];
        waiting
            .as_u64()
            .context("the queue's figures do not say what waits")
    }
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let mut rig = Rig::start().await?;
    let (one, others) = prepare(&rig, &options).await?;

    eprintln!("the others alone for {} s …", options.seconds);
    let alone = steady(&others, &options).await?;
    eprintln!("{} messages of the one tenant …", options.backlog);
    one.queues("pause").await?;
    let started = Instant::now();
    one.enqueue(options.backlog).await?;
    let enqueued_in = started.elapsed();
    one.queues("resume").await?;
    let waited_before = one.waiting().await?;
    eprintln!("the others beside it for {} s …", options.seconds);
    let beside = steady(&others, &options).await?;
    let waited_after = one.waiting().await?;
    one.queues("pause").await?;
    if waited_after == 0 {
        bail!("the backlog was gone before the end; take a larger one");
    }

    let (index, shares) = equal_backlogs(&others, options.equal).await?;
    rig.halt().await?;
    rig.check()?;
    report::print(
        "fairness",
        &json!({
            "backlog": options.backlog,
            "others": options.others,
            "rate_each": options.rate,
            "seconds": options.seconds,
            "equal": options.equal,
        }),
        &json!({
            "enqueue_ms": enqueued_in.as_millis(),
            "backlog_at_start": waited_before,
            "backlog_at_end": waited_after,
            "others_latency_alone": report::latencies(&alone.latency),
            "others_latency_beside": report::latencies(&beside.latency),
            "others_p99_ratio": report::ratio(
                beside.latency.value_at_quantile(0.99),
                alone.latency.value_at_quantile(0.99),
            ),
            "others_unacknowledged_in_10_s": [alone.missed, beside.missed],
            "jain_index_of_equal_backlogs": index,
            "equal_backlogs_done_at_half_time": shares,
        }),
    )?;
    rig.stop().await
}

/// Links everybody, and has everybody write to each contact once.
async fn prepare(rig: &Rig, options: &Options) -> Result<(Tenant, Vec<Tenant>)> {
    rig.link(0, SESSIONS).await?;
    make_contacts(rig, CONTACTS)?;
    let one = Tenant {
        client: rig.client.clone(),
        load: Load::new(SESSIONS, CONTACTS),
    };
    one.load.meet(&one.client).await?;
    let mut others = Vec::with_capacity(options.others);
    for n in 0..options.others {
        let client = rig.tenant(&format!("other-{n}")).await?;
        let first = SESSIONS + n;
        rig.link_of(&client, first, first + 1).await?;
        let load = Load {
            first,
            ..Load::new(1, CONTACTS)
        };
        load.meet(&client).await?;
        others.push(Tenant { client, load });
    }
    Ok((one, others))
}

/// All others send at their rate, in turn, and wait for WhatsApp's word.
async fn steady(others: &[Tenant], options: &Options) -> Result<Paced> {
    let rate = f64::from(options.rate) * to_f64(others.len());
    let seconds = usize::try_from(options.seconds).unwrap_or(usize::MAX);
    let count = seconds * others.len() * usize::try_from(options.rate)?;
    let never = AtomicBool::new(false);
    let paced = open_loop(rate, count, &never, |n| {
        let tenant = &others[n % others.len()];
        let client = tenant.client.clone();
        let (path, body) = tenant.load.message(n / others.len(), "10");
        async move { Ok(client.post(&path, &body).await?.status == 200) }
    });
    paced.await
}

/// Queues as much for each tenant, lets all go at once, and looks how far each is when half is done.
/// Gives Jain's index, 1 for even and 1/n for one tenant only, and how much was done.
async fn equal_backlogs(tenants: &[Tenant], each: usize) -> Result<(f64, Vec<usize>)> {
    eprintln!("{each} messages of each of the others …");
    let mut feeds = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        tenant.queues("pause").await?;
        tenant.enqueue(each).await?;
        feeds.push(Feed::from_now(&tenant.client).await?);
    }
    for tenant in tenants {
        tenant.queues("resume").await?;
    }
    let started = Instant::now();
    let done =
        |feeds: &[Feed]| -> Vec<usize> { feeds.iter().map(|feed| feed.delivered.len()).collect() };
    while done(&feeds).iter().sum::<usize>() < each * tenants.len() / 2 {
        for read in futures::future::join_all(feeds.iter_mut().map(|feed| feed.read(0))).await {
            read?;
        }
        if started.elapsed() > Duration::from_secs(600) {
            bail!("half of the equal backlogs were not done within 600 s");
        }
    }
    let shares = done(&feeds);
    Ok((jain(&shares), shares))
}

fn jain(shares: &[usize]) -> f64 {
    let shares: Vec<f64> = shares.iter().map(|share| to_f64(*share)).collect();
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 {
        return 0.0;
    }
    (sum * sum / (squares * to_f64(shares.len())) * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_even_shares_and_one_nth_for_one_taker() {
        for (shares, index) in [
            (&[5, 5, 5, 5][..], 1.0),
            (&[20, 0, 0, 0], 0.25),
            (&[3, 1], 0.8),
            (&[0, 0], 0.0),
        ] {
            assert!((jain(shares) - index).abs() < 1e-9, "{shares:?}");
        }
    }
}
