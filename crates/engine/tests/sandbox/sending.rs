//! Written, acknowledged, delivered, read; refused, and not heard of again.

use std::time::Duration;

use wagate_domain::{Jid, PhoneNumber, ReceiptKind, RetryClass, WaMessageId};
use wagate_engine::{EngineError, EngineEvent};
use wagate_network::faults::{Action, Direction, FaultRule, Match, When};
use wagate_network::transcript::{Entry, Note};

use crate::harness::{A, B, Harness, content};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decrypted_is_stored_before_something_else_is_encrypted() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    let peer = harness.phone(B);
    for text in ["one", "two"] {
        let id = companion.send(B, text).await;
        companion.receipt(&id, ReceiptKind::Delivered).await;
        peer.send(A, text).await.unwrap();
        companion.sink.text(text).await;
    }
    // Everything is stored when a device has stopped. The first send of a new one takes a number of
    // counters and stores that, so that the next needs no write for them.
    companion.stop().await;
    let mut companion = harness.open(&lease).await;
    companion.connected().await;
    let id = companion.send(B, "first").await;
    companion.receipt(&id, ReceiptKind::Delivered).await;
    let before = harness.stored_sessions(&lease).await;
    peer.send(A, "three").await.unwrap();
    companion.sink.text("three").await;
    // By itself the library would store what it decrypted 25 ms later.
    companion.send(B, "four").await;
    let after = harness.stored_sessions(&lease).await;
    let same = before.iter().filter(|row| after.contains(row)).count();
    assert_eq!((before.len() - same, after.len()), (1, before.len()));
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_acknowledged_delivered_and_read() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let id = companion.send(B, "hello").await;
    assert_eq!(companion.ack(&id).await, None);
    let shown = harness.phone(B).expect_text("hello").await.unwrap();
    assert_eq!(shown.id, id.as_str());
    assert_eq!(
        companion.receipt(&id, ReceiptKind::Delivered).await,
        Jid::pn(B)
    );
    harness.phone(B).read(A).await.unwrap();
    assert_eq!(companion.receipt(&id, ReceiptKind::Read).await, Jid::pn(B));
    // The owner's phone shows it too.
    harness.phone(A).expect_text("hello").await.unwrap();
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_leaves_no_secret_behind() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        let id = companion.send(B, text).await;
        assert_eq!(companion.ack(&id).await, None);
        ids.push(id);
    }
    // All that the library has put off is written then.
    companion.stop().await;
    // `backend::kind::MSG_SECRET_FIRST`, and the one for those that are kept.
    let kinds = (64..96).chain([19]);
    let secrets = harness.stored(&lease, kinds).await;
    let is_ours = |key: &str| ids.iter().any(|id| key.ends_with(id.as_str()));
    assert!(!secrets.iter().any(|(key, _)| is_ours(key)), "{secrets:?}");
    harness.judge().await;
}

/// Keys that were fetched under the number are moved when the LID is learned after all, at 160 KiB and a
/// look through two hundred addresses a contact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fetched_under_the_lid_from_the_start() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let id = companion.send(B, "hello").await;
    assert_eq!(companion.ack(&id).await, None);
    let lid = harness.phone(B).lid().unwrap().to_string();
    let number = Jid::pn(B).to_string();
    let asked = harness.network.with_world(|world, _, _| {
        let keys = world.transcript.entries(0).filter_map(key_request);
        keys.collect::<Vec<_>>()
    });
    assert!(
        asked.iter().any(|xml| xml.contains(&lid)),
        "{lid}: {asked:?}"
    );
    assert!(
        !asked.iter().any(|xml| xml.contains(&number)),
        "{number}: {asked:?}"
    );
    companion.stop().await;
    harness.judge().await;
}

