//! Goal: the walks that sessions and messages take, one by one. Method: inputs by hand into the pure core.
//! `model` drives it with random ones.

mod flights;
mod model;

use wagate_domain::retry::{Fault, Trouble};
use wagate_domain::{Jid, PhoneNumber};
use wagate_engine::Ended;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn bounds() -> Bounds {
    Bounds {
        concurrency: 3,
        retries_max: 5,
        link_timeout: Duration::from_secs(180),
        link_qr_max: 6,
        drain_within: Duration::from_secs(5),
        stuck_after: Duration::from_secs(180),
    }
}

fn want(desired: Desired, generation: i64) -> Want {
    Want {
        desired,
        generation,
        method: None,
    }
}

fn core(desired: Desired) -> Core {
    Core::new(bounds(), want(desired, 1), LinkState::Idle)
}

fn identity() -> Identity {
    let jid = Jid::pn("6281234567890");
    Identity {
        jid,
        lid: None,
        push_name: None,
        platform: None,
    }
}

fn wa_id(n: usize) -> WaMessageId {
    WaMessageId::parse(&format!("3EB0{n:018}")).unwrap()
}

fn qr(n: u32) -> EngineEvent {
    let expires_at = NOW.plus(Duration::from_secs(20));
    EngineEvent::Challenge(LinkChallenge::Qr {
        qr: format!("qr-{n}"),
        expires_at,
    })
}

fn links(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Observe(observed) => Some(observed.link.as_str()),
            _ => None,
        })
        .collect()
}

fn failure() -> Failure {
    Failure {
        code: "timeout".to_owned(),
        reason: "no answer".to_owned(),
    }
}

/// A core whose device is connected.
fn connected() -> Core {
    let mut core = core(Desired::Running);
    assert!(core.begin(NOW).contains(&Effect::Open));
    assert!(
        core.step(NOW, [Input::Opened { linked: true }])
            .contains(&Effect::Start)
    );
    let effects = core.step(NOW, [Input::Device(EngineEvent::Connected(identity()))]);
    assert_eq!(links(&effects), ["connected"]);
    assert!(effects.contains(&Effect::Claim { asked: 3 }));
    assert_eq!(
        core.step(
            NOW,
            [Input::Claimed {
                claimed: vec![],
                asked: 3
            }]
        ),
        []
    );
    core
}

/// A connected core with one message written, and the flight's number.
fn one_written() -> (Core, WaMessageId) {
    let mut core = connected();
    let id = wa_id(1);
    core.step(NOW, [Input::Wake]);
    let claimed = vec![(id.clone(), 1)];
    let effects = core.step(NOW, [Input::Claimed { claimed, asked: 3 }]);
    assert_eq!(
        effects,
        [Effect::Send {
            wa_id: id.clone(),
            flight: 1
        }]
    );
    assert_eq!(
        core.step(
            NOW,
            [Input::Written {
                wa_id: id.clone(),
                flight: 1
            }]
        ),
        []
    );
    (core, id)
}

#[test]
fn linking_by_qr_shows_each_text_and_ends_connected() {
    let mut core = core(Desired::Running);
    core.begin(NOW);
    core.step(NOW, [Input::Opened { linked: false }]);
    for n in 0..3 {
        let effects = core.step(NOW, [Input::Device(qr(n))]);
        assert_eq!(links(&effects), ["awaiting_scan"]);
    }
    core.step(NOW, [Input::Device(EngineEvent::Paired(identity()))]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::Connected(identity()))]);
    assert_eq!(links(&effects), ["connected"]);
    assert_eq!(core.next_tick(), None);
}

#[test]
fn linking_is_given_up_after_the_last_qr_or_when_time_is_up() {
    for by_count in [true, false] {
        let mut core = core(Desired::Running);
        core.begin(NOW);
        core.step(NOW, [Input::Opened { linked: false }]);
        let effects = if by_count {
            let six = (0..6).map(|n| Input::Device(qr(n)));
            assert!(!core.step(NOW, six).contains(&Effect::End));
            core.step(NOW, [Input::Device(qr(7))])
        } else {
            let later = core.next_tick().unwrap();
            assert_eq!(later.since(NOW), bounds().link_timeout);
            core.step(later, [Input::Tick])
        };
        assert_eq!(links(&effects), ["link_failed"]);
        assert_eq!(effects.last(), Some(&Effect::End));
        assert!(core.is_over());
    }
}

#[test]
fn a_failed_attempt_to_link_is_the_reason_that_is_given() {
    let mut core = core(Desired::Running);
    core.begin(NOW);
    core.step(NOW, [Input::Opened { linked: false }]);
    let reason = "signature mismatch".to_owned();
    core.step(NOW, [Input::Device(EngineEvent::PairingFailed { reason })]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::ChallengeExpired)]);
    assert!(format!("{effects:?}").contains("signature mismatch"));
}

