//! Honest evidence passes; each change of it breaks the rule that it must.

use wagate_network::check::{Rule, Violation};
use wagate_network::transcript::{Entry, Note, Shown, StanzaEntry};

use super::judge;
use crate::soak::evidence::{Event, Evidence, Moved, Place, Stored};
use crate::soak::journal::{
    Answer, Attempt, Broken, End, Journal, Request, Shift, Window, Withdrawal, Written,
};

const OWNER: &str = "62811";
const CONTACT: &str = "62812";

fn entry(seq: u64, note: Note) -> Entry {
    Entry {
        seq,
        at: 1_000 + i64::try_from(seq).unwrap(),
        note,
    }
}

fn shown(seq: u64, marker: &str, wa_id: &str) -> Entry {
    let shown = Shown {
        phone: CONTACT.to_owned(),
        chat: String::new(),
        from: OWNER.to_owned(),
        from_device: 1,
        from_me: false,
        id: wa_id.to_owned(),
        text: Some(marker.to_owned()),
    };
    entry(seq, Note::Shown(Box::new(shown)))
}

fn accepted(seq: u64, wa_id: &str) -> Entry {
    let note = Note::Accepted {
        phone: OWNER.to_owned(),
        device: 1,
        id: wa_id.to_owned(),
        targets: Vec::new(),
    };
    entry(seq, note)
}

fn event(seq: i64, kind: &str, message: &str, status: &str) -> Event {
    Event {
        tenant: 0,
        seq,
        at: 1_000,
        kind: kind.to_owned(),
        session: "one".to_owned(),
        chat: CONTACT.to_owned(),
        message: message.to_owned(),
        status: status.to_owned(),
        failure: None,
        text: String::new(),
        from_me: false,
    }
}

fn stored(id: &str, marker: &str, inbound: bool, status: &str) -> Stored {
    Stored {
        id: id.to_owned(),
        session: "one".to_owned(),
        inbound,
        from_me: !inbound,
        text: marker.to_owned(),
        status: status.to_owned(),
        failure: None,
        wa_id: format!("wa-{id}"),
        attempts: 1,
    }
}

fn request(marker: &str, id: &str) -> Request {
    let answer = Answer::Http {
        status: 202,
        code: None,
        retry_after: false,
        message: Some(id.to_owned()),
        deleted: false,
        text: String::new(),
    };
    let attempt = Attempt {
        from: 1_000,
        to: 1_001,
        gateway: 0,
        answer,
    };
    Request {
        marker: marker.to_owned(),
        attempts: vec![attempt],
        end: End::Accepted(id.to_owned()),
        ..Request::default()
    }
}

/// Two texts went out and one came in, and all of it is as it should be.
fn honest() -> Evidence {
    let mut events = Vec::new();
    for message in ["m1", "m2"] {
        let seq = i64::try_from(events.len()).unwrap();
        events.push(event(seq + 1, "message.queued", message, ""));
        for (n, status) in (2..).zip(["sending", "sent", "delivered"]) {
            events.push(event(seq + n, "message.status", message, status));
        }
    }
    events.push(Event {
        text: "w0-0".to_owned(),
        ..event(9, "message.received", "m3", "")
    });
    let steps = ["queued", "sending", "sent", "delivered"].map(|status| Moved {
        status: status.to_owned(),
        failure: None,
    });
    Evidence {
        journal: Journal {
            requests: vec![request("s0-1", "m1"), request("s0-2", "m2")],
            written: vec![Written {
                marker: "w0-0".to_owned(),
                session: 0,
                contact: 0,
                wa_id: "in".to_owned(),
            }],
            ..Journal::default()
        },
        stored: vec![
            stored("m1", "s0-1", false, "delivered"),
            stored("m2", "s0-2", false, "delivered"),
            stored("m3", "w0-0", true, "received"),
        ],
        events,
        histories: vec![("m1".to_owned(), steps.to_vec())],
        entries: vec![
            accepted(1, "wa-m1"),
            shown(2, "s0-1", "wa-m1"),
            accepted(3, "wa-m2"),
            shown(4, "s0-2", "wa-m2"),
        ],
        sessions: vec![Place {
            name: "one".to_owned(),
            tenant: 0,
            owner: OWNER.to_owned(),
        }],
        contacts: vec![CONTACT.to_owned()],
        concurrency: 3,
        ..Evidence::default()
    }
}

/// Changes honest evidence; exactly these rules must be broken then.
fn broken(rules: &[&str], change: impl Fn(&mut Evidence)) {
    let mut evidence = honest();
    change(&mut evidence);
    let found = judge(&evidence);
    let mut names: Vec<&str> = found.iter().map(|breach| breach.rule).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, rules, "{found:#?}");
}

