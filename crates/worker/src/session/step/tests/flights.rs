//! Claimed messages in the moments between: claimed and not sent, sent and not said to be written.

use super::*;

/// A connected core with one message that the engine is at work on, as flight 1.
fn one_sending() -> (Core, WaMessageId) {
    let mut core = connected();
    let id = wa_id(1);
    core.step(NOW, [Input::Wake]);
    let claimed = vec![(id.clone(), 1)];
    let effects = core.step(NOW, [Input::Claimed { claimed, asked: 3 }]);
    let (wa_id, flight) = (id.clone(), 1);
    assert_eq!(effects, [Effect::Send { wa_id, flight }]);
    (core, id)
}

fn answer(wa_id: &WaMessageId, error: Option<u32>) -> Input {
    Input::Device(EngineEvent::ServerAck {
        wa_id: wa_id.clone(),
        chat: None,
        error,
        at: NOW,
    })
}

#[test]
fn what_the_engine_is_at_work_on_when_the_device_is_unlinked_is_unconfirmed() {
    let (mut core, id) = one_sending();
    let reason = "unlinked".to_owned();
    let ended = EngineEvent::Ended(Ended::LoggedOut { reason });
    let effects = core.step(NOW, [Input::Device(ended)]);
    let Effect::Fail { wa_id, failure } = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!((wa_id, failure.code.as_str()), (&id, "unconfirmed"));
}

#[test]
fn a_message_that_waits_for_the_session_is_not_claimed_again_at_once() {
    let (mut core, id) = one_sending();
    let away = Input::NotWritten {
        wa_id: id.clone(),
        flight: 1,
        verdict: Trouble::Ours(Fault::NotConnected).verdict(),
        failure: failure(),
    };
    assert_eq!(core.step(NOW, [away]), [Effect::PutBack { wa_id: id }]);
    assert_eq!(core.step(NOW, [Input::Wake]), [Effect::Claim { asked: 3 }]);
}

#[test]
fn the_time_out_of_an_earlier_attempt_does_not_end_this_one() {
    let (mut core, id) = one_sending();
    let wa_id = id.clone();
    let late = Input::Device(EngineEvent::AckTimeout { wa_id });
    assert_eq!(core.step(NOW, [late]), []);
    let (wa_id, flight) = (id.clone(), 1);
    assert_eq!(core.step(NOW, [Input::Written { wa_id, flight }]), []);
    let effects = core.step(NOW, [answer(&id, None)]);
    assert_eq!(effects[0], Effect::Acked { wa_id: id });
}

#[test]
fn an_acknowledgement_is_worth_more_than_a_refusal_of_the_same_id() {
    let (mut core, id) = one_sending();
    core.step(NOW, [answer(&id, None)]);
    assert_eq!(core.step(NOW, [answer(&id, Some(479))]), []);
    let (wa_id, flight) = (id, 1);
    let effects = core.step(NOW, [Input::Written { wa_id, flight }]);
    assert_eq!(effects, [Effect::Claim { asked: 3 }]);
}

#[test]
fn what_was_claimed_for_a_connection_that_is_gone_goes_back() {
    let mut core = connected();
    let effects = core.step(NOW, [Input::Wake]);
    assert_eq!(effects, [Effect::Claim { asked: 3 }]);
    let lost = EngineEvent::Disconnected {
        reason: "reset".to_owned(),
        retry_at: NOW,
    };
    core.step(NOW, [Input::Device(lost)]);
    let claimed = vec![(wa_id(1), 1), (wa_id(2), 1)];
    let effects = core.step(NOW, [Input::Claimed { claimed, asked: 3 }]);
    let back = |n| Effect::PutBack { wa_id: wa_id(n) };
    assert_eq!(effects, [back(1), back(2)]);
}
