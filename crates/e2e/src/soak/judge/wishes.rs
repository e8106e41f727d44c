//! What clients asked of messages beside the sending (R5): withdrawals, times, validities.

use std::collections::HashSet;

use wagate_network::transcript::Note;

use super::{Breach, Index, breach, is_sent};
use crate::soak::evidence::{Event, Stored};
use crate::soak::journal::{End, Request, Withdrawal};

/// The network's clock and the gateways' agree within this.
const CLOCKS_MS: i64 = 200;
/// A message whose validity was looked at is on the wire within this, while nothing is broken.
const ON_ITS_WAY_MS: i64 = 5_000;

/// One message, and all that is known of it.
struct Case<'a> {
    request: &'a Request,
    stored: Option<&'a Stored>,
    events: &'a [&'a Event],
    /// When it crossed.
    wire: &'a [i64],
    shown: bool,
    /// A phone asked for it again, which is answered whatever has become of it.
    asked_again: bool,
}

impl Case<'_> {
    /// The first move to this status: its place.
    fn place(&self, status: &str) -> Option<usize> {
        let mut events = self.events.iter();
        events.position(|event| event.is_status() && event.status == status)
    }

    fn claims(&self) -> impl Iterator<Item = &Event> {
        let claims = self.events.iter().copied();
        claims.filter(|event| event.is_status() && event.status == "sending")
    }

    /// Whether it was never taken before it came to this end.
    fn untried(&self, end: usize) -> bool {
        self.place("sending").is_none_or(|place| place > end)
    }

    fn say(&self, found: &mut Vec<Breach>, what: &str) {
        breach(found, "R5", format!("{} {what}", self.request.marker));
    }
}

pub(super) fn kept(index: &Index<'_>, found: &mut Vec<Breach>) {
    let mut asked_again: HashSet<&str> = HashSet::new();
    for entry in &index.all.entries {
        if let Note::Undecryptable { id, .. } = &entry.note {
            asked_again.insert(id);
        }
    }
    for request in &index.all.journal.requests {
        let End::Accepted(id) = &request.end else {
            continue;
        };
        let stored = index.by_id.get(id.as_str()).copied();
        let wire = stored.and_then(|stored| {
            let key = (index.owner(&stored.session), stored.wa_id.as_str());
            index.wire.get(&key)
        });
        let case = Case {
            request,
            stored,
            events: index.events.get(id.as_str()).map_or(&[], Vec::as_slice),
            wire: wire.map_or(&[], Vec::as_slice),
            shown: !index.shown(&request.marker).is_empty(),
            asked_again: stored.is_some_and(|s| asked_again.contains(s.wa_id.as_str())),
        };
        withdrawal(&case, found);
        not_before(index, &case, found);
        not_after(index, &case, found);
    }
}

fn withdrawal(case: &Case<'_>, found: &mut Vec<Breach>) {
    let status = case.stored.map_or("gone", |stored| stored.status.as_str());
    match case.request.withdrawal {
        None => {}
        Some(Withdrawal::Canceled) => match case.place("canceled") {
            None => case.say(found, &format!("was said to be canceled, and is {status}")),
            // One that was tried before may have arrived.
            Some(end) if case.untried(end) && (case.shown || !case.wire.is_empty()) => {
                case.say(found, "was canceled before it was tried, and was sent");
            }
            Some(_) => {}
        },
        Some(Withdrawal::TooLate) if !is_sent(status) && status != "failed" => {
            let what = format!("was too late to be canceled, and is {status}");
            case.say(found, &what);
        }
        Some(Withdrawal::Deleted) if case.place("failed").or(case.place("expired")).is_none() => {
            case.say(found, "was deleted, and had neither failed nor expired");
        }
        Some(Withdrawal::TooLate | Withdrawal::Deleted) => {}
    }
}

/// Nothing is taken, nor on the wire, before its time by any clock that a gateway had.
fn not_before(index: &Index<'_>, case: &Case<'_>, found: &mut Vec<Breach>) {
    let (Some(at), Some((from, _))) = (case.request.send_at, Index::asked(case.request)) else {
        return;
    };
    // What is due stays due when the clock is put back.
    let crossed = case.wire.iter().max().copied();
    let was_due = |claim: &Event| {
        let by = crossed.unwrap_or(i64::MAX / 8).max(claim.at);
        !index.clocks.steady() && index.clocks.most(from, by) >= at
    };
    let mut claims = case.claims();
    if let Some(claim) = claims.find(|claim| claim.at < at && !was_due(claim)) {
        let what = format!("was taken {} ms before its time", at - claim.at);
        case.say(found, &what);
    }
    let early = |wire: &&i64| index.clocks.most(from, **wire) + CLOCKS_MS < at;
    if let Some(wire) = case.wire.iter().find(early) {
        let what = format!("is on the wire {} ms before its time", at - wire);
        case.say(found, &what);
    }
}

/// Nothing is taken after its validity, nothing expires before, and what has expired is not sent.
fn not_after(index: &Index<'_>, case: &Case<'_>, found: &mut Vec<Breach>) {
    let (Some(seconds), Some((from, to))) = (case.request.wish.valid_s, Index::asked(case.request))
    else {
        return;
    };
    let valid = i64::try_from(seconds * 1_000).unwrap_or(i64::MAX / 4);
    // When it was accepted lies between the first question and the last answer.
    let first = index.clocks.least(from, to) + valid - CLOCKS_MS;
    let last = index.clocks.most(from, to) + valid + CLOCKS_MS;
    if let Some(claim) = case.claims().find(|claim| claim.at > last) {
        let what = format!("was taken {} ms after its validity", claim.at - last);
        case.say(found, &what);
    }
    let late = |wire: &&i64| {
        let before = **wire - ON_ITS_WAY_MS;
        index.clocks.least(before, **wire) > last && !index.broken(before, **wire, |_| true)
    };
    if let Some(wire) = case.wire.iter().find(late).filter(|_| !case.asked_again) {
        let what = format!("is on the wire {} ms after its validity", wire - last);
        case.say(found, &what);
    }
    let Some(end) = case.place("expired") else {
        return;
    };
    if let Some(early) = case.events.get(end).filter(|event| event.at < first) {
        let what = format!("expired {} ms before its time", first - early.at);
        case.say(found, &what);
    }
    if case.untried(end) && (case.shown || !case.wire.is_empty()) {
        case.say(found, "expired before it was tried, and was sent");
    }
}
