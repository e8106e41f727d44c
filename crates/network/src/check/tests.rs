//! A clean history passes; each planted violation is found, by the rule that it breaks and no other.

use super::*;
use crate::faults::Direction;
use crate::transcript::{CipherMark, Shown};

const A: &str = "62811";
const B: &str = "62812";

fn message(direction: Direction, phone: &str, device: u16, id: &str) -> Note {
    stanza(direction, phone, device, "message", id)
}

fn stanza(direction: Direction, phone: &str, device: u16, tag: &str, id: &str) -> Note {
    let party = crate::faults::Party {
        account: None,
        phone: phone.into(),
        device,
        conn: (device != 0).then_some(u64::from(device)),
    };
    let node = crate::node::Node::new(tag.to_owned()).attr("id", id.to_owned());
    Note::Stanza(Box::new(StanzaEntry::of(direction, &party, &node, false)))
}

fn edit(note: Note, change: impl FnOnce(&mut StanzaEntry)) -> Note {
    let Note::Stanza(mut stanza) = note else {
        panic!("not a stanza")
    };
    change(&mut stanza);
    Note::Stanza(stanza)
}

fn sent(id: &str) -> Note {
    message(Direction::FromDevice, A, 1, id)
}

fn delivered(id: &str) -> Note {
    message(Direction::ToDevice, B, 0, id)
}

fn target() -> Target {
    Target {
        phone: B.into(),
        device: 0,
    }
}

fn accepted(id: &str) -> Note {
    Note::Accepted {
        phone: A.into(),
        device: 1,
        id: id.into(),
        targets: vec![target()],
    }
}

fn acked(id: &str) -> Note {
    edit(stanza(Direction::ToDevice, A, 1, "ack", id), |ack| {
        ack.class = Some("message".into());
    })
}

fn shown(id: &str) -> Note {
    Note::Shown(Box::new(Shown {
        phone: B.into(),
        chat: "62811@s.whatsapp.net".into(),
        from: "62811@s.whatsapp.net".into(),
        from_device: 1,
        from_me: false,
        id: id.into(),
        text: None,
    }))
}

fn receipt(id: &str) -> Note {
    stanza(Direction::FromDevice, B, 0, "receipt", id)
}

fn connected(conn: u64, replaces: Option<u64>) -> Note {
    Note::Connected {
        phone: A.into(),
        device: 1,
        conn,
        replaces,
    }
}

fn disconnected(conn: u64) -> Note {
    Note::Disconnected {
        phone: A.into(),
        device: 1,
        conn,
    }
}

fn prekey(key_id: u32) -> Note {
    Note::PrekeyGiven {
        phone: B.into(),
        device: 0,
        key_id,
        to_phone: A.into(),
        to_device: 1,
    }
}

fn encrypted(id: &str, counter: u32, digest: &str) -> Note {
    edit(sent(id), |stanza| {
        stanza.ciphers.push(CipherMark {
            to: B.into(),
            type_: "msg".into(),
            chain: "aa".into(),
            counter,
            digest: digest.into(),
        });
    })
}

fn fault(action: &str, tag: &str, id: Option<&str>) -> Note {
    Note::Fault {
        rule: 1,
        action: action.into(),
        phone: A.into(),
        device: 1,
        tag: tag.into(),
        id: id.map(str::to_owned),
    }
}

fn one(id: &str) -> Vec<Note> {
    vec![
        sent(id),
        accepted(id),
        delivered(id),
        acked(id),
        shown(id),
        receipt(id),
    ]
}

fn judge(notes: Vec<Note>) -> Report {
    judge_with(
        notes,
        &Facts {
            complete: true,
            ..Facts::default()
        },
    )
}

fn judge_with(notes: Vec<Note>, facts: &Facts) -> Report {
    let entries: Vec<Entry> = (1..)
        .zip(notes)
        .map(|(seq, note)| Entry { seq, at: 0, note })
        .collect();
    check(&entries, facts)
}

#[track_caller]
fn breaks(rule: Rule, notes: Vec<Note>) {
    let report = judge(notes);
    let rules: Vec<_> = report
        .violations
        .iter()
        .map(|violation| violation.rule)
        .collect();
    assert_eq!(rules, [rule], "{report}");
    assert!(!report.ok);
}

#[test]
fn a_clean_history_passes() {
    let mut notes = vec![connected(1, None), prekey(1), prekey(2)];
    notes.extend(one("M1"));
    notes.extend([disconnected(1), connected(2, None)]);
    notes.extend(one("M2"));
    notes.push(Note::Hidden {
        phone: B.into(),
        from: A.into(),
        id: "M1".into(),
    });
    let report = judge(notes);
    assert!(report.ok, "{report}");
    assert_eq!(
        (report.accepted, report.shown, report.hidden_copies),
        (2, 2, 1)
    );
}

