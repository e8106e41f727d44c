//! Faults as a real client meets them: whatsapp-rust 0.7.0 and the phones. Each rule is added as the
//! control API adds it; what must follow is told by the client's events, the screens and the checkers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

#[path = "whatsapp_rust/companion.rs"]
#[expect(dead_code, reason = "the tests of whatsapp-rust itself use more of it")]
mod companion;

use wagate_network::faults::{
    Action, FaultRule, Match, NodeSpec, RuleId, StanzaMatch, StreamErrorDetail, When,
};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::transcript::Note;
use wagate_network::world::AccountSpec;
use whatsapp_rust::prelude::*;

use companion::{Companion, Store};

const A: &str = "6281100000001";
const B: &str = "6281100000002";

async fn start() -> Network {
    let network = Network::start(NetworkOptions::default()).await.unwrap();
    for phone in [A, B] {
        let spec = AccountSpec {
            phone: phone.into(),
            ..AccountSpec::default()
        };
        network.create_account(spec).unwrap();
    }
    network
}

fn phone(network: &Network, number: &str) -> PhoneHandle {
    network.phone(number).unwrap()
}

async fn linked(network: &Network, store: &Store) -> Companion {
    let mut client = Companion::start(network, store).await;
    let qr = client.qr().await;
    phone(network, A).scan(&qr).await.unwrap();
    client.connected().await;
    client
}

fn add(network: &Network, rule: FaultRule) -> RuleId {
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap()
}

/// A fault on the next message to the companion.
fn on_delivery(network: &Network, action: Action) {
    add(
        network,
        FaultRule::new(Match::to_device("message").account(A), action).once(),
    );
}

/// A fault on the next message from the companion.
fn on_sending(network: &Network, action: Action) {
    add(
        network,
        FaultRule::new(Match::from_device("message").account(A), action).once(),
    );
}

fn message_acks() -> Match {
    let class = Some("message".to_owned());
    Match::to_device("ack").stanza(StanzaMatch {
        class,
        ..StanzaMatch::tag("ack")
    })
}

fn acknowledged(network: &Network, id: &str) -> bool {
    network.with_world(|world, _, _| {
        world.transcript.entries(0).any(|entry| {
            matches!(&entry.note, Note::Stanza(stanza)
                if stanza.is_message_ack() && stanza.id.as_deref() == Some(id))
        })
    })
}

async fn judge(network: &Network) {
    let report = network.with_world(|world, _, _| world.check());
    assert!(report.ok, "{report}");
    network.stop().await;
}

/// Whether an event is the one that is waited for.
type Told = fn(&Event) -> bool;