/// A companion's request for prekeys, as XML.
fn key_request(entry: &Entry) -> Option<String> {
    let Note::Stanza(stanza) = &entry.note else {
        return None;
    };
    let from_companion = stanza.direction == Direction::FromDevice && stanza.device != 0;
    let xml = stanza.xml.clone().filter(|_| from_companion)?;
    (stanza.tag == "iq" && xml.contains("<key>")).then_some(xml)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_are_each_acknowledged() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let first = companion.send(B, "0").await;
    assert_eq!(companion.ack(&first).await, None);
    let mut sends = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let device = companion.device.clone();
        sends.spawn(async move {
            let id = WaMessageId::generate();
            device
                .send(&id, &Jid::pn(B), &content(&number.to_string()))
                .await
                .unwrap();
            id
        });
    }
    for id in sends.join_all().await {
        assert_eq!(companion.ack(&id).await, None);
    }
    assert_eq!(harness.phone(B).expect_count(101).await.unwrap().len(), 101);
    assert_eq!(companion.device.stats().awaiting_ack, 0);
    assert_eq!(companion.device.stats().messages_written, 101);
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_times_out_and_a_resend_shows_once() {
    let timeout = Duration::from_millis(1500);
    let harness = Harness::start_with(|options| options.ack_timeout = timeout).await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).lose_acks(1);
    let id = companion.send(B, "once").await;
    companion
        .expect("the time-out", |event| match event {
            EngineEvent::AckTimeout { wa_id } if *wa_id == id => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(companion.device.stats().ack_timeouts, 1);
    // MP-2: the same id again.
    companion
        .device
        .send(&id, &Jid::pn(B), &content("once"))
        .await
        .unwrap();
    assert_eq!(companion.ack(&id).await, None);
    harness.phone(B).expect_text("once").await.unwrap();
    assert_eq!(harness.phone(B).texts(), ["once"]);
    companion.stop().await;
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_with_its_code() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    for code in [479_u16, 463, 475] {
        let rule = FaultRule::new(
            Match::from_device("message").account(A),
            Action::Nack { code },
        )
        .when(When {
            times: Some(1),
            ..When::default()
        });
        harness
            .network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
        let id = companion.send(B, "refused").await;
        let refused = companion.ack(&id).await;
        assert_eq!(refused, Some(u32::from(code)));
        let class = EngineError::Nack {
            code: u32::from(code),
        }
        .retry_class();
        assert_eq!(class == RetryClass::Never, code == 479);
    }
    assert_eq!(companion.device.stats().nacks, 3);
    companion.stop().await;
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_on_whatsapp_is_not_written_to() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let nobody = "6281199999999";
    let id = WaMessageId::generate();
    let sent = companion
        .device
        .send(&id, &Jid::pn(nobody), &content("anybody?"))
        .await;
    assert!(
        matches!(&sent, Err(EngineError::NotOnWhatsApp(jid)) if *jid == Jid::pn(nobody)),
        "{sent:?}"
    );
    let phones: Vec<_> = [B, nobody]
        .iter()
        .map(|phone| PhoneNumber::parse(phone, None).unwrap())
        .collect();
    let found = companion.device.registrations(&phones).await.unwrap();
    assert_eq!(found[0].jid, Some(Jid::pn(B)));
    assert_eq!(found[1].jid, None);
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_without_keys_is_an_error_and_no_silent_loss() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let mut matches = Match::from_device("iq").account(A);
    matches.stanza.xmlns = Some("encrypt".to_owned());
    matches.stanza.child = Some("key".to_owned());
    let refuse = Action::IqError {
        code: 503,
        text: None,
        backoff: None,
    };
    let rule = FaultRule::new(matches, refuse).when(When {
        times: Some(1),
        ..When::default()
    });
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = WaMessageId::generate();
    let sent = companion
        .device
        .send(&id, &Jid::pn(B), &content("lost?"))
        .await;
    let error = sent.unwrap_err();
    assert!(
        matches!(error, EngineError::Refused { code: 503, .. }),
        "{error:?}"
    );
    assert_eq!(error.retry_class(), RetryClass::Backoff);
    companion
        .device
        .send(&id, &Jid::pn(B), &content("found"))
        .await
        .unwrap();
    assert_eq!(companion.ack(&id).await, None);
    harness.phone(B).expect_text("found").await.unwrap();
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_written_in_time_is_not_written_later() {
    let harness = Harness::start_with(|options| {
        options.send_timeout = Duration::from_millis(500);
    })
    .await;
    let (_, mut companion) = harness.linked(A).await;
    let mut keys = Match::from_device("iq").account(A);
    keys.stanza.xmlns = Some("encrypt".to_owned());
    keys.stanza.child = Some("key".to_owned());
    let late_keys = FaultRule::new(keys, Action::Delay { ms: 1_500 }).once();
    let late_ack = Action::LateAck { ms: 3_000 };
    let late_ack = FaultRule::new(Match::from_device("message").account(A), late_ack);
    for rule in [late_keys, late_ack] {
        harness
            .network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
    }
    let given_up = WaMessageId::generate();
    let sent = companion
        .device
        .send(&given_up, &Jid::pn(B), &content("too late"))
        .await;
    let error = sent.unwrap_err();
    assert!(matches!(error, EngineError::Timeout { .. }), "{error:?}");
    assert_eq!(error.retry_class(), RetryClass::Backoff);
    let id = WaMessageId::generate();
    let in_time = content("in time");
    while let Err(error) = companion.device.send(&id, &Jid::pn(B), &in_time).await {
        // The connection is being replaced.
        assert_eq!(error.retry_class(), RetryClass::SessionDown, "{error:?}");
        companion.connected().await;
    }
    // Acknowledged long after the keys would have come.
    assert_eq!(companion.ack(&id).await, None);
    assert_eq!(harness.phone(B).texts(), ["in time"]);
    companion.stop().await;
    harness.judge().await;
}
