//! Every code that WhatsApp is known to answer with, and every fault of ours, has its line here.

use super::*;

const NEVER: RetryClass = RetryClass::Never;
const DOWN: RetryClass = RetryClass::SessionDown;
const BACKOFF: RetryClass = RetryClass::Backoff;
const NOW: RetryClass = RetryClass::Now;

const STAYS: SessionMove = SessionMove::Stays;

const fn after(secs: u64) -> RetryClass {
    RetryClass::After(Duration::from_secs(secs))
}

const fn ends(ending: Ending) -> SessionMove {
    SessionMove::Ends(ending)
}

const fn pauses(scope: Scope, reason: Reason) -> SessionMove {
    SessionMove::Pauses {
        scope,
        reason,
        named: None,
    }
}

#[track_caller]
fn check(trouble: Trouble, class: RetryClass, session: SessionMove) {
    assert_eq!(trouble.verdict(), Verdict { class, session }, "{trouble:?}");
}

#[test]
fn every_known_refusal_of_a_message_has_its_class() {
    let never = [
        400, 403, 404, 405, 406, 479, 487, 488, 489, 490, 491, 493, 495, 496, 499, 550, 551,
    ];
    for code in never {
        check(Trouble::Message(code), NEVER, STAYS);
    }
    for code in [500, 503, 552, 999, 0] {
        check(Trouble::Message(code), BACKOFF, STAYS);
    }
    check(Trouble::Message(421), after(1), STAYS);
    let all = pauses(Scope::All, Reason::RateLimited);
    check(Trouble::Message(429), DOWN, all);
    let limited = pauses(Scope::NewChats, Reason::ReachOutLimited);
    check(Trouble::Message(463), DOWN, limited);
    let capped = pauses(Scope::NewChats, Reason::NewChatsCapped);
    check(Trouble::Message(475), DOWN, capped);
}

#[test]
fn every_known_refusal_of_a_request_has_its_class() {
    let plain = |code| Trouble::Request {
        code,
        backoff: None,
    };
    for code in [400, 403, 404, 405, 406, 409, 410] {
        check(plain(code), NEVER, STAYS);
    }
    check(plain(401), DOWN, STAYS);
    for code in [408, 500, 503, 507, 999] {
        check(plain(code), BACKOFF, STAYS);
    }
    let busy = Trouble::Request {
        code: 503,
        backoff: Some(Duration::from_secs(7)),
    };
    check(busy, after(7), STAYS);
    check(
        plain(429),
        DOWN,
        pauses(Scope::NewChats, Reason::RateLimited),
    );
    let named = Some(Duration::from_secs(7));
    let limited = Trouble::Request {
        code: 429,
        backoff: named,
    };
    let pause = SessionMove::Pauses {
        scope: Scope::NewChats,
        reason: Reason::RateLimited,
        named,
    };
    check(limited, DOWN, pause);
}

#[test]
fn every_known_refusal_of_a_login_has_its_class() {
    let permanent = [
        (401, Ending::LoggedOut),
        (402, Ending::Banned),
        (403, Ending::Locked),
        (405, Ending::Outdated),
        (406, Ending::LoggedOut),
    ];
    for (code, ending) in permanent {
        check(Trouble::Login(code), DOWN, ends(ending));
    }
    for code in [400, 409, 411, 413, 414, 415, 418, 999] {
        check(Trouble::Login(code), DOWN, ends(Ending::Refused));
    }
    for code in [500, 501, 503] {
        check(Trouble::Login(code), BACKOFF, SessionMove::Reconnects);
    }
    let all = pauses(Scope::All, Reason::RateLimited);
    check(Trouble::Login(429), DOWN, all);
}

#[test]
fn every_known_end_of_a_stream_has_its_class() {
    check(Trouble::Stream(401), DOWN, ends(Ending::LoggedOut));
    check(Trouble::Stream(516), DOWN, ends(Ending::LoggedOut));
    check(Trouble::Stream(409), DOWN, ends(Ending::Replaced));
    check(
        Trouble::Stream(429),
        DOWN,
        pauses(Scope::All, Reason::RateLimited),
    );
    check(Trouble::Stream(515), NOW, SessionMove::Reconnects);
    for code in [500, 503] {
        check(Trouble::Stream(code), BACKOFF, SessionMove::Reconnects);
    }
    check(Trouble::Stream(999), DOWN, SessionMove::Reconnects);
}

#[test]
fn every_fault_of_ours_has_its_class() {
    let table = [
        (Fault::NotConnected, DOWN, SessionMove::Reconnects),
        (Fault::Unreachable, DOWN, SessionMove::Reconnects),
        (Fault::NotLinked, DOWN, STAYS),
        (Fault::Stopped, DOWN, STAYS),
        (Fault::LeaseLost, DOWN, STAYS),
        (Fault::Ambiguous, NOW, SessionMove::Reconnects),
        (Fault::NotReady, BACKOFF, STAYS),
        (Fault::Timeout, BACKOFF, STAYS),
        (Fault::NoAck, BACKOFF, STAYS),
        (Fault::Overloaded, BACKOFF, STAYS),
        (Fault::Database, BACKOFF, STAYS),
        (Fault::Unknown, BACKOFF, STAYS),
        (Fault::NoUsableDevice, after(60), STAYS),
        (Fault::NotOnWhatsApp, NEVER, STAYS),
        (Fault::Unsendable, NEVER, STAYS),
    ];
    for (fault, class, session) in table {
        check(Trouble::Ours(fault), class, session);
    }
}

/// What must wait is never failed: a pause and a class that gives up do not go together.
#[test]
fn what_pauses_the_session_fails_no_message() {
    for code in 0..1000 {
        let troubles = [
            Trouble::Message(code),
            Trouble::Request {
                code,
                backoff: None,
            },
            Trouble::Login(code),
            Trouble::Stream(code),
        ];
        for trouble in troubles {
            let Verdict { class, session } = trouble.verdict();
            if let SessionMove::Pauses { .. } | SessionMove::Ends(_) = session {
                assert_eq!(class, DOWN, "{trouble:?}");
            }
        }
    }
}