fn answer(evidence: &mut Evidence, status: u16, code: Option<&str>, retry_after: bool) {
    let answer = Answer::Http {
        status,
        code: code.map(str::to_owned),
        retry_after,
        message: None,
        deleted: false,
        text: String::new(),
    };
    let attempt = Attempt {
        from: 1_000,
        to: 1_001,
        gateway: 0,
        answer,
    };
    evidence.journal.requests[0].attempts.push(attempt);
}

#[test]
fn honest_evidence_passes() {
    broken(&[], |_| {});
}

#[test]
fn what_is_lost_is_found() {
    broken(&["R1"], |evidence| {
        evidence.entries.remove(1);
    });
    broken(&["R1", "R4"], |evidence| {
        let failed = &mut evidence.stored[0];
        failed.status = "failed".to_owned();
        evidence.histories.clear();
    });
}

#[test]
fn what_is_doubled_is_found() {
    broken(&["R2"], |evidence| {
        evidence.entries.push(shown(5, "s0-1", "another"));
    });
    broken(&["R2", "R4"], |evidence| {
        evidence
            .stored
            .push(stored("m4", "s0-1", false, "canceled"));
    });
}

#[test]
fn what_came_in_wrongly_is_found() {
    broken(&["R3"], |evidence| {
        evidence.stored.pop();
    });
    broken(&["R3"], |evidence| {
        let mut again = event(10, "message.received", "m3", "");
        again.text = "w0-0".to_owned();
        evidence.events.push(again);
    });
}

#[test]
fn a_status_that_lies_is_found() {
    broken(&["R4"], |evidence| {
        evidence.entries.remove(0);
    });
    broken(&["R4"], |evidence| {
        evidence.events[3].status = "sent".to_owned();
    });
    broken(&["R4"], |evidence| {
        evidence.events.remove(5);
    });
}

/// A text that was canceled before anybody tried it.
fn canceled(evidence: &mut Evidence) {
    evidence.journal.requests[0].wish.withdraw_ms = Some(5);
    evidence.journal.requests[0].withdrawal = Some(Withdrawal::Canceled);
    evidence.stored[0].status = "canceled".to_owned();
    evidence.entries.drain(..2);
    evidence.histories.clear();
    let mut events = vec![
        event(1, "message.queued", "m1", ""),
        event(2, "message.status", "m1", "canceled"),
    ];
    events.extend(evidence.events.split_off(4));
    evidence.events = events;
    number(evidence);
}

fn number(evidence: &mut Evidence) {
    for (n, event) in (1..).zip(&mut evidence.events) {
        event.seq = n;
    }
}

/// A session's device put a message on the wire.
fn wire(seq: u64, wa_id: &str) -> Entry {
    let stanza: StanzaEntry = serde_json::from_value(serde_json::json!({
        "direction": "from_device", "phone": OWNER, "device": 1, "tag": "message", "id": wa_id,
    }))
    .unwrap();
    entry(seq, Note::Stanza(Box::new(stanza)))
}

#[test]
fn a_withdrawal_that_is_not_kept_is_found() {
    broken(&[], canceled);
    broken(&["R1"], |evidence| {
        canceled(evidence);
        evidence.journal.requests[0].wish.withdraw_ms = None;
    });
    broken(&["R5"], |evidence| {
        canceled(evidence);
        evidence.entries.push(shown(5, "s0-1", "wa-m1"));
    });
    broken(&["R5"], |evidence| {
        canceled(evidence);
        evidence.entries.push(wire(5, "wa-m1"));
    });
    broken(&["R5"], |evidence| {
        canceled(evidence);
        evidence.journal.requests[0].withdrawal = Some(Withdrawal::TooLate);
    });
    for (how, rules) in [
        (Withdrawal::TooLate, &[][..]),
        (Withdrawal::Canceled, &["R5"][..]),
        (Withdrawal::Deleted, &["R5"][..]),
    ] {
        broken(rules, |evidence| {
            evidence.journal.requests[0].withdrawal = Some(how);
        });
    }
}

#[test]
fn what_is_sent_before_its_time_is_found() {
    let at = |evidence: &mut Evidence, at| {
        evidence.journal.requests[0].send_at = Some(at);
        evidence.entries.push(wire(5, "wa-m1"));
    };
    broken(&[], |evidence| at(evidence, 1_000));
    broken(&["R5"], |evidence| at(evidence, 1_001));
    // Its time had come while the clock was ahead.
    broken(&[], |evidence| {
        at(evidence, 3_000);
        evidence.journal.shifts.push(Shift {
            gateway: 0,
            at: 900,
            ahead: 3_000,
        });
        evidence.journal.shifts.push(Shift {
            gateway: 0,
            at: 950,
            ahead: 0,
        });
    });
    // The gateway's clock was ahead when it took it.
    let ahead = |evidence: &mut Evidence| {
        at(evidence, 3_000);
        evidence.events[1].at = 3_000;
    };
    broken(&["R5"], ahead);
    broken(&[], |evidence| {
        ahead(evidence);
        evidence.journal.shifts.push(Shift {
            gateway: 0,
            at: 900,
            ahead: 3_000,
        });
    });
}

