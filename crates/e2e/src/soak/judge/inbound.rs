//! What comes in is stored once, and acknowledged after its commit (R3).

use std::collections::HashMap;

use wagate_network::faults::Direction;
use wagate_network::transcript::Note;

use super::{Breach, Index, breach};

/// The two clocks are one, read at slightly different moments.
const SLACK_MS: i64 = 5;
/// What is acknowledged now was recorded this long ago at most.
const RECENT_MS: i64 = 60_000;

pub(super) fn stored_once(index: &Index<'_>, found: &mut Vec<Breach>) {
    let mut events: HashMap<&str, usize> = HashMap::new();
    for event in &index.all.events {
        if event.kind == "message.received" && !event.from_me {
            *events.entry(event.text.as_str()).or_default() += 1;
        }
    }
    for written in &index.all.journal.written {
        let marker = written.marker.as_str();
        let stored = index.received.get(marker).map_or(&[][..], Vec::as_slice);
        if stored.len() != 1 {
            let text = format!("{marker} came in once and is stored {} times", stored.len());
            breach(found, "R3", text);
        }
        let wanted = index.all.sessions.get(written.session);
        let wanted = wanted.map_or("", |place| place.name.as_str());
        if let Some(other) = stored.iter().find(|stored| stored.session != wanted) {
            let text = format!("{marker} is stored by {}, not {wanted}", other.session);
            breach(found, "R3", text);
        }
        let told = events.get(marker).copied().unwrap_or(0);
        if told != 1 {
            let text = format!("{marker} came in once and has {told} event(s)");
            breach(found, "R3", text);
        }
    }
}

pub(super) fn acknowledged_after(index: &Index<'_>, found: &mut Vec<Breach>) {
    // The device's first word about each message that it got.
    let mut acknowledged: HashMap<(&str, &str), i64> = HashMap::new();
    for entry in &index.all.entries {
        let Note::Stanza(stanza) = &entry.note else {
            continue;
        };
        let word = matches!(stanza.tag.as_str(), "receipt" | "ack")
            && stanza.direction == Direction::FromDevice
            && stanza.device != 0
            && stanza.type_.as_deref() != Some("retry");
        if word {
            for id in stanza.ids() {
                let key = (stanza.phone.as_str(), id);
                acknowledged.entry(key).or_insert(entry.at);
            }
        }
    }
    let recorded: HashMap<&str, i64> = index
        .all
        .events
        .iter()
        .filter(|event| event.kind == "message.received")
        .map(|event| (event.text.as_str(), event.at))
        .collect();
    for written in &index.all.journal.written {
        let place = index.all.sessions.get(written.session);
        let owner = place.map_or("", |place| place.owner.as_str());
        let acknowledged = acknowledged.get(&(owner, written.wa_id.as_str()));
        let recorded = recorded.get(written.marker.as_str());
        if let (Some(acknowledged), Some(recorded)) = (acknowledged, recorded)
            && *recorded > index.clocks.most(acknowledged - RECENT_MS, *acknowledged) + SLACK_MS
        {
            let text = format!(
                "{} was acknowledged {} ms before it was recorded",
                written.marker,
                recorded - acknowledged
            );
            breach(found, "R3", text);
        }
    }
}