#[test]
fn with_a_pairing_code_no_qr_is_shown_and_running_out_of_them_ends_nothing() {
    let phone = PhoneNumber::parse("+6281234567890", None).unwrap();
    let method = Some(LinkMethod::Code {
        phone: phone.clone(),
    });
    let wanted = Want {
        desired: Desired::Running,
        generation: 1,
        method,
    };
    let mut core = Core::new(bounds(), wanted, LinkState::Idle);
    core.begin(NOW);
    let effects = core.step(NOW, [Input::Opened { linked: false }]);
    assert_eq!(effects, [Effect::Start, Effect::RequestCode(phone)]);
    assert_eq!(core.step(NOW, [Input::Device(qr(1))]), []);
    let expires_at = NOW.plus(Duration::from_secs(170));
    let code = LinkChallenge::Code {
        code: "ABCD1234".to_owned(),
        expires_at,
    };
    let effects = core.step(NOW, [Input::Device(EngineEvent::Challenge(code))]);
    assert_eq!(links(&effects), ["awaiting_scan"]);
    assert_eq!(
        core.step(NOW, [Input::Device(EngineEvent::ChallengeExpired)]),
        []
    );
    let effects = core.step(expires_at, [Input::Device(EngineEvent::ChallengeExpired)]);
    assert_eq!(links(&effects), ["link_failed"]);
}

#[test]
fn a_refused_pairing_code_ends_with_its_reason() {
    let phone = PhoneNumber::parse("+6281234567890", None).unwrap();
    let method = Some(LinkMethod::Code { phone });
    let wanted = Want {
        desired: Desired::Running,
        generation: 1,
        method,
    };
    let mut core = Core::new(bounds(), wanted, LinkState::Idle);
    core.begin(NOW);
    core.step(NOW, [Input::Opened { linked: false }]);
    let reason = "too many pairing codes were asked for".to_owned();
    let effects = core.step(NOW, [Input::CodeFailed { reason }]);
    assert_eq!(links(&effects), ["link_failed"]);
    assert!(format!("{effects:?}").contains("pairing_code_refused"));
}

#[test]
fn permanent_ends_become_states_and_nothing_connects_again() {
    let because = || "x".to_owned();
    let cases = [
        (Ended::LoggedOut { reason: because() }, "logged_out", true),
        (Ended::Locked { reason: because() }, "banned", false),
        (Ended::Replaced, "replaced", false),
        (
            Ended::Banned {
                until: None,
                code: 101,
            },
            "banned",
            false,
        ),
        (Ended::Outdated, "outdated", false),
        (
            Ended::Refused {
                code: 409,
                reason: because(),
            },
            "link_failed",
            false,
        ),
        (
            Ended::RefusedCertificate { reason: because() },
            "link_failed",
            false,
        ),
    ];
    for (ended, state, clears) in cases {
        let mut core = connected();
        let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(ended))]);
        assert_eq!(links(&effects), [state]);
        assert_eq!(effects.contains(&Effect::ClearKeys), clears, "{state}");
        assert_eq!(effects.last(), Some(&Effect::End));
        assert!(core.is_over());
        assert_eq!(core.step(NOW, [Input::Wake, Input::Nudge, Input::Tick]), []);
    }
}

#[test]
fn a_fault_opens_a_new_device_after_a_wait() {
    let mut core = connected();
    let reason = "the database was full".to_owned();
    let effects = core.step(
        NOW,
        [Input::Device(EngineEvent::Ended(Ended::Fault { reason }))],
    );
    assert_eq!(links(&effects), ["backoff"]);
    assert!(!effects.contains(&Effect::Open));
    let later = core.next_tick().unwrap();
    assert!(later > NOW);
    assert!(core.step(later, [Input::Tick]).contains(&Effect::Open));
}

