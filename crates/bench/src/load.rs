//! The two ways to put load on: open loop, each thing at its fixed time, and closed loop, so many in
//! flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use wagate::client::Client;

/// Requests in flight at once.
const CONNECTIONS: usize = 32;
/// Instants that a generator which is behind may owe before the metronome waits for it.
const BEATS_MAX: usize = 65_536;

/// What an open loop measured.
#[derive(Debug)]
pub(crate) struct Paced {
    /// From the instant at which each was due, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// So many were done, but did not reach what was wanted.
    pub(crate) missed: u64,
    /// How far the generator itself was behind at worst.
    pub(crate) latest: Duration,
}

/// Microseconds up to ten minutes.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

/// Does `count` things at `rate` a second, each at an instant fixed beforehand, whether or not earlier
/// ones have come back; fewer when `stop` is set meanwhile. `send` says whether its wish was fulfilled.
pub(crate) async fn open_loop<F, S>(
    rate: f64,
    count: usize,
    stop: &AtomicBool,
    send: F,
) -> Result<Paced>
where
    F: Fn(usize) -> S,
    S: Future<Output = Result<bool>> + Send + 'static,
{
    let mut paced = Paced {
        latency: histogram()?,
        missed: 0,
        latest: Duration::ZERO,
    };
    let mut beats = Metronome::start(rate, count)?;
    let mut tasks: JoinSet<Result<(bool, Duration)>> = JoinSet::new();
    for n in 0..count {
        let Some(due) = beats.next().await else {
            break;
        };
        if stop.load(Ordering::Relaxed) {
            break;
        }
        paced.latest = paced.latest.max(due.elapsed());
        let sent = send(n);
        tasks.spawn(async move { Ok((sent.await?, due.elapsed())) });
        while let Some(done) = tasks.try_join_next() {
            paced.take(done?)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        paced.take(done?)?;
    }
    Ok(paced)
}

/// Instants at a fixed rate. A thread keeps them, since the runtime's timer counts in whole milliseconds
/// and would be late by up to one, by as much for each instant of a run.
#[derive(Debug)]
pub(crate) struct Metronome {
    beats: mpsc::Receiver<Instant>,
}

impl Metronome {
    /// `count` instants at `rate` a second, the first a tenth of a second from now.
    pub(crate) fn start(rate: f64, count: usize) -> Result<Self> {
        let first = Instant::now() + Duration::from_millis(100);
        let (beat, beats) = mpsc::channel(count.clamp(1, BEATS_MAX));
        let keep = move || {
            for n in 0..count {
                let due = first + Duration::from_secs_f64(to_f64(n) / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if beat.blocking_send(due).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("metronome".to_owned())
            .spawn(keep)?;
        Ok(Self { beats })
    }

    /// Waits for the next instant and gives it; none after the last.
    pub(crate) async fn next(&mut self) -> Option<Instant> {
        self.beats.recv().await
    }
}

impl Paced {
    fn take(&mut self, done: Result<(bool, Duration)>) -> Result<()> {
        let (fulfilled, took) = done?;
        self.missed += u64::from(!fulfilled);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros);
        Ok(())
    }
}

/// A closed loop of requests: each takes a place in the window, which whoever sees its outcome gives back.
#[derive(Debug)]
pub(crate) struct Senders {
    window: Arc<Semaphore>,
    tasks: JoinSet<Result<()>>,
}

impl Senders {
    /// Starts sending messages 0 to `count`, of which `message` knows path and body; a window as large as
    /// `count` bounds nothing.
    pub(crate) fn start(
        client: &Client,
        count: usize,
        in_flight: usize,
        message: impl Fn(usize) -> (String, Value) + Clone + Send + 'static,
    ) -> Self {
        let window = Arc::new(Semaphore::new(in_flight.min(count)));
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (client, message) = (client.clone(), message.clone());
            let (window, next) = (Arc::clone(&window), Arc::clone(&next));
            tasks.spawn(async move {
                loop {
                    window.acquire().await?.forget();
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok(());
                    }
                    let (path, body) = message(n);
                    client.post(&path, &body).await?;
                }
            });
        }
        Self { window, tasks }
    }

    /// The outcome of so many was seen.
    pub(crate) fn seen(&self, count: usize) {
        self.window.add_permits(count);
    }

    /// Waits for the last request.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.window.add_permits(CONNECTIONS);
        while let Some(sender) = self.tasks.join_next().await {
            sender??;
        }
        Ok(())
    }
}

pub(crate) fn to_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
