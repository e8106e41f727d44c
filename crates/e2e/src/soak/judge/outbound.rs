//! What was accepted arrives once and in order (R1, R2, R6).

use std::collections::{BTreeMap, HashMap, HashSet};

use wagate_network::transcript::Note;

use super::{Breach, Index, breach, is_sent};
use crate::soak::drive::round_of;
use crate::soak::evidence::Stored;
use crate::soak::journal::{Answer, End, Request, Withdrawal};
use crate::soak::plan::Priority;

/// Messages that keep their order: those of a session to a contact with one priority.
type Lane = (usize, usize, Priority);

/// A message's place in the order of acceptance, where it was first shown, and its text.
type Line<'a> = (i64, Option<u64>, &'a str);

/// A failure that leaves open whether the message arrived.
fn in_doubt(code: &str) -> bool {
    matches!(code, "unconfirmed" | "timeout")
}

pub(super) fn loss(index: &Index<'_>, found: &mut Vec<Breach>) {
    for request in &index.all.journal.requests {
        let End::Accepted(id) = &request.end else {
            continue;
        };
        let marker = &request.marker;
        let Some(stored) = index.by_id.get(id.as_str()) else {
            if request.withdrawal == Some(Withdrawal::Deleted) {
                continue;
            }
            let text = format!("{marker} was accepted as {id}, which the gateway does not have");
            breach(found, "R1", text);
            continue;
        };
        let contact = index.contact(request);
        let shown = index.shown(marker);
        if let Some((_, elsewhere)) = shown.iter().find(|(_, shown)| shown.phone != contact) {
            let text = format!("{marker} is shown by {}, not {contact}", elsewhere.phone);
            breach(found, "R1", text);
        }
        fate(stored, request, shown.len(), found);
    }
}

fn fate(stored: &Stored, request: &Request, shown: usize, found: &mut Vec<Breach>) {
    let marker = &request.marker;
    let status = stored.status.as_str();
    match status {
        "failed" => {
            let (code, reason) = stored.failure.clone().unwrap_or_default();
            if code.is_empty() || reason.is_empty() {
                let text = format!("{marker} ({}) failed and nobody says why", stored.id);
                breach(found, "R1", text);
            }
            // With several attempts one may have arrived before another was refused.
            if shown > 0 && stored.attempts <= 1 && !in_doubt(&code) {
                let text = format!("{marker} failed ({code}) and was shown");
                breach(found, "R1", text);
            }
        }
        _ if is_sent(status) && shown == 0 => {
            let text = format!("{marker} ({}) is {status} and was never shown", stored.id);
            breach(found, "R1", text);
        }
        "canceled" if request.wish.withdraw_ms.is_some() => {}
        "expired" if request.wish.valid_s.is_some() => {}
        "canceled" | "expired" => {
            breach(found, "R1", format!("{marker} is {status}, unasked"));
        }
        _ => {}
    }
}

pub(super) fn duplicates(index: &Index<'_>, found: &mut Vec<Breach>) {
    let mut known = HashSet::new();
    for request in &index.all.journal.requests {
        let marker = request.marker.as_str();
        known.insert(marker);
        let stored = index.sent.get(marker).map_or(0, Vec::len);
        let shown = index.shown(marker);
        let ids: HashSet<&str> = shown.iter().map(|(_, shown)| shown.id.as_str()).collect();
        if shown.len() > 1 {
            let text = format!(
                "{marker} is shown {} times, under {} id(s)",
                shown.len(),
                ids.len()
            );
            breach(found, "R2", text);
        }
        if stored > 1 {
            breach(found, "R2", format!("{marker} became {stored} messages"));
        }
        let answered = answered_ids(request);
        if answered.len() > 1 {
            let text = format!("{marker} was accepted as {answered:?}");
            breach(found, "R2", text);
        }
        let refused = request.reused_key || matches!(request.end, End::Refused { .. });
        if refused && (stored > 0 || !shown.is_empty()) {
            let text = format!(
                "{marker} was refused, is stored {stored} times and shown {} times",
                shown.len()
            );
            breach(found, "R2", text);
        }
    }
    for (marker, shown) in &index.shown {
        let late = round_of(marker).is_some_and(|round| round < index.all.round);
        if late && marker.starts_with('s') && !known.contains(marker) {
            let text = format!("{marker} is shown {} times, a round too late", shown.len());
            breach(found, "R2", text);
        }
    }
}

fn answered_ids(request: &Request) -> HashSet<&str> {
    let ids = request.attempts.iter().filter_map(|attempt| {
        if let Answer::Http { message, .. } = &attempt.answer {
            message.as_deref()
        } else {
            None
        }
    });
    ids.collect()
}

pub(super) fn order(index: &Index<'_>, found: &mut Vec<Breach>) {
    let mut queued: HashMap<&str, i64> = HashMap::new();
    for event in &index.all.events {
        if event.kind == "message.queued" {
            queued.insert(&event.message, event.seq);
        }
    }
    let mut asked_again: HashSet<&str> = HashSet::new();
    for entry in &index.all.entries {
        if let Note::Undecryptable { id, .. } = &entry.note {
            asked_again.insert(id);
        }
    }
    // By session, contact and priority: place in the order of acceptance, first appearance, text.
    let mut lanes: BTreeMap<Lane, Vec<Line<'_>>> = BTreeMap::new();
    for request in &index.all.journal.requests {
        let End::Accepted(id) = &request.end else {
            continue;
        };
        // What is sent at a time of its own has no place among the others.
        let place = queued.get(id.as_str());
        let Some(place) = place.filter(|_| request.send_at.is_none()) else {
            continue;
        };
        let failed = index
            .by_id
            .get(id.as_str())
            .is_none_or(|stored| !is_sent(&stored.status));
        let first = index
            .shown(&request.marker)
            .iter()
            .find(|(_, shown)| !asked_again.contains(shown.id.as_str()))
            .map(|(entry, _)| entry.seq)
            .filter(|_| !failed);
        let lane = (request.session, request.contact, request.priority);
        let line = (*place, first, request.marker.as_str());
        lanes.entry(lane).or_default().push(line);
    }
    for ((session, contact, priority), mut lane) in lanes {
        // A lane's client asks for one at a time, so its order is the journal's.
        for pair in lane.windows(2) {
            if pair[0].0 > pair[1].0 {
                let text = format!(
                    "session {session}, contact {contact}, {priority:?}: {} was accepted before {}, which was asked for first",
                    pair[1].2, pair[0].2
                );
                breach(found, "R6", text);
            }
        }
        lane.sort_by_key(|line| line.0);
        let mut newest: Option<(u64, &str)> = None;
        for (_, first, marker) in lane {
            let Some(first) = first else { continue };
            if let Some((seq, before)) = newest
                && first < seq
            {
                let text = format!(
                    "session {session}, contact {contact}, {priority:?}: {marker} is shown before {before}, which was accepted first"
                );
                breach(found, "R6", text);
            }
            newest = Some((first, marker));
        }
    }
}
