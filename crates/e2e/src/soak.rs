//! The soak: a seeded workload and seeded faults against real gateways and the simulated network, judged
//! round by round, so that a long run needs no more memory than a short one.
//!
//! | module | what it holds |
//! |---|---|
//! | [`dice`], [`plan`] | what a round does and when, from a seed; pure and printable |
//! | [`rig`], [`keeper`] | network, database, gateways; whoever keeps a gateway alive, and kills it |
//! | [`clients`], [`drive`], [`faults`] | carries a plan out |
//! | [`journal`], [`feed`], [`evidence`] | what was done and seen |
//! | [`drain`] | faults off, a bounded wait for the end of the work, the gathering of the evidence |
//! | [`judge`], [`trace`] | the verdict: pure functions over the evidence; and what is known about a breach |

pub mod clients;
pub mod dice;
pub mod drain;
pub mod drive;
pub mod evidence;
pub mod faults;
pub mod feed;
pub mod journal;
pub mod judge;
pub mod keeper;
pub mod plan;
pub mod rig;
pub mod trace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use wagate_network::faults::Direction;
use wagate_network::transcript::{Note, StanzaEntry};

use clients::Clients;
use evidence::Evidence;
use feed::Feeds;
use judge::Breach;
use plan::{Draw, Kind, Plan, Shape};
use rig::Rig;

/// Messages of a session on their way at once: the gateway's default.
pub const CONCURRENCY: usize = 3;

/// What to run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The gateway's program, built for the simulated network.
    pub gateway: PathBuf,
    pub seed: u64,
    pub shape: Shape,
    /// Rounds begin until this time has passed, or until so many have been.
    pub time: Duration,
    pub rounds: u32,
    /// Sends of a round, and sends a second.
    pub sends: u32,
    pub rate: u32,
    /// See [`Draw`].
    pub pause_ms: u64,
    pub longest_ms: u64,
    /// How long the work may take to end after the faults.
    pub settle: Duration,
    /// A bug to plant.
    pub plant: Option<String>,
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub rounds: u32,
    pub sent: u64,
    pub received: u64,
    pub refused: u64,
    pub failed: u64,
    pub delivered: u64,
    /// Requests that were tried more than once.
    pub retried: u64,
    /// Copies that came over the wire again and that phones hid.
    pub copies: u64,
    /// Copies that phones could not decrypt, and asked for again.
    pub unreadable_sent: u64,
    /// The same for copies that a gateway could not decrypt.
    pub unreadable_received: u64,
    pub kills: u64,
    pub faults: BTreeMap<String, u64>,
    pub breaches: Vec<Breach>,
    /// All that is known about them.
    pub trace: String,
    /// The round in which the breaches were found.
    pub broken_round: Option<u32>,
}

impl Soak {
    /// A run as small as a test wants it: one round of some seconds with the faults of a long one.
    pub fn small(gateway: &Path, seed: u64, database: Kind) -> Self {
        let gateways = if database == Kind::Postgres { 2 } else { 1 };
        Self {
            gateway: gateway.to_owned(),
            seed,
            shape: Shape {
                tenants: 2,
                sessions: 2,
                contacts: 5,
                gateways,
                database,
            },
            time: Duration::from_secs(3600),
            rounds: 1,
            sends: 150,
            rate: 12,
            pause_ms: 1_800,
            longest_ms: 1_500,
            settle: Duration::from_secs(40),
            plant: None,
        }
    }

    /// The plan of a round.
    pub fn plan(&self, round: u32) -> Plan {
        let draw = Draw {
            seed: self.seed,
            round,
            sends: self.sends,
            rate: self.rate,
            pause_ms: self.pause_ms,
            longest_ms: self.longest_ms,
        };
        Plan::draw(&self.shape, draw)
    }

