//! The promises one by one. Each reads the history once and pushes what breaks it.

use std::collections::{HashMap, HashSet};

use super::{Facts, History, Rule, Violation};
use crate::faults::Direction;
use crate::transcript::{Note, StanzaEntry, Target};

type Device<'a> = (&'a str, u16);

pub(super) fn shown_once(history: &History<'_>, found: &mut Vec<Violation>) {
    let mut seen = HashMap::new();
    for entry in history.entries {
        let Note::Shown(shown) = &entry.note else {
            continue;
        };
        let key = (&shown.phone, &shown.chat, &shown.from, &shown.id);
        if let Some(first) = seen.insert(key, entry.seq) {
            let text = format!(
                "the phone {} shows message {} of {} twice, first at entry {first}",
                shown.phone, shown.id, shown.from
            );
            found.push(Rule::ShownOnce.broken(entry, (&shown.phone, 0), Some(&shown.id), text));
        }
    }
}

pub(super) fn order(history: &History<'_>, found: &mut Vec<Violation>) {
    let mut sent: HashMap<(u16, &str), u64> = HashMap::new();
    let mut newest: HashMap<_, (u64, &str)> = HashMap::new();
    for entry in history.entries {
        match &entry.note {
            Note::Stanza(stanza) if is_sent_message(stanza) => {
                if let Some(id) = &stanza.id {
                    sent.entry((stanza.device, id)).or_insert(entry.seq);
                }
            }
            Note::Shown(shown) => {
                let id = shown.id.as_str();
                if history.disturbed.contains(id) || history.retried.contains(id) {
                    continue;
                }
                let Some(at) = sent.get(&(shown.from_device, id)) else {
                    continue;
                };
                let lane = (&shown.phone, &shown.chat, &shown.from, shown.from_device);
                let (last, last_id) = newest.entry(lane).or_insert((*at, id));
                if at < last {
                    let text = format!(
                        "the phone {} shows message {id} after {last_id}, which was sent later",
                        shown.phone
                    );
                    found.push(Rule::Order.broken(entry, (&shown.phone, 0), Some(id), text));
                } else {
                    (*last, *last_id) = (*at, id);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn receipts(history: &History<'_>, facts: &Facts, found: &mut Vec<Violation>) {
    if !facts.complete {
        return;
    }
    let mut got: HashSet<(Device<'_>, &str)> = HashSet::new();
    let mut known: HashSet<(&str, &str)> = HashSet::new();
    for (entry, stanza) in history.stanzas() {
        let device = (stanza.phone.as_str(), stanza.device);
        match (stanza.tag.as_str(), stanza.direction) {
            ("message", direction) => {
                for id in stanza.ids() {
                    known.insert((device.0, id));
                    if direction == Direction::ToDevice {
                        got.insert((device, id));
                    }
                }
            }
            ("receipt", Direction::FromDevice) => {
                for id in stanza.ids().filter(|id| !got.contains(&(device, *id))) {
                    let text = format!(
                        "device {} of {} confirms message {id}, which it never got",
                        device.1, device.0
                    );
                    found.push(Rule::Receipt.broken(entry, device, Some(id), text));
                }
            }
            ("receipt", Direction::ToDevice) => {
                for id in stanza.ids().filter(|id| !known.contains(&(device.0, *id))) {
                    let text = format!(
                        "{} gets a receipt for message {id}, which it neither sent nor got",
                        device.0
                    );
                    found.push(Rule::Receipt.broken(entry, device, Some(id), text));
                }
            }
            _ => {}
        }
    }
}

pub(super) fn prekey_once(history: &History<'_>, found: &mut Vec<Violation>) {
    let mut given = HashMap::new();
    for entry in history.entries {
        let Note::PrekeyGiven {
            phone,
            device,
            key_id,
            to_phone,
            to_device,
        } = &entry.note
        else {
            continue;
        };
        let receiver = (to_phone, to_device);
        if let Some((first, _)) = given.insert((phone, device, key_id), (entry.seq, receiver)) {
            let text = format!(
                "prekey {key_id} of device {device} of {phone} is given to {to_phone}:{to_device} although it was given away at entry {first}"
            );
            found.push(Rule::PrekeyOnce.broken(entry, (phone, *device), None, text));
        }
    }
}

pub(super) fn one_connection(history: &History<'_>, facts: &Facts, found: &mut Vec<Violation>) {
    let mut silenced = HashSet::new();
    let mut live: HashMap<Device<'_>, u64> = HashMap::new();
    for entry in history.entries {
        match &entry.note {
            Note::Fault {
                action,
                phone,
                device,
                ..
            } if action == "silence" => {
                silenced.extend(live.get(&(phone.as_str(), *device)).copied());
            }
            Note::Connected {
                phone,
                device,
                conn,
                replaces,
            } => {
                let before = live.insert((phone, *device), *conn).or(*replaces);
                if let Some(before) = before.filter(|before| !silenced.contains(before)) {
                    let text = format!(
                        "device {device} of {phone} connects ({conn}) while its connection {before} is live"
                    );
                    found.push(Rule::OneConnection.broken(entry, (phone, *device), None, text));
                }
            }
            Note::Disconnected {
                phone,
                device,
                conn,
            } if live.get(&(phone.as_str(), *device)) == Some(conn) => {
                live.remove(&(phone.as_str(), *device));
            }
            _ => {}
        }
    }
    let mut now: HashSet<&Target> = HashSet::new();
    for (target, conn) in &facts.live {
        if !now.insert(target) {
            let (phone, device) = (&target.phone, target.device);
            found.push(Violation {
                rule: Rule::OneConnection,
                seq: 0,
                phone: phone.clone(),
                device,
                id: None,
                text: format!("device {device} of {phone} has a second live connection ({conn})"),
            });
        }
    }
}

pub(super) fn delivered(history: &History<'_>, facts: &Facts, found: &mut Vec<Violation>) {
    let mut got: HashSet<(Device<'_>, &str)> = HashSet::new();
    let mut gone: HashSet<Device<'_>> = HashSet::new();
    for entry in history.entries {
        match &entry.note {
            Note::Stanza(stanza)
                if stanza.tag == "message" && stanza.direction == Direction::ToDevice =>
            {
                got.extend(
                    stanza
                        .ids()
                        .map(|id| ((stanza.phone.as_str(), stanza.device), id)),
                );
            }
            Note::Unlinked { phone, device } => {
                gone.insert((phone, *device));
            }
            _ => {}
        }
    }
    let mut accepted: HashSet<(Device<'_>, &str)> = HashSet::new();
    for entry in history.entries {
        match &entry.note {
            Note::Accepted {
                phone,
                device,
                id,
                targets,
            } => {
                accepted.insert(((phone, *device), id));
                if history.disturbed.contains(id.as_str()) {
                    continue;
                }
                for target in targets {
                    let receiver = (target.phone.as_str(), target.device);
                    let settled = got.contains(&(receiver, id))
                        || gone.contains(&receiver)
                        || facts.queued.contains(&(target.clone(), id.clone()));
                    if !settled {
                        let text = format!(
                            "message {id} of {phone}:{device} was accepted, but device {} of {} neither got it nor has it queued",
                            target.device, target.phone
                        );
                        found.push(Rule::Delivered.broken(entry, (phone, *device), Some(id), text));
                    }
                }
            }
            Note::Stanza(stanza) if facts.complete && acknowledges(stanza) => {
                let device = (stanza.phone.as_str(), stanza.device);
                let id = stanza.id.as_deref().unwrap_or_default();
                if !accepted.contains(&(device, id)) {
                    let text = format!(
                        "message {id} of {}:{} was acknowledged, but never accepted",
                        device.0, device.1
                    );
                    found.push(Rule::Delivered.broken(entry, device, Some(id), text));
                }
            }
            _ => {}
        }
    }
}

pub(super) fn counter_once(history: &History<'_>, found: &mut Vec<Violation>) {
    // The chain's key is drawn at random by the sender, so it names the session as well.
    let mut used = HashMap::new();
    for (entry, stanza) in history
        .stanzas()
        .filter(|(_, stanza)| is_sent_message(stanza))
    {
        let device = (stanza.phone.as_str(), stanza.device);
        for mark in &stanza.ciphers {
            let place = (device, &mark.chain, mark.counter);
            let (first, digest) = used.entry(place).or_insert((entry.seq, &mark.digest));
            if *digest != &mark.digest {
                let text = format!(
                    "device {} of {} encrypts for {} twice with counter {} of chain {}, first at entry {first}",
                    device.1, device.0, mark.to, mark.counter, mark.chain
                );
                found.push(Rule::CounterOnce.broken(entry, device, stanza.id.as_deref(), text));
            }
        }
    }
}

pub(super) fn protocol(history: &History<'_>, found: &mut Vec<Violation>) {
    for entry in history.entries {
        if let Note::ProtocolError {
            phone,
            device,
            text,
        } = &entry.note
        {
            let text = format!("device {device} of {phone}: {text}");
            found.push(Rule::Protocol.broken(entry, (phone, *device), None, text));
        }
    }
}

fn is_sent_message(stanza: &StanzaEntry) -> bool {
    stanza.tag == "message" && stanza.direction == Direction::FromDevice
}

fn acknowledges(stanza: &StanzaEntry) -> bool {
    stanza.direction == Direction::ToDevice && stanza.is_message_ack()
}
