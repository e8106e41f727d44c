//! What is known about the messages that a breach names: written to a file, for whoever looks for the
//! cause.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use wagate_network::transcript::{Entry, Note};

use super::evidence::Evidence;
use super::judge::Breach;

/// Answers that take as long are named.
const SLOW_MS: i64 = 1_000;
/// Messages that are traced.
const MESSAGES_MAX: usize = 12;

/// All that is known about what the breaches name, and the round's windows.
pub fn trace(evidence: &Evidence, breaches: &[Breach]) -> String {
    let mut out = String::new();
    for breach in breaches {
        writeln!(out, "{breach}").ok();
    }
    for window in &evidence.journal.windows {
        writeln!(out, "broken {window:?}").ok();
    }
    slow_answers(evidence, &mut out);
    for marker in named(breaches).iter().take(MESSAGES_MAX) {
        message(evidence, marker, &mut out);
    }
    // Who came and went, and what was broken on the wire.
    for entry in &evidence.entries {
        let told = matches!(
            entry.note,
            Note::Connected { .. }
                | Note::Disconnected { .. }
                | Note::Linked { .. }
                | Note::Unlinked { .. }
                | Note::Undecryptable { .. }
                | Note::ProtocolError { .. }
        );
        if told {
            line(entry, &mut out);
        }
    }
    out
}

/// What took long although nothing was broken points at the machine.
fn slow_answers(evidence: &Evidence, out: &mut String) {
    for request in &evidence.journal.requests {
        let attempts = request.attempts.iter();
        for attempt in attempts.filter(|attempt| attempt.to - attempt.from >= SLOW_MS) {
            let (marker, ms) = (&request.marker, attempt.to - attempt.from);
            writeln!(out, "slow {ms} ms from {} on: {marker}", attempt.from).ok();
        }
    }
}

fn message(evidence: &Evidence, marker: &str, out: &mut String) {
    writeln!(out, "\n{marker}").ok();
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for request in &evidence.journal.requests {
        if request.marker == marker {
            writeln!(out, "  {request:?}").ok();
        }
    }
    for written in &evidence.journal.written {
        if written.marker == marker {
            ids.insert(&written.wa_id);
            writeln!(out, "  {written:?}").ok();
        }
    }
    for stored in &evidence.stored {
        if stored.text == marker || marker == stored.id {
            ids.insert(&stored.wa_id);
            writeln!(out, "  {stored:?}").ok();
            let events = evidence.events.iter();
            for event in events.filter(|event| event.message == stored.id) {
                writeln!(out, "  {} {} {}", event.at, event.kind, event.status).ok();
            }
        }
    }
    for entry in &evidence.entries {
        let text = serde_json::to_string(entry).unwrap_or_default();
        if text.contains(&format!("\"{marker}\"")) || ids.iter().any(|id| text.contains(id)) {
            writeln!(out, "  {text}").ok();
        }
    }
}

fn line(entry: &Entry, out: &mut String) {
    let text = serde_json::to_string(entry).unwrap_or_default();
    writeln!(out, "{text}").ok();
}

/// The texts and ids that breaches speak of.
fn named(breaches: &[Breach]) -> BTreeSet<&str> {
    let words = breaches
        .iter()
        .flat_map(|breach| breach.text.split([' ', ',', ':', '(', ')']));
    let marked = words.filter(|word| {
        let rest = word.strip_prefix(['s', 'w']).unwrap_or_default();
        let numbered = rest.starts_with(|sign: char| sign.is_ascii_digit()) && rest.contains('-');
        numbered || word.starts_with("msg_")
    });
    marked.collect()
}