#[test]
fn what_is_sent_after_its_validity_is_found() {
    let valid = |evidence: &mut Evidence| evidence.journal.requests[0].wish.valid_s = Some(1);
    broken(&[], valid);
    broken(&["R5"], |evidence| {
        valid(evidence);
        evidence.events[1].at = 2_300;
    });
    broken(&["R5"], |evidence| {
        valid(evidence);
        evidence.entries.push(wire(6_500, "wa-m1"));
    });
    // The gateway was asleep for a while.
    broken(&[], |evidence| {
        valid(evidence);
        evidence.entries.push(wire(6_500, "wa-m1"));
        evidence.journal.windows.push(Window {
            what: Broken::Asleep(0),
            from: 1_100,
            to: Some(7_400),
        });
    });
    let expired = |evidence: &mut Evidence, at| {
        valid(evidence);
        canceled(evidence);
        evidence.journal.requests[0].withdrawal = None;
        evidence.stored[0].status = "expired".to_owned();
        evidence.events[1].status = "expired".to_owned();
        evidence.events[1].at = at;
    };
    broken(&[], |evidence| expired(evidence, 2_000));
    broken(&["R5"], |evidence| expired(evidence, 1_500));
}

#[test]
fn a_broken_order_is_found() {
    broken(&["R6"], |evidence| {
        evidence.entries[1] = shown(2, "s0-2", "wa-m2");
        evidence.entries[3] = shown(4, "s0-1", "wa-m1");
    });
}

#[test]
fn too_many_at_once_are_found() {
    broken(&["R10"], |evidence| {
        number(evidence);
        // The second is on its way before the first has arrived.
        evidence.events.swap(2, 4);
        evidence.events.swap(3, 5);
        let order = ["m1", "m1", "m2", "m2", "m1", "m1", "m2", "m2"];
        let status = [
            "",
            "sending",
            "",
            "sending",
            "sent",
            "delivered",
            "sent",
            "delivered",
        ];
        for (place, (message, status)) in order.into_iter().zip(status).enumerate() {
            let kind = if status.is_empty() {
                "message.queued"
            } else {
                "message.status"
            };
            let seq = i64::try_from(place).unwrap() + 1;
            evidence.events[place] = event(seq, kind, message, status);
        }
    });
}

#[test]
fn the_networks_verdict_counts() {
    let violation = |rule| Violation {
        rule,
        seq: 0,
        phone: OWNER.to_owned(),
        device: 1,
        id: None,
        text: String::new(),
    };
    broken(&["R8"], |evidence| {
        evidence.network.push(violation(Rule::OneConnection));
    });
    broken(&["R9"], |evidence| {
        evidence.network.push(violation(Rule::CounterOnce));
    });
    // Somebody slept when it happened.
    broken(&[], |evidence| {
        evidence.network.push(Violation {
            seq: 4,
            ..violation(Rule::OneConnection)
        });
        evidence.journal.windows.push(Window {
            what: Broken::Asleep(0),
            from: 900,
            to: Some(1_003),
        });
    });
}

#[test]
fn dishonest_answers_are_found() {
    broken(&["R12"], |evidence| {
        answer(evidence, 500, Some("internal_error"), false);
    });
    broken(&["R12"], |evidence| {
        answer(evidence, 503, Some("overloaded"), true);
    });
    broken(&["R12"], |evidence| answer(evidence, 404, None, false));
    for (retry_after, rules) in [(true, &[][..]), (false, &["R12"][..])] {
        broken(rules, |evidence| {
            answer(evidence, 503, Some("overloaded"), retry_after);
            evidence.journal.windows.push(Window {
                what: Broken::Database,
                from: 900,
                to: Some(1_000),
            });
        });
    }
    broken(&["R12"], |evidence| {
        evidence.journal.requests[0].reused_key = true;
        // Of the same text as before, so that nothing else is wrong with it.
        evidence.journal.requests[0].marker = "s0-9".to_owned();
        evidence.journal.requests[0].end = End::Refused {
            status: 422,
            code: "invalid_field".to_owned(),
        };
    });
}

#[test]
fn what_never_ends_is_found() {
    broken(&["R11"], |evidence| {
        evidence.unsettled.push("s0-1 is still sending".to_owned());
    });
}
