//! A status moves forward only, says the truth, and is the same wherever it is read (R4); and how many
//! messages are on their way at once (R10).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use wagate_network::faults::Direction;
use wagate_network::transcript::{Note, StanzaEntry};

use super::{Breach, Index, breach, is_sent, rank};
use crate::soak::evidence::Event;

/// A receipt is written down within this, while nothing is broken.
const RECORD_MS: i64 = 1_500;

pub(super) fn forward_only(index: &Index<'_>, found: &mut Vec<Breach>) {
    for (message, events) in &index.events {
        let mut now: Option<&str> = None;
        for event in events {
            let next = match event.kind.as_str() {
                "message.queued" => "queued",
                "message.status" => event.status.as_str(),
                _ => continue,
            };
            let fits = match now {
                Some(now) => may_follow(now, next),
                // News of an earlier round's messages may come now; also of one that was given up.
                None if !index.known(message) => is_sent(next),
                None => event.kind == "message.queued",
            };
            if !fits {
                let text = format!(
                    "{message} went from {} to {next} (event {})",
                    now.unwrap_or("nothing"),
                    event.seq
                );
                breach(found, "R4", text);
            }
            now = Some(next);
        }
    }
    let mut heads: HashMap<usize, i64> = HashMap::new();
    for event in &index.all.events {
        let before = heads.insert(event.tenant, event.seq);
        if let Some(before) = before.filter(|before| before + 1 != event.seq) {
            let text = format!("event {} of a tenant follows {before}", event.seq);
            breach(found, "R4", text);
        }
    }
}

fn may_follow(now: &str, next: &str) -> bool {
    match next {
        "queued" => now == "sending",
        "sending" => now == "queued",
        "failed" => matches!(now, "queued" | "sending"),
        "canceled" | "expired" => now == "queued",
        // A late word of the server lifts a verdict that was wrong.
        _ => matches!(now, "failed" | "canceled" | "expired") || rank(now) < rank(next),
    }
}

pub(super) fn true_and_agreed(index: &Index<'_>, found: &mut Vec<Breach>) {
    for stored in index.all.stored.iter().filter(|stored| !stored.inbound) {
        // What the owner wrote on the phone has no way behind it.
        if !index.events.contains_key(stored.id.as_str()) && !stored.text.starts_with('s') {
            continue;
        }
        let owner = index.owner(&stored.session);
        let accepted = index.accepted.contains(&(owner, stored.wa_id.as_str()));
        if is_sent(&stored.status) && !accepted {
            let text = format!(
                "{} ({}) is {}, and WhatsApp's server never took it",
                stored.text, stored.id, stored.status
            );
            breach(found, "R4", text);
        }
        let events = index.events.get(stored.id.as_str());
        let last = events.and_then(|events| events.last().map(|event| status_of(event)));
        // Events are read after the list, so they may know more.
        let behind = last.is_none_or(|last| {
            last != stored.status && (!is_sent(last) || rank(last) < rank(&stored.status))
        });
        if behind {
            let text = format!(
                "{} ({}) is {} in the list and {} in the events",
                stored.text,
                stored.id,
                stored.status,
                last.unwrap_or("nothing")
            );
            breach(found, "R4", text);
        }
    }
    for (message, history) in &index.all.histories {
        let steps: Vec<&str> = history.iter().map(|step| step.status.as_str()).collect();
        let events = index.events.get(message.as_str());
        let told: Vec<&str> = events
            .into_iter()
            .flatten()
            .map(|event| status_of(event))
            .collect();
        if !steps.starts_with(&told) || told.is_empty() {
            let text = format!("{message} has the history {steps:?} and the events {told:?}");
            breach(found, "R4", text);
        }
    }
}

fn status_of(event: &Event) -> &str {
    if event.is_status() {
        &event.status
    } else {
        "queued"
    }
}

/// Each receipt that reached a session while nothing was broken is written down.
pub(super) fn receipts_recorded(index: &Index<'_>, found: &mut Vec<Breach>) {
    let mut ended: HashMap<u64, i64> = HashMap::new();
    let mut deaf: HashSet<u64> = HashSet::new();
    let mut live: HashMap<(&str, u16), u64> = HashMap::new();
    for entry in &index.all.entries {
        match &entry.note {
            Note::Connected {
                phone,
                device,
                conn,
                ..
            } => {
                live.insert((phone, *device), *conn);
            }
            Note::Disconnected { conn, .. } => {
                ended.insert(*conn, entry.at);
            }
            Note::Fault {
                action,
                phone,
                device,
                ..
            } if action == "silence" => {
                deaf.extend(live.get(&(phone.as_str(), *device)));
            }
            _ => {}
        }
    }
    let stored: HashMap<(&str, &str), _> = index
        .all
        .stored
        .iter()
        .filter(|stored| !stored.inbound)
        .map(|stored| {
            (
                (index.owner(&stored.session), stored.wa_id.as_str()),
                stored,
            )
        })
        .collect();
    for entry in &index.all.entries {
        let Note::Stanza(stanza) = &entry.note else {
            continue;
        };
        let (Some(status), Some(conn)) = (receipt(stanza), stanza.conn) else {
            continue;
        };
        let (from, to) = (entry.at - 500, entry.at + RECORD_MS);
        let cut = ended.get(&conn).is_some_and(|at| *at <= to) || deaf.contains(&conn);
        if cut || index.broken(from, to, |_| true) {
            continue;
        }
        for id in stanza.ids() {
            let Some(stored) = stored.get(&(stanza.phone.as_str(), id)) else {
                continue;
            };
            if is_sent(&stored.status) && rank(&stored.status) >= rank(status) {
                continue;
            }
            let text = format!(
                "a receipt said that {} is {status}, and it is {}",
                stored.text, stored.status
            );
            breach(found, "R4", text);
        }
    }
}

/// What a receipt for a session's device says.
fn receipt(stanza: &StanzaEntry) -> Option<&'static str> {
    if stanza.tag != "receipt" || stanza.direction != Direction::ToDevice || stanza.device == 0 {
        return None;
    }
    match stanza.type_.as_deref() {
        None | Some("") => Some("delivered"),
        Some("read") => Some("read"),
        _ => None,
    }
}

pub(super) fn limits(index: &Index<'_>, found: &mut Vec<Breach>) {
    // Per session: the messages on their way, and their chats.
    let mut flying: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for event in index.all.events.iter().filter(|event| event.is_status()) {
        let session = flying.entry(&event.session).or_default();
        let flight = (event.chat.as_str(), event.message.as_str());
        if event.status != "sending" {
            session.remove(&flight);
            continue;
        }
        if let Some((_, other)) = session.iter().find(|(chat, _)| *chat == event.chat) {
            let text = format!(
                "{} and {other} of one chat of {} are on their way at once (event {})",
                event.message, event.session, event.seq
            );
            breach(found, "R10", text);
        }
        session.insert(flight);
        if session.len() > index.all.concurrency {
            let text = format!(
                "{} messages of {} are on their way at once (event {})",
                session.len(),
                event.session,
                event.seq
            );
            breach(found, "R10", text);
        }
    }
}