    /// Runs until a round breaks a promise, or to the end. `say` is told of the progress.
    ///
    /// # Errors
    /// The set-up does not work; a broken promise is no error but in the summary.
    pub async fn run(&self, say: impl Fn(String)) -> Result<Summary> {
        let started = Instant::now();
        let rig = Rig::start(&self.gateway, self.shape, self.sends, self.plant.as_deref()).await?;
        let clients = Clients::new(&rig, self.settle)?;
        let mut tasks = JoinSet::new();
        let feeds = Feeds::follow(&clients, self.shape.tenants, &mut tasks);
        let mut summary = Summary::default();
        let mut marks = (0, 0);
        for round in 0..self.rounds {
            if started.elapsed() >= self.time && round > 0 {
                break;
            }
            let plan = self.plan(round);
            watched(&rig, &feeds, &say, drive::run(&rig, &clients, &plan)).await;
            let unsettled = drain::settle(&rig, &clients, &feeds, (marks.1, self.settle)).await;
            let evidence = drain::gather(&rig, &clients, &feeds, (round, marks), unsettled).await?;
            let newest = evidence.entries.last().map_or(marks.1, |entry| entry.seq);
            marks = (marks.1, newest);
            let breaches = judge::judge(&evidence);
            summary.add(&evidence);
            say(format!(
                "round {round}: {} sent, {} received, {} kills, {} breach(es) so far; {} s",
                summary.sent,
                summary.received,
                summary.kills,
                breaches.len(),
                started.elapsed().as_secs()
            ));
            if !breaches.is_empty() {
                summary.trace = trace::trace(&evidence, &breaches);
                for (number, hand) in rig.hands.iter().enumerate() {
                    let said = hand.said().await;
                    summary.trace += &format!("\ngateway {number} printed last:\n{said}\n");
                }
                summary.breaches = breaches;
                summary.broken_round = Some(round);
                break;
            }
        }
        tasks.shutdown().await;
        rig.stop().await;
        Ok(summary)
    }
}

/// A companion's request for another copy of a message.
fn asks_again(stanza: &StanzaEntry) -> bool {
    let retry = stanza.tag == "receipt" && stanza.type_.as_deref() == Some("retry");
    retry && stanza.direction == Direction::FromDevice && stanza.device != 0
}

/// Waits for the end of a round and says every ten seconds how it goes.
async fn watched(rig: &Rig, feeds: &Feeds, say: &impl Fn(String), work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    while timeout(Duration::from_secs(10), &mut work).await.is_err() {
        let events = feeds.open().events.len();
        let journal = rig.book.open();
        say(format!(
            "  … {} requests, {} texts from phones, {events} events, {} kills, {} faults",
            journal.requests.len(),
            journal.written.len(),
            journal.kills,
            journal.faults.values().sum::<u64>()
        ));
    }
}

impl Summary {
    fn add(&mut self, evidence: &Evidence) {
        let journal = &evidence.journal;
        self.rounds += 1;
        for request in &journal.requests {
            match request.end {
                journal::End::Accepted(_) => self.sent += 1,
                journal::End::Refused { .. } => self.refused += 1,
                journal::End::Open => {}
            }
            self.retried += u64::from(request.attempts.len() > 1);
        }
        self.received += journal.written.len() as u64;
        let outbound = evidence.stored.iter().filter(|stored| !stored.inbound);
        for stored in outbound {
            match stored.status.as_str() {
                "failed" => self.failed += 1,
                "delivered" | "read" | "played" => self.delivered += 1,
                _ => {}
            }
        }
        for entry in &evidence.entries {
            match &entry.note {
                Note::Hidden { .. } => self.copies += 1,
                Note::Undecryptable { .. } => self.unreadable_sent += 1,
                Note::Stanza(stanza) if asks_again(stanza) => self.unreadable_received += 1,
                _ => {}
            }
        }
        self.kills += journal.kills;
        for (name, count) in &journal.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
    }

    /// The rules that were broken, each once.
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<_> = self.breaches.iter().map(|breach| breach.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// One line for machines.
    pub fn to_json(&self, seed: u64, seconds: u64) -> Value {
        let breaches: Vec<String> = self.breaches.iter().map(Breach::to_string).collect();
        json!({
            "soak": { "seed": seed, "seconds": seconds, "rounds": self.rounds },
            "messages": {
                "sent": self.sent, "received": self.received, "refused": self.refused,
                "failed": self.failed, "delivered": self.delivered, "retried": self.retried,
                "copies_hidden": self.copies,
                "unreadable_sent": self.unreadable_sent,
                "unreadable_received": self.unreadable_received,
            },
            "kills": self.kills,
            "faults": self.faults,
            "violations": self.breaches.len(),
            "broken_round": self.broken_round,
            "breaches": breaches,
        })
    }
}