fn stream_error(code: Option<u16>, detail: Option<StreamErrorDetail>) -> Action {
    Action::StreamError {
        code,
        detail,
        close: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_back_by_itself_after_what_passes() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let faults = [
        Action::Close { abrupt: true },
        Action::Close { abrupt: false },
        Action::StreamEnd,
        stream_error(Some(515), None),
        stream_error(Some(503), None),
        stream_error(Some(500), None),
        stream_error(None, Some(StreamErrorDetail::XmlNotWellFormed)),
    ];
    for (round, action) in faults.into_iter().enumerate() {
        let text = format!("{} {round}", action.name());
        on_delivery(&network, action);
        phone(&network, B).send(A, &text).await.unwrap();
        client.connected().await;
        client.text(&text).await;
    }
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_after_what_does_not_pass() {
    let logged_out = |event: &Event| matches!(event, Event::LoggedOut(_));
    let replaced = |event: &Event| matches!(event, Event::StreamReplaced(_));
    let faults: [(Action, Told); 6] = [
        (stream_error(Some(401), None), logged_out),
        (stream_error(Some(516), None), logged_out),
        (
            stream_error(Some(401), Some(StreamErrorDetail::ConflictDeviceRemoved)),
            logged_out,
        ),
        (
            stream_error(None, Some(StreamErrorDetail::ConflictDeviceRemoved)),
            logged_out,
        ),
        (
            stream_error(None, Some(StreamErrorDetail::ConflictReplaced)),
            replaced,
        ),
        (stream_error(Some(409), None), replaced),
    ];
    for (action, wanted) in faults {
        let network = start().await;
        let mut client = linked(&network, &Store::new()).await;
        let what = format!("the end by {action:?}");
        on_delivery(&network, action);
        phone(&network, B).send(A, "never seen").await.unwrap();
        client
            .expect(&what, |event| wanted(event).then_some(()))
            .await;
        client.ended().await;
        judge(&network).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_told_with_its_reason() {
    let reasons = [401, 402, 403, 405, 406, 409, 411, 413, 414, 415, 418, 429];
    for reason in reasons {
        let network = start().await;
        let store = Store::new();
        linked(&network, &store).await.stop().await;
        let ban = reason == 402;
        let action = Action::Failure {
            reason,
            code: ban.then_some(101),
            expire: ban.then_some(600),
            location: Some("sandbox".into()),
            message: None,
            url: None,
        };
        let rule = add(
            &network,
            FaultRule::new(Match::connect().account(A), action),
        );
        let mut client = Companion::start(&network, &store).await;
        let told = client
            .expect(&format!("the refusal {reason}"), |event| match event {
                Event::LoggedOut(out) => Some(("logged out", out.on_connect)),
                Event::TemporaryBan(ban) => Some(("banned", ban.expire.num_seconds() == 600)),
                Event::ClientOutdated(_) => Some(("outdated", true)),
                Event::ConnectFailure(_) => Some(("failed", true)),
                _ => None,
            })
            .await;
        let wanted = match reason {
            401 | 403 | 406 => "logged out",
            402 => "banned",
            405 => "outdated",
            _ => "failed",
        };
        assert_eq!(told, (wanted, true), "reason {reason}");
        client.ended().await;
        let report = network
            .with_world(|world, _, _| world.faults.get(rule))
            .unwrap();
        assert_eq!(report.hits, 1, "it tried again after {reason}");
        network.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_tried_again_while_the_network_is_ill() {
    let network = start().await;
    let store = Store::new();
    linked(&network, &store).await.stop().await;
    let failure = |reason| Action::Failure {
        reason,
        code: None,
        expire: None,
        location: None,
        message: None,
        url: None,
    };
    for action in [
        failure(503),
        failure(500),
        Action::Close { abrupt: true },
        Action::Delay { ms: 200 },
    ] {
        let rule = add(
            &network,
            FaultRule::new(Match::connect().account(A), action).once(),
        );
        let mut client = Companion::start(&network, &store).await;
        client.connected().await;
        client.stop().await;
        let report = network
            .with_world(|world, _, _| world.faults.get(rule))
            .unwrap();
        assert_eq!(report.hits, 1);
    }
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_can_be_missing_late_or_doubled() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);

    on_sending(&network, Action::NoAck);
    let silent = client.send(B, "no ack").await;
    peer.expect_text("no ack").await.unwrap();

    on_sending(&network, Action::LateAck { ms: 60_000 });
    let late = client.send(B, "late ack").await;
    peer.expect_text("late ack").await.unwrap();
    assert!(!acknowledged(&network, &late));
    network.advance(60_000);
    assert_eq!(client.ack(&late).await, None);

    let acks = message_acks();
    add(&network, FaultRule::new(acks, Action::Duplicate).once());
    let doubled = client.send(B, "two acks").await;
    assert_eq!(client.ack(&doubled).await, None);
    assert!(
        !acknowledged(&network, &silent),
        "the first was acknowledged after all"
    );
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_message_is_overtaken() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    on_sending(&network, Action::Delay { ms: 60_000 });
    let late = client.send(B, "first").await;
    client.send(B, "second").await;
    peer.expect_text("second").await.unwrap();
    assert_eq!(peer.texts(), ["second"]);
    network.advance(60_000);
    peer.expect_text("first").await.unwrap();
    assert_eq!(client.ack(&late).await, None);
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubled_message_is_shown_once_by_the_phone() {
    let network = start().await;
    let client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    on_sending(&network, Action::Duplicate);
    client.send(B, "twice on the wire").await;
    client.send(B, "afterwards").await;
    peer.expect_text("afterwards").await.unwrap();
    assert_eq!(peer.texts(), ["twice on the wire", "afterwards"]);
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_and_reordered_deliveries_reach_the_client_once() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    for action in [
        Action::Duplicate,
        Action::Reorder { ms: 10_000 },
        Action::Corrupt,
    ] {
        on_delivery(&network, action.clone());
        let texts: Vec<_> = (0..3).map(|n| format!("{} {n}", action.name())).collect();
        for text in &texts {
            peer.send(A, text).await.unwrap();
        }
        for text in &texts {
            client.text(text).await;
        }
    }
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_message_is_asked_for_again() {
    let network = start().await;
    let client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    on_sending(&network, Action::Corrupt);
    client.send(B, "damaged on its way").await;
    peer.expect_text("damaged on its way").await.unwrap();
    // The copy for the sender's own phone may be the damaged one.
    assert!(network.with_world(|world, _, _| world.counters.retries) >= 1);
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_delivery_comes_with_the_next_connection() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    on_delivery(&network, Action::Drop);
    peer.send(A, "lost at first").await.unwrap();
    peer.send(A, "not lost").await.unwrap();
    client.text("not lost").await;
    on_delivery(&network, Action::Close { abrupt: true });
    peer.send(A, "ends the connection").await.unwrap();
    client.text("lost at first").await;
    client.text("ends the connection").await;
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_message_reaches_the_client() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    for code in [404, 421, 463, 475, 479, 487, 491, 499, 500, 552] {
        on_sending(&network, Action::Nack { code });
        let id = client.send(B, "refused").await;
        assert_eq!(client.ack(&id).await, Some(code.to_string()));
    }
    assert!(phone(&network, B).texts().is_empty());
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_fail_as_told() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let to: Jid = format!("{B}@s.whatsapp.net").parse().unwrap();
    let keys = Match::from_device("iq").stanza(StanzaMatch::iq("encrypt", Some("key")));
    let error = Action::IqError {
        code: 503,
        text: Some("service-unavailable".into()),
        backoff: None,
    };
    let rule = add(&network, FaultRule::new(keys, error));
    let refused = client.client.send_text(to, "no keys").await;
    assert!(refused.is_err(), "{refused:?}");
    let report = network
        .with_world(|world, _, _| world.faults.remove(rule))
        .unwrap();
    assert!(report.hits >= 1);
    let id = client.send(B, "with keys").await;
    assert_eq!(client.ack(&id).await, None);
    phone(&network, B).expect_text("with keys").await.unwrap();
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_silent_for_one_connection_only() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let peer = phone(&network, B);
    on_sending(&network, Action::Silence);
    let id = client.send(B, "into the void").await;
    peer.send(A, "cannot be heard").await.unwrap();
    assert!(!acknowledged(&network, &id));
    assert!(peer.texts().iter().all(|text| text != "into the void"));
    // The next connection of the same device works; the silent one is no violation.
    client.client.reconnect_immediately().await;
    client.connected().await;
    client.text("cannot be heard").await;
    client.stop().await;
    judge(&network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_stanza_and_a_seeded_chance() {
    let network = start().await;
    let mut client = linked(&network, &Store::new()).await;
    let acks = message_acks();
    let node = NodeSpec {
        tag: "ack".into(),
        attrs: [("error".to_owned(), "479".to_owned())].into(),
        children: None,
        text: None,
        base64: None,
    };
    add(
        &network,
        FaultRule::new(acks, Action::Replace { node }).once(),
    );
    let id = client
        .send(B, "delivered, but the ack says otherwise")
        .await;
    assert_eq!(client.ack(&id).await.as_deref(), Some("479"));

    let when = When {
        probability: Some(0.5),
        ..When::default()
    };
    let chance = FaultRule::new(Match::from_device("message"), Action::Nack { code: 500 });
    let rule = add(&network, chance.when(when));
    let mut refused = 0;
    for number in 0..20 {
        let id = client.send(B, &format!("by chance {number}")).await;
        refused += u64::from(client.ack(&id).await.is_some());
    }
    let report = network
        .with_world(|world, _, _| world.faults.get(rule))
        .unwrap();
    assert_eq!((report.matched, report.hits), (20, refused));
    assert!((3..=17).contains(&refused), "{refused}");
    client.stop().await;
    judge(&network).await;
}
