//! B05: texts that come in: decrypted, committed, acknowledged to WhatsApp, read in the event feed.
//!
//! First as many as go (closed loop), then at half that rate (open loop), for the time from the phone's
//! sending to the reader of the feed. Most texts go on in a chain of a running conversation; a share comes
//! from people who never wrote before, whose first text costs a key agreement.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use wagate_network::handle::PhoneHandle;

use super::{Load, make_contacts, text};
use crate::events::Feed;
use crate::load::{Metronome, histogram, to_f64};
use crate::process;
use crate::report;
use crate::rig::{self, Rig};

/// Without a new text for so long the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 50_000)]
    messages: usize,
    #[command(flatten)]
    load: Load,
    /// Texts on their way at any time.
    #[arg(long, default_value_t = 1024)]
    in_flight: usize,
    /// So many percent of the texts are from people who never wrote before.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    strangers: u8,
    /// Length of the second part, at half the rate, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// Who writes text number `n` to whom, and when each was sent or due.
struct Peers {
    load: Load,
    contacts: Vec<PhoneHandle>,
    strangers: Vec<PhoneHandle>,
    /// Every so many texts one is a stranger's; 0: never.
    stranger_every: usize,
    sent: Vec<OnceLock<Instant>>,
}

impl Peers {
    async fn write(&self, n: usize, at: Instant) -> Result<()> {
        let load = self.load;
        let contact = &self.contacts[(n / load.sessions) % load.contacts];
        let writer = match self.stranger_every {
            0 => contact,
            every if n.is_multiple_of(every) => self.strangers.get(n / every).unwrap_or(contact),
            _ => contact,
        };
        if let Some(sent) = self.sent.get(n) {
            sent.get_or_init(|| at);
        }
        let owner = rig::owner_number(n % load.sessions);
        writer.send(&owner, &text(n)).await?;
        Ok(())
    }
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let rig = Rig::start().await?;
    let peers = Arc::new(prepare(&rig, &options).await?);
    let pairs = options.load.sessions * options.load.contacts;
    let mut feed = Feed::from_now(&rig.client).await?;
    eprintln!("{pairs} texts that begin the conversations …");
    receive(&mut feed, &peers, 0..pairs, Pace::InFlight(256)).await?;

    eprintln!("{} texts, as many as go …", options.messages);
    let (before, own_before) = (rig.usage()?, process::usage(None)?);
    let (started, first) = (Instant::now(), pairs + options.messages);
    let pace = Pace::InFlight(options.in_flight);
    receive(&mut feed, &peers, pairs..first, pace).await?;
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (after, own_after) = (rig.usage()?, process::usage(None)?);
    let count = options.messages as u64;
    let rate = report::ratio(count * 1000, millis);

    eprintln!("half of that rate for {} s …", options.seconds);
    let pace = Pace::Rate(rate / 2.0);
    let half = half_rate(rate, options.seconds).min(options.messages);
    let latency = receive(&mut feed, &peers, first..first + half, pace).await?;
    rig.check()?;
    report::print(
        "inbound",
        &json!({
            "messages": options.messages,
            "in_flight": options.in_flight,
            "strangers_percent": options.strangers,
            "load": options.load.to_json(),
        }),
        &json!({
            "messages_per_second": rate,
            "gateway_cpu_us_per_message": report::ratio((after.cpu_ms - before.cpu_ms) * 1000, count),
            "network_and_generator_cpu_us_per_message":
                report::ratio((own_after.cpu_ms - own_before.cpu_ms) * 1000, count),
            "latency_at_half_the_rate": report::latencies(&latency),
        }),
    )?;
    rig.stop().await
}

fn half_rate(rate: f64, seconds: u64) -> usize {
    let texts = rate / 2.0 * to_f64(usize::try_from(seconds).unwrap_or(usize::MAX));
    format!("{texts:.0}").parse().unwrap_or(0)
}

/// Sessions write to the contacts first, who decrypt it: so they answer in the same conversation.
async fn prepare(rig: &Rig, options: &Options) -> Result<Peers> {
    let load = options.load;
    rig.link(0, load.sessions).await?;
    make_contacts(rig, load.contacts)?;
    let phone = |n| rig.network.phone(&rig::contact_number(n));
    let contacts: Vec<PhoneHandle> = (0..load.contacts)
        .map(phone)
        .collect::<Result<_, _>>()
        .context("a contact is missing")?;
    for contact in &contacts {
        contact.decrypt(true);
    }
    load.meet(&rig.client).await?;
    let texts = load.sessions * load.contacts + 2 * options.messages;
    let stranger_every = 100_usize
        .checked_div(usize::from(options.strangers))
        .unwrap_or(0);
    let strangers = texts.checked_div(stranger_every).map_or(0, |all| all + 1);
    eprintln!("{strangers} strangers …");
    let strangers = (load.contacts..load.contacts + strangers)
        .map(|n| rig.account(&rig::contact_number(n), "Stranger"))
        .collect::<Result<_>>()?;
    Ok(Peers {
        load,
        contacts,
        strangers,
        stranger_every,
        sent: (0..texts).map(|_| OnceLock::new()).collect(),
    })
}

#[derive(Clone, Copy)]
enum Pace {
    /// So many on their way at any time.
    InFlight(usize),
    /// So many a second, each at its fixed time.
    Rate(f64),
}

/// Has the peers write these texts, and reads the feed until each came in once; gives the times between.
async fn receive(
    feed: &mut Feed,
    peers: &Arc<Peers>,
    numbers: std::ops::Range<usize>,
    pace: Pace,
) -> Result<hdrhistogram::Histogram<u64>> {
    let window = Arc::new(Semaphore::new(match pace {
        Pace::InFlight(count) => count,
        Pace::Rate(_) => 0,
    }));
    let mut writers: JoinSet<Result<()>> = JoinSet::new();
    writers.spawn(write_all(
        Arc::clone(peers),
        numbers.clone(),
        pace,
        Arc::clone(&window),
    ));
    let mut latency = histogram()?;
    let (mut seen, mut last) = (vec![false; numbers.len()], Instant::now());
    let mut left = numbers.len();
    while left > 0 {
        feed.read(1).await?;
        while let Some(ended) = writers.try_join_next() {
            ended??;
        }
        for (number, read_at) in feed.received.drain(..) {
            let Some(at) = number
                .checked_sub(numbers.start)
                .filter(|at| *at < seen.len())
            else {
                bail!("text {number} came again");
            };
            if std::mem::replace(&mut seen[at], true) {
                bail!("text {number} came twice");
            }
            if let Some(sent) = peers.sent.get(number).and_then(OnceLock::get) {
                let micros = read_at.saturating_duration_since(*sent).as_micros();
                latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
            (left, last) = (left - 1, read_at);
            if let Pace::InFlight(_) = pace {
                window.add_permits(1);
            }
        }
        if last.elapsed() > PATIENCE {
            bail!("{left} of {} texts did not come in", numbers.len());
        }
    }
    Ok(latency)
}

async fn write_all(
    peers: Arc<Peers>,
    numbers: std::ops::Range<usize>,
    pace: Pace,
    window: Arc<Semaphore>,
) -> Result<()> {
    let mut beats = match pace {
        Pace::InFlight(_) => None,
        Pace::Rate(rate) => Some(Metronome::start(rate, numbers.len())?),
    };
    for n in numbers {
        let at = match &mut beats {
            None => {
                window.acquire().await?.forget();
                Instant::now()
            }
            Some(beats) => beats.next().await.context("the metronome stopped")?,
        };
        peers.write(n, at).await?;
    }
    Ok(())
}