#[test]
fn a_stop_waits_for_the_acknowledgement_of_what_is_on_its_way() {
    let (mut core, id) = one_written();
    let effects = core.step(NOW, [Input::Wanted(want(Desired::Stopped, 2))]);
    assert_eq!(effects, []);
    let ack = EngineEvent::ServerAck {
        wa_id: id.clone(),
        chat: None,
        error: None,
        at: NOW,
    };
    let effects = core.step(NOW, [Input::Device(ack)]);
    assert_eq!(effects, [Effect::Acked { wa_id: id }, Effect::Stop]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(links(&effects), ["stopped"]);
    let Effect::Observe(observed) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(observed.done, Some(2));
    assert!(core.is_over());
}

#[test]
fn a_stop_does_not_wait_for_ever_and_puts_back_what_is_in_doubt() {
    let (mut core, id) = one_written();
    core.step(NOW, [Input::Wanted(want(Desired::Stopped, 2))]);
    let later = core.next_tick().unwrap();
    assert_eq!(core.step(later, [Input::Tick]), [Effect::Stop]);
    let effects = core.step(later, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(effects[0], Effect::PutBack { wa_id: id });
}

#[test]
fn a_shutdown_that_is_said_again_and_again_does_not_wait_longer() {
    let (mut core, id) = one_written();
    core.step(NOW, [Input::Shutdown]);
    let end = core.next_tick().unwrap();
    assert_eq!(end.since(NOW), bounds().drain_within);
    for quarter in 1..20 {
        let now = NOW.plus(Duration::from_millis(250 * quarter));
        assert_eq!(core.step(now, [Input::Shutdown]), []);
    }
    assert_eq!(core.step(end, [Input::Tick]), [Effect::Stop]);
    let effects = core.step(end, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(effects[0], Effect::PutBack { wa_id: id });
}

#[test]
fn what_was_written_on_an_earlier_connection_is_sent_again_on_the_next() {
    let mut core = connected();
    core.step(NOW, [Input::Wake]);
    let id = wa_id(1);
    let claimed = vec![(id.clone(), 1)];
    core.step(NOW, [Input::Claimed { claimed, asked: 3 }]);
    let lost = EngineEvent::Disconnected {
        reason: "reset".to_owned(),
        retry_at: NOW,
    };
    let back = EngineEvent::Connected(identity());
    core.step(NOW, [Input::Device(lost), Input::Device(back)]);
    // Nobody waits for its acknowledgement any more.
    let wa_id = id.clone();
    let effects = core.step(NOW, [Input::Written { wa_id, flight: 1 }]);
    assert_eq!(effects[0], Effect::PutBack { wa_id: id });
}

#[test]
fn a_new_connection_returns_what_the_last_one_left_unanswered() {
    let (mut core, id) = one_written();
    let effects = core.step(NOW, [Input::Device(EngineEvent::Connected(identity()))]);
    assert_eq!(effects[0], Effect::PutBack { wa_id: id });
}

#[test]
fn restart_stops_the_device_and_opens_another() {
    let mut core = connected();
    let effects = core.step(NOW, [Input::Wanted(want(Desired::Running, 2))]);
    assert_eq!(effects, [Effect::Stop]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(links(&effects), ["connecting"]);
    assert!(effects.contains(&Effect::Open));
    assert!(!core.is_over());
}

#[test]
fn logout_unlinks_then_deletes_the_keys() {
    let mut core = connected();
    let effects = core.step(NOW, [Input::Wanted(want(Desired::LoggedOut, 2))]);
    assert_eq!(effects, [Effect::Logout]);
    let ended = Ended::LoggedOut {
        reason: "asked".to_owned(),
    };
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(ended))]);
    assert_eq!(effects[0], Effect::ClearKeys);
    assert_eq!(links(&effects), ["logged_out"]);
}

#[test]
fn logout_of_a_stopped_session_opens_a_device_to_unlink_it() {
    let mut core = core(Desired::LoggedOut);
    assert_eq!(core.begin(NOW), [Effect::Open]);
    assert_eq!(
        core.step(NOW, [Input::Opened { linked: true }]),
        [Effect::Logout]
    );
}

#[test]
fn deleting_a_session_that_was_never_linked_needs_no_connection() {
    let mut core = core(Desired::Deleted);
    assert_eq!(core.begin(NOW), [Effect::Open]);
    assert_eq!(
        core.step(NOW, [Input::Opened { linked: false }]),
        [Effect::Stop]
    );
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(effects, [Effect::DeleteSession, Effect::End]);
}

#[test]
fn a_shutdown_leaves_the_state_as_it_is_for_the_next_holder() {
    let mut core = connected();
    assert_eq!(core.step(NOW, [Input::Shutdown]), [Effect::Stop]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(Ended::Stopped))]);
    assert_eq!(effects, [Effect::End]);
}

#[test]
fn a_lost_lease_ends_everything_without_a_word() {
    let (mut core, _) = one_written();
    let effects = core.step(NOW, [Input::Device(EngineEvent::Ended(Ended::LeaseLost))]);
    assert_eq!(effects, [Effect::End]);
}

#[test]
fn a_lost_connection_puts_back_what_is_in_doubt_and_claims_again_when_it_is_back() {
    let (mut core, id) = one_written();
    let retry_at = NOW.plus(Duration::from_secs(1));
    let reason = "reset".to_owned();
    let effects = core.step(
        NOW,
        [Input::Device(EngineEvent::Disconnected {
            reason,
            retry_at,
        })],
    );
    assert_eq!(effects[0], Effect::PutBack { wa_id: id });
    assert_eq!(links(&effects), ["backoff"]);
    assert_eq!(core.step(NOW, [Input::Wake]), []);
    assert_eq!(core.step(NOW, [Input::Nudge]), [Effect::ReconnectNow]);
    let effects = core.step(NOW, [Input::Device(EngineEvent::Connected(identity()))]);
    assert!(effects.contains(&Effect::Claim { asked: 3 }));
}

