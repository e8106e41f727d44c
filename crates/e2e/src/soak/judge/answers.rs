//! Everything came to an end (R11), and every answer was honest (R12).

use super::{Breach, Index, breach};
use crate::soak::journal::{Answer, Attempt, Broken, End, Request};

/// How long something that was broken may still be felt.
const AFTERMATH_MS: i64 = 10_000;
/// A death is noticed a moment after it happened.
const NOTICE_MS: i64 = 2_000;

pub(super) fn settled(index: &Index<'_>, found: &mut Vec<Breach>) {
    for open in &index.all.unsettled {
        breach(found, "R11", format!("after the faults {open}"));
    }
    for mishap in &index.all.journal.mishaps {
        breach(found, "R11", mishap.clone());
    }
}

pub(super) fn honest(index: &Index<'_>, found: &mut Vec<Breach>) {
    let journal = &index.all.journal;
    for request in &journal.requests {
        for attempt in &request.attempts {
            if let Some(text) = dishonest(index, attempt) {
                breach(found, "R12", format!("{}: {text}", request.marker));
            }
        }
        if let Some(text) = refusal(index, request) {
            breach(found, "R12", format!("{}: {text}", request.marker));
        }
    }
    for attempt in &journal.calls {
        if let Some(text) = dishonest(index, attempt) {
            breach(found, "R12", text);
        }
    }
}

/// Whether the end of a request is the one that it deserves.
fn refusal(index: &Index<'_>, request: &Request) -> Option<String> {
    // Its time may have come before anybody could be asked.
    let late = || {
        let times = Index::asked(request).zip(request.send_at);
        times.is_some_and(|((from, to), at)| index.clocks.most(from, to) >= at)
    };
    match (&request.end, request.reused_key) {
        (End::Accepted(id), true) => Some(format!("its key was used before, and it became {id}")),
        (End::Refused { status, code }, reused) => {
            let fits = match code.as_str() {
                "idempotency_conflict" => reused,
                "session_stopped" => !reused,
                "invalid_field" => !reused && late(),
                _ => false,
            };
            (!fits).then(|| format!("refused with {status} {code}"))
        }
        (End::Accepted(_) | End::Open, _) => None,
    }
}

fn dishonest(index: &Index<'_>, attempt: &Attempt) -> Option<String> {
    let (from, to) = (attempt.from, attempt.to);
    match &attempt.answer {
        Answer::Cut => None,
        Answer::Nothing(error) => {
            let broken = index.broken(from - NOTICE_MS, to + NOTICE_MS, |_| true);
            (!broken).then(|| {
                format!(
                    "gateway {} did not answer within {} ms, and nothing was broken: {error}",
                    attempt.gateway,
                    to - from
                )
            })
        }
        Answer::Http {
            status,
            code,
            retry_after,
            text,
            ..
        } => {
            let code = code.as_deref();
            let told = || format!("{status} {}: {text}", code.unwrap_or("without a code"));
            let broken = |what: fn(Broken) -> bool| index.broken(from - AFTERMATH_MS, to, what);
            match status {
                0..=399 => None,
                400..=499 => code.is_none().then(told),
                503 if !retry_after => Some(format!("503 with no Retry-After: {}", told())),
                503 if broken(|_| true) => None,
                503 => Some(format!("{}, and nothing was broken", told())),
                504 if code == Some("send_unconfirmed") => None,
                507 if broken(|what| what == Broken::Database) => None,
                _ => Some(told()),
            }
        }
    }
}