#[test]
fn a_message_shown_twice_is_found() {
    let mut notes = one("M1");
    notes.push(shown("M1"));
    breaks(Rule::ShownOnce, notes);
}

#[test]
fn a_wrong_order_is_found() {
    let start = || [sent("M1"), sent("M2"), delivered("M1"), delivered("M2")];
    let swapped = [shown("M2"), shown("M1")];
    breaks(
        Rule::Order,
        start().into_iter().chain(swapped.clone()).collect(),
    );
    // Unless a fault reordered it, or it had to be asked for again.
    let held = fault("reorder", "message", Some("M1"));
    assert!(
        judge(
            start()
                .into_iter()
                .chain([held])
                .chain(swapped.clone())
                .collect()
        )
        .ok
    );
    let retry = edit(receipt("M1"), |stanza| stanza.type_ = Some("retry".into()));
    assert!(judge(start().into_iter().chain([retry]).chain(swapped).collect()).ok);
}

#[test]
fn a_receipt_for_nothing_is_found() {
    breaks(Rule::Receipt, vec![receipt("M1")]);
    breaks(
        Rule::Receipt,
        vec![stanza(Direction::ToDevice, A, 1, "receipt", "M1")],
    );
    let listed = edit(receipt("M1"), |stanza| stanza.more_ids.push("M2".into()));
    breaks(Rule::Receipt, vec![delivered("M1"), listed]);
    // Where the beginning is forgotten, nobody can tell.
    assert!(judge_with(vec![receipt("M1")], &Facts::default()).ok);
}

#[test]
fn a_prekey_given_twice_is_found() {
    breaks(Rule::PrekeyOnce, vec![prekey(1), prekey(2), prekey(1)]);
}

#[test]
fn two_live_connections_are_found() {
    breaks(
        Rule::OneConnection,
        vec![connected(1, None), connected(2, None)],
    );
    breaks(
        Rule::OneConnection,
        vec![connected(1, None), disconnected(1), connected(2, Some(1))],
    );
    let silence = fault("silence", "iq", None);
    assert!(judge(vec![connected(1, None), silence, connected(2, Some(1))]).ok);
    let device = Target {
        phone: A.into(),
        device: 1,
    };
    let live = vec![(device.clone(), 1), (device, 2)];
    let report = judge_with(
        Vec::new(),
        &Facts {
            live,
            ..Facts::default()
        },
    );
    assert_eq!(report.of(Rule::OneConnection).count(), 1);
}

#[test]
fn an_accepted_message_that_went_nowhere_is_found() {
    let lost = || vec![sent("M1"), accepted("M1"), acked("M1")];
    breaks(Rule::Delivered, lost());
    breaks(Rule::Delivered, vec![sent("M1"), acked("M1")]);
    let queued = [(target(), "M1".to_owned())].into();
    let facts = Facts {
        queued,
        complete: true,
        ..Facts::default()
    };
    assert!(judge_with(lost(), &facts).ok);
    let unlinked = Note::Unlinked {
        phone: B.into(),
        device: 0,
    };
    assert!(judge(lost().into_iter().chain([unlinked]).collect()).ok);
    // A lost acknowledgement is no excuse for a lost message, but a fault on the message is.
    breaks(
        Rule::Delivered,
        lost()
            .into_iter()
            .chain([fault("drop", "ack", Some("M1"))])
            .collect(),
    );
    let dropped = fault("drop", "message", Some("M1"));
    let report = judge(lost().into_iter().chain([dropped]).collect());
    assert!(report.ok && report.disturbed == 1, "{report}");
}

#[test]
fn a_reused_counter_is_found() {
    breaks(
        Rule::CounterOnce,
        vec![encrypted("M1", 4, "x"), encrypted("M2", 4, "y")],
    );
    // The same bytes again are a wire copy.
    assert!(judge(vec![encrypted("M1", 4, "x"), encrypted("M1", 4, "x")]).ok);
    assert!(judge(vec![encrypted("M1", 4, "x"), encrypted("M2", 5, "y")]).ok);
}

#[test]
fn a_protocol_error_is_found_and_printed() {
    let note = Note::ProtocolError {
        phone: A.into(),
        device: 1,
        text: "two bodies".into(),
    };
    let report = judge(vec![note.clone()]);
    assert!(
        report
            .to_string()
            .contains("entry 1: device 1 of 62811: two bodies"),
        "{report}"
    );
    breaks(Rule::Protocol, vec![note]);
}