#[test]
fn an_acknowledgement_that_overtakes_the_call_counts() {
    let mut core = connected();
    core.step(NOW, [Input::Wake]);
    let id = wa_id(1);
    core.step(
        NOW,
        [Input::Claimed {
            claimed: vec![(id.clone(), 1)],
            asked: 3,
        }],
    );
    let ack = EngineEvent::ServerAck {
        wa_id: id.clone(),
        chat: None,
        error: None,
        at: NOW,
    };
    let effects = core.step(NOW, [Input::Device(ack)]);
    assert_eq!(effects, [Effect::Acked { wa_id: id.clone() }]);
    let late = Input::NotWritten {
        wa_id: id,
        flight: 1,
        verdict: Trouble::Ours(Fault::Timeout).verdict(),
        failure: failure(),
    };
    assert_eq!(core.step(NOW, [late]), [Effect::Claim { asked: 3 }]);
}

#[test]
fn a_refusal_that_will_not_change_fails_the_message_and_another_waits() {
    for (code, fails) in [(479, true), (503, false)] {
        let (mut core, id) = one_written();
        let nack = EngineEvent::ServerAck {
            wa_id: id.clone(),
            chat: None,
            error: Some(code),
            at: NOW,
        };
        let effects = core.step(NOW, [Input::Device(nack)]);
        assert_eq!(matches!(effects[0], Effect::Fail { .. }), fails, "{code}");
        assert_eq!(matches!(effects[0], Effect::Retry { .. }), !fails, "{code}");
    }
}

#[test]
fn five_retries_then_unconfirmed() {
    for (attempt, fails) in [(5, false), (6, true)] {
        let mut core = connected();
        core.step(NOW, [Input::Wake]);
        let id = wa_id(1);
        core.step(
            NOW,
            [Input::Claimed {
                claimed: vec![(id.clone(), attempt)],
                asked: 3,
            }],
        );
        core.step(
            NOW,
            [Input::Written {
                wa_id: id.clone(),
                flight: 1,
            }],
        );
        let effects = core.step(NOW, [Input::Device(EngineEvent::AckTimeout { wa_id: id })]);
        assert_eq!(
            matches!(effects[0], Effect::Fail { .. }),
            fails,
            "{attempt}"
        );
        assert!(format!("{:?}", effects[0]).contains("unconfirmed"));
    }
}

fn nacked(code: u32) -> (WaMessageId, Vec<Effect>) {
    let (mut core, id) = one_written();
    let nack = EngineEvent::ServerAck {
        wa_id: id.clone(),
        chat: None,
        error: Some(code),
        at: NOW,
    };
    (id, core.step(NOW, [Input::Device(nack)]))
}

#[test]
fn a_refusal_that_asks_for_patience_pauses_the_session_and_fails_nothing() {
    let table = [
        (463, Scope::NewChats, Reason::ReachOutLimited),
        (475, Scope::NewChats, Reason::NewChatsCapped),
        (429, Scope::All, Reason::RateLimited),
    ];
    for (code, scope, reason) in table {
        let (wa_id, effects) = nacked(code);
        let pause = Effect::Pause {
            scope,
            reason,
            named: None,
        };
        // The claim that follows heeds the pause, which the actor knows by then.
        let claim = Effect::Claim { asked: 3 };
        assert_eq!(effects, [pause, Effect::Hold { wa_id, scope }, claim]);
    }
}

#[test]
fn a_connection_that_ends_for_too_many_requests_pauses_the_session() {
    let (mut core, _) = one_written();
    let effects = core.step(NOW, [Input::Device(EngineEvent::RateLimited)]);
    let named = None;
    let pause = Effect::Pause {
        scope: Scope::All,
        reason: Reason::RateLimited,
        named,
    };
    assert_eq!(effects[0], pause);
}

#[test]
fn a_ban_for_a_time_pauses_until_then() {
    let (mut core, id) = one_written();
    let until = Some(NOW.plus(Duration::from_secs(3600)));
    let banned = EngineEvent::Ended(Ended::Banned { until, code: 101 });
    let effects = core.step(NOW, [Input::Device(banned)]);
    let pause = Effect::Pause {
        scope: Scope::All,
        reason: Reason::Banned,
        named: Some(Duration::from_secs(3600)),
    };
    assert_eq!(effects[..2], [Effect::PutBack { wa_id: id }, pause]);
    assert_eq!(effects.last(), Some(&Effect::End));
}

#[test]
fn silence_is_told() {
    let (mut core, _) = one_written();
    let effects = core.step(NOW, [Input::Device(EngineEvent::Silent)]);
    assert_eq!(effects[0], Effect::TellSilent);
}
