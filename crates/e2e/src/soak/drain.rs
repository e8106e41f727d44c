//! After the faults: brings everything back, waits, bounded, until all is settled (R11), and gathers the
//! round's evidence.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};
use wagate_network::handle::PhoneHandle;
use wagate_network::transcript::Note;
use wagate_network::world::World;

use super::clients::Clients;
use super::drive::round_of;
use super::evidence::{Evidence, Moved, Place, Stored};
use super::feed::{Feeds, Seen};
use super::journal::{End, Journal};
use super::keeper::Order;
use super::rig::{Rig, reads_by_himself};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Receipts follow what was sent within this, or were lost where that is allowed.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(5);
/// A message that a phone asked for again is sent again within this, many times over.
const RESENDS_WITHIN: Duration = Duration::from_secs(20);
/// Whoever reads by himself does so within this, unless his receipt was lost.
const READS_WITHIN: Duration = Duration::from_secs(1);
/// Reading something that is there may be tried so often.
const TRIES: u32 = 50;
/// Histories read one by one; the events tell the same of all.
const HISTORIES_MAX: usize = 300;
/// Unsettled things named.
const NAMED_MAX: usize = 20;

/// Ends all faults and waits for the end of the work, `bound` long at most; what was waited for in vain.
/// The round's entries in the network's transcript begin behind `from`.
pub async fn settle(
    rig: &Rig,
    clients: &Clients,
    feeds: &Feeds,
    (from, bound): (u64, Duration),
) -> Vec<String> {
    rig.network.with_world(|world, _, _| world.faults.clear());
    for hand in &rig.hands {
        hand.order(Order::Settle).await;
    }
    let started = Instant::now();
    let mut settled = false;
    loop {
        let open = unsettled(rig, clients, feeds).await;
        if open.is_empty() {
            settled = true;
        } else if started.elapsed() > bound {
            return open;
        }
        if settled {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    let sent = Instant::now();
    while sent.elapsed() < RECEIPTS_WITHIN && awaits_receipts(feeds) {
        sleep(LOOK_EVERY).await;
    }
    let delivered = Instant::now();
    while delivered.elapsed() < READS_WITHIN && awaits_readers(rig, feeds) {
        sleep(LOOK_EVERY).await;
    }
    let asked = Instant::now();
    while asked.elapsed() < RESENDS_WITHIN && awaits_resends(rig, from) {
        sleep(Duration::from_secs(1)).await;
    }
    Vec::new()
}

/// A phone asked for a message again that no phone of that number shows, and that WhatsApp took.
fn awaits_resends(rig: &Rig, from: u64) -> bool {
    rig.network.with_world(|world, _, _| {
        let mut asked: HashSet<(&str, &str)> = HashSet::new();
        for entry in world.transcript.entries(from) {
            match &entry.note {
                Note::Undecryptable { phone, id, .. } => {
                    asked.insert((phone, id));
                }
                Note::Shown(shown) => {
                    asked.remove(&(shown.phone.as_str(), shown.id.as_str()));
                }
                _ => {}
            }
        }
        !asked.is_empty()
    })
}

fn awaits_receipts(feeds: &Feeds) -> bool {
    feeds.open().status.values().any(|status| status == "sent")
}

/// Somebody who reads by himself has something that he did not read yet.
fn awaits_readers(rig: &Rig, feeds: &Feeds) -> bool {
    let (journal, seen) = (rig.book.open(), feeds.open());
    journal.requests.iter().any(|request| match &request.end {
        End::Accepted(id) if reads_by_himself(request.contact) => {
            seen.status.get(id).is_some_and(|s| s == "delivered")
        }
        _ => false,
    })
}

/// What is not as it must be in the end.
async fn unsettled(rig: &Rig, clients: &Clients, feeds: &Feeds) -> Vec<String> {
    let mut open = Vec::new();
    for slot in &rig.slots {
        let path = format!("/api/v1/sessions/{}/status", slot.name);
        match clients.read(slot.tenant, &path).await {
            Ok(answer) => {
                let data = &answer["data"];
                let queued = data["counters"]["queued"].as_u64().unwrap_or(0);
                if data["status"] != "connected" || queued > 0 {
                    open.push(format!(
                        "session {} is {} with {queued} message(s) queued: {}",
                        slot.name, data["linkState"], data["reason"]
                    ));
                }
            }
            Err(error) => open.push(format!("session {} cannot be read: {error}", slot.name)),
        }
    }
    let journal = rig.book.open();
    let seen = feeds.open();
    for request in &journal.requests {
        match &request.end {
            End::Open => open.push(format!("nobody knows what became of {}", request.marker)),
            End::Accepted(id) => {
                let status = seen.status.get(id).map_or("no event", String::as_str);
                if matches!(status, "queued" | "sending" | "no event") {
                    open.push(format!("{} ({id}) is still {status}", request.marker));
                }
            }
            End::Refused { .. } => {}
        }
        if open.len() > NAMED_MAX {
            return open;
        }
    }
    let missing = journal
        .written
        .iter()
        .filter(|written| !seen.received.contains(&written.marker));
    open.extend(missing.map(|written| format!("{} was never received", written.marker)));
    open.truncate(NAMED_MAX);
    open
}

/// Gathers everything about the round; what is gathered is forgotten elsewhere.
pub async fn gather(
    rig: &Rig,
    clients: &Clients,
    feeds: &Feeds,
    (round, since): (u32, (u64, u64)),
    unsettled: Vec<String>,
) -> Result<Evidence> {
    let stored = stored(rig, clients, round).await?;
    let Seen { events, .. } = feeds.turn();
    let (before, from) = since;
    let (entries, network, whole) = rig.network.with_world(|world: &mut World, _, _| {
        let entries: Vec<_> = world.transcript.entries(from).cloned().collect();
        let whole = world.transcript.is_complete_after(from);
        (entries, world.check_after(before).violations, whole)
    });
    // Judged by half of it, a sound round would look broken.
    ensure!(
        whole,
        "the network's transcript no longer has the beginning of round {round}"
    );
    let journal: Journal = rig.book.turn();
    let histories = histories(rig, clients, &stored).await?;
    let place = |slot: &super::rig::Slot| Place {
        name: slot.name.clone(),
        tenant: slot.tenant,
        owner: slot.owner.number(),
    };
    Ok(Evidence {
        round,
        journal,
        stored,
        events,
        histories,
        entries,
        network,
        sessions: rig.slots.iter().map(place).collect(),
        contacts: rig.contacts.iter().map(PhoneHandle::number).collect(),
        unsettled,
        concurrency: super::CONCURRENCY,
    })
}

/// The messages of the round: lists are newest first, so reading ends with the first older page.
async fn stored(rig: &Rig, clients: &Clients, round: u32) -> Result<Vec<Stored>> {
    let mut all = Vec::new();
    for slot in &rig.slots {
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/sessions/{}/messages?limit=200{cursor}", slot.name);
            let page = insist(clients, slot.tenant, &path).await?;
            let rows = page["data"].as_array().cloned().unwrap_or_default();
            let before = all.len();
            let newer = rows
                .iter()
                .map(Stored::of)
                .filter(|stored| round_of(&stored.text).is_none_or(|of| of >= round));
            all.extend(newer);
            let next = page["page"]["next"].as_str();
            let Some(next) = next.filter(|_| all.len() > before) else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
    }
    Ok(all)
}

/// Some messages' histories: of all that failed, and evenly of the others.
async fn histories(
    rig: &Rig,
    clients: &Clients,
    stored: &[Stored],
) -> Result<Vec<(String, Vec<Moved>)>> {
    let outbound: Vec<&Stored> = stored.iter().filter(|stored| !stored.inbound).collect();
    let every = (outbound.len() / HISTORIES_MAX).max(1);
    let chosen = outbound
        .iter()
        .enumerate()
        .filter(|(place, stored)| place % every == 0 || stored.status == "failed")
        .take(HISTORIES_MAX * 2);
    let mut histories = Vec::new();
    for (_, stored) in chosen {
        let slot = rig.slots.iter().find(|slot| slot.name == stored.session);
        let tenant = slot.map_or(0, |slot| slot.tenant);
        let path = format!("/api/v1/messages/{}", stored.id);
        let answer = insist(clients, tenant, &path).await?;
        let steps = answer["data"]["history"].as_array().cloned();
        let steps = steps.unwrap_or_default().iter().map(Moved::of).collect();
        histories.push((stored.id.clone(), steps));
    }
    Ok(histories)
}

async fn insist(clients: &Clients, tenant: usize, path: &str) -> Result<serde_json::Value> {
    let mut last = None;
    for _ in 0..TRIES {
        match clients.read(tenant, path).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = Some(error),
        }
        sleep(LOOK_EVERY).await;
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("never tried")))
        .with_context(|| format!("{path} cannot be read although no fault is on"))
}
