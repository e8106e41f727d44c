//! Runs a plan: every lane of sends, every phone, every session's steering and every kind of fault is a
//! task of its own that does its steps in order, each at its time or as soon after as it can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use wagate_network::handle::PhoneHandle;

use super::clients::Clients;
use super::faults::Breaker;
use super::journal::{Book, Broken, Request, Written};
use super::plan::{Fault, Plan, Step, Timed};
use super::rig::Rig;
use crate::people::{contact_number, owner_number};

/// Steps that come one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    Lane(usize, usize),
    Phone(usize),
    Session(usize),
    Gateway(usize),
    Database,
    Clock(usize),
    /// Every one by itself: they may overlap.
    Wire(usize),
}

/// Runs the plan to its end; every fault is over then.
pub async fn run(rig: &Rig, clients: &Clients, plan: &Plan) {
    let start = Instant::now();
    let mut tracks: BTreeMap<Track, Vec<Timed>> = BTreeMap::new();
    for (place, timed) in plan.steps.iter().enumerate() {
        let track = track_of(&timed.step, place);
        tracks.entry(track).or_default().push(timed.clone());
    }
    let breaker = Breaker::new(rig);
    let owners: Arc<Vec<PhoneHandle>> =
        Arc::new(rig.slots.iter().map(|s| s.owner.clone()).collect());
    let mut tasks = JoinSet::new();
    let mut database = Vec::new();
    for (track, steps) in tracks {
        if track == Track::Database && rig.cluster.is_some() {
            database = steps;
            continue;
        }
        let runner = Runner {
            clients: clients.clone(),
            breaker: breaker.clone(),
            contacts: rig.contacts.clone(),
            owners: Arc::clone(&owners),
            book: Arc::clone(&rig.book),
            round: plan.draw.round,
        };
        tasks.spawn(async move {
            for Timed { at, step } in steps {
                sleep_until(start + Duration::from_millis(at)).await;
                runner.step(step).await;
            }
        });
    }
    crash_database(rig, start, database).await;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            rig.book
                .mishap(format!("the harness itself failed: {error}"));
        }
    }
}

/// The server is the rig's, so its crashes are carried out here.
async fn crash_database(rig: &Rig, start: Instant, steps: Vec<Timed>) {
    let Some(cluster) = &rig.cluster else { return };
    for Timed { at, step } in steps {
        sleep_until(start + Duration::from_millis(at)).await;
        if let Step::Fault(fault) = step {
            rig.book.fault(&fault.name());
            rig.book.broken(Broken::Database, rig.network.now());
            if let Err(error) = cluster.crash_and_restart().await {
                rig.book
                    .mishap(format!("the database does not start: {error:#}"));
            }
            rig.book.mended(Broken::Database, rig.network.now());
        }
    }
}

fn track_of(step: &Step, place: usize) -> Track {
    match step {
        Step::Send {
            session, contact, ..
        } => Track::Lane(*session, *contact),
        Step::Write { contact, .. } | Step::Read { contact, .. } => Track::Phone(*contact),
        Step::Restart { session } | Step::Pause { session, .. } => Track::Session(*session),
        Step::Fault(fault) => match fault {
            Fault::Kill { gateway, .. }
            | Fault::KillAt { gateway, .. }
            | Fault::Stop { gateway }
            | Fault::Freeze { gateway, .. }
            | Fault::Full { gateway, .. } => Track::Gateway(*gateway),
            Fault::Clock { gateway, .. } => Track::Clock(*gateway),
            Fault::Locked { .. } | Fault::DatabaseCrash => Track::Database,
            _ => Track::Wire(place),
        },
    }
}

/// What a task works with.
struct Runner {
    clients: Clients,
    breaker: Breaker,
    contacts: Vec<PhoneHandle>,
    owners: Arc<Vec<PhoneHandle>>,
    book: Arc<Book>,
    round: u32,
}

impl Runner {
    async fn step(&self, step: Step) {
        match step {
            Step::Send {
                session,
                contact,
                number,
                priority,
                how,
                wish,
            } => {
                let request = Request {
                    marker: sent_marker(self.round, number),
                    session,
                    contact,
                    priority,
                    wish,
                    ..Request::default()
                };
                self.clients.send(request, how).await;
            }
            Step::Write {
                contact,
                session,
                number,
            } => self.write(contact, session, number).await,
            Step::Read { contact, session } => {
                if let Some(phone) = self.contacts.get(contact) {
                    // A chat that is not there yet has nothing to read.
                    phone.read(&owner_number(session)).await.ok();
                }
            }
            Step::Restart { session } => {
                self.book.fault("session_restart");
                self.clients.steer(session, "restart", None).await;
            }
            Step::Pause { session, ms } => {
                self.book.fault("session_pause");
                self.clients.steer(session, "disconnect", None).await;
                sleep(Duration::from_millis(ms)).await;
                let body = json!({ "method": "qr" });
                self.clients.steer(session, "connect", Some(body)).await;
            }
            Step::Fault(fault) => self.breaker.carry_out(&fault).await,
        }
    }

    async fn write(&self, contact: usize, session: usize, number: u32) {
        let (Some(phone), Some(owner)) = (self.contacts.get(contact), self.owners.get(session))
        else {
            return;
        };
        let marker = written_marker(self.round, number);
        match phone.send(&owner.number(), &marker).await {
            Ok(wa_id) => self.book.open().written.push(Written {
                marker,
                session,
                contact,
                wa_id,
            }),
            Err(error) => self
                .book
                .mishap(format!("{} cannot write: {error}", contact_number(contact))),
        }
    }
}

/// The text of a send.
pub fn sent_marker(round: u32, number: u32) -> String {
    format!("s{round}-{number}")
}

/// The text of what a phone writes.
pub fn written_marker(round: u32, number: u32) -> String {
    format!("w{round}-{number}")
}

/// The round that a marker is of.
pub fn round_of(marker: &str) -> Option<u32> {
    let (round, _) = marker.get(1..)?.split_once('-')?;
    round.parse().ok()
}
