//! The ring's bounds, the lines it prints, and what is read from a stanza.

use std::sync::{Arc, Mutex};

use super::*;
use crate::jid::Jid;
use crate::world::AccountId;

fn who() -> Party {
    Party::device(AccountId(0), "62811", 2, Some(5))
}

fn note(text: &str) -> Note {
    Note::ProtocolError {
        phone: "1".into(),
        device: 1,
        text: text.into(),
    }
}

#[test]
fn the_ring_forgets_its_oldest_and_knows_it() {
    let mut transcript = Transcript::new(TranscriptOptions {
        capacity: 3,
        ..Default::default()
    });
    for n in 0..3 {
        transcript.note(n, note("x"));
    }
    assert!(transcript.is_complete());
    transcript.note(3, note("x"));
    assert!(!transcript.is_complete());
    let seqs = |after| {
        transcript
            .entries(after)
            .map(|entry| entry.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(seqs(0), [2, 3, 4]);
    assert_eq!(seqs(3), [4]);
    assert_eq!(transcript.last_seq(), 4);
    let complete = |after| transcript.is_complete_after(after);
    assert_eq!([0, 1, 4, 9].map(complete), [false, true, true, true]);
}

#[test]
fn a_ring_that_keeps_nothing_is_complete_only_where_nothing_was() {
    let mut transcript = Transcript::new(TranscriptOptions {
        capacity: 0,
        ..Default::default()
    });
    assert!(transcript.is_complete_after(0));
    transcript.note(0, note("x"));
    assert!(!transcript.is_complete_after(0));
    assert!(transcript.is_complete_after(1));
}

#[test]
fn a_line_can_be_read_back() {
    let mut transcript = Transcript::default();
    let node = Node::new("receipt")
        .attr("id", "A")
        .attr("to", Jid::pn("62812", 1))
        .child(Node::new("list").child(Node::new("item").attr("id", "B")));
    transcript.record(9, Direction::FromDevice, &who(), &node);
    let lines = transcript.json_lines(0, 10);
    let entry: Entry = serde_json::from_str(lines.trim_end()).unwrap();
    assert_eq!(Some(&entry), transcript.entries(0).next());
    let Note::Stanza(stanza) = entry.note else {
        panic!("{lines}")
    };
    assert_eq!(stanza.ids().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(stanza.to.as_deref(), Some("62812:1@s.whatsapp.net"));
    assert_eq!((entry.at, stanza.conn), (9, Some(5)));
}

#[test]
fn long_stanzas_are_cut() {
    let mut transcript = Transcript::default();
    let keys = (0..900_u32).map(|n| Node::new("key").attr("n", n));
    let node = Node::new("iq").child(Node::new("list").children(keys));
    transcript.record(0, Direction::FromDevice, &who(), &node);
    let Some(Entry {
        note: Note::Stanza(stanza),
        ..
    }) = transcript.entries(0).next()
    else {
        panic!("no stanza")
    };
    let xml = stanza.xml.as_deref().unwrap();
    assert!(xml.ends_with('…') && xml.len() < 2_100, "{}", xml.len());
}

#[test]
fn the_lean_form_keeps_what_the_checkers_need() {
    let mut transcript = Transcript::new(TranscriptOptions::lean(10));
    let ack = Node::new("ack").attr("class", "message");
    for direction in [Direction::FromDevice, Direction::ToDevice] {
        for tag in ["iq", "message", "presence", "receipt"] {
            transcript.record(0, direction, &who(), &Node::new(tag).attr("to", "x"));
        }
        transcript.record(0, direction, &who(), &ack);
    }
    // Both messages, both receipts, and the server's acknowledgement.
    assert_eq!(transcript.entries(0).count(), 5);
    assert!(transcript.entries(0).all(|entry| match &entry.note {
        Note::Stanza(stanza) => stanza.to.is_none() && stanza.xml.is_none(),
        _ => false,
    }));
}

#[test]
fn reads_the_place_in_the_ratchet() {
    // version, {1: ratchet key, 2: counter 300, 4: ciphertext}, MAC
    let mut signal = vec![0x33, 0x0a, 33];
    signal.extend([7; 33]);
    signal.extend([0x10, 0xac, 0x02, 0x22, 2, 1, 2]);
    signal.extend([0; 8]);
    // version, {1: prekey id, 4: the message}
    let mut first = vec![0x33, 0x08, 5, 0x22, u8::try_from(signal.len()).unwrap()];
    first.extend(&signal);
    let enc = |kind: &'static str, bytes: &[u8]| {
        Node::new("enc").attr("type", kind).bytes(bytes.to_vec())
    };
    let to = |device, child| {
        Node::new("to")
            .attr("jid", Jid::pn("62812", device))
            .child(child)
    };
    let node = Node::new("message")
        .attr("id", "M")
        .attr("to", Jid::pn("62812", 0))
        .child(
            Node::new("participants")
                .child(to(0, enc("msg", &signal)))
                .child(to(1, enc("pkmsg", &first)))
                .child(to(2, enc("msg", &[1, 2, 3]))),
        );
    let entry = StanzaEntry::of(Direction::FromDevice, &who(), &node, false);
    assert_eq!(entry.ciphers.len(), 2);
    assert_eq!(entry.ciphers[0].to, "62812@s.whatsapp.net");
    assert_eq!(entry.ciphers[1].to, "62812:1@s.whatsapp.net");
    for mark in &entry.ciphers {
        assert_eq!(
            (mark.chain.as_str(), mark.counter),
            ("07".repeat(16).as_str(), 300)
        );
    }
    assert_ne!(entry.ciphers[0].digest, entry.ciphers[1].digest);
}

#[test]
fn a_broken_file_stops_the_writer_not_the_network() {
    struct Broken(Arc<Mutex<u32>>);
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            *self.0.lock().unwrap() += 1;
            Err(std::io::Error::other("disk full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let tries = Arc::new(Mutex::new(0));
    let mut transcript = Transcript::default();
    transcript.set_writer(Box::new(Broken(Arc::clone(&tries))));
    transcript.note(0, note("a"));
    transcript.note(0, note("b"));
    assert_eq!(transcript.write_error(), Some("disk full"));
    assert_eq!(
        (*tries.lock().unwrap(), transcript.entries(0).count()),
        (1, 2)
    );
}
