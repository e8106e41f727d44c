//! What whatsapp-rust 0.7.0 makes of a network that errs on purpose: every stream error, every refused
//! login, lost and doubled messages, damaged encryption. What this client is known to do stands in
//! tables; a network that sends something else than it should shows as another outcome.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test's helper fails the test"
)]

#[path = "whatsapp_rust/companion.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod companion;

use wagate_network::faults::{Action, FaultRule, Match, StreamErrorDetail};
use wagate_network::network::Network;
use wagate_network::phone::ChatState;
use wagate_network::world::AccountPatch;
use whatsapp_rust::prelude::*;
use whatsapp_rust::types::presence::ReceiptType;

use companion::{A, B, Companion, Store, judge, linked, phone, start};

fn add(network: &Network, rule: FaultRule) {
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
}

/// What the client tells and does after a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It comes back by itself.
    Returns,
    /// It gives up with this event.
    LoggedOut,
    Replaced,
    Banned,
    Outdated,
    Refused,
}

fn outcome(event: &Event) -> Option<Outcome> {
    match event {
        Event::LoggedOut(_) => Some(Outcome::LoggedOut),
        Event::StreamReplaced(_) => Some(Outcome::Replaced),
        Event::TemporaryBan(_) => Some(Outcome::Banned),
        Event::ClientOutdated(_) => Some(Outcome::Outdated),
        Event::ConnectFailure(_) => Some(Outcome::Refused),
        _ => None,
    }
}

/// Lets the next message to the client meet a stream error.
async fn assert_stream_error(network: &Network, store: &Store, action: Action, wanted: Outcome) {
    let told = format!("{action:?}");
    let mut client = Companion::start(network, store).await;
    client.connected().await;
    let rule = FaultRule::new(Match::to_device("message").account(A), action).once();
    add(network, rule);
    phone(network, B).send(A, &told).await.unwrap();
    if wanted == Outcome::Returns {
        client.text(&told).await;
        client.stop().await;
    } else {
        let got = client
            .expect(&format!("the end after {told}"), outcome)
            .await;
        assert_eq!(got, wanted, "{told}");
        client.ended().await;
        // The message stayed in the queue.
        let mut client = Companion::start(network, store).await;
        client.text(&told).await;
        client.stop().await;
    }
    phone(network, A).expect_companions_online(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_error_has_its_outcome() {
    use Outcome::{LoggedOut, Replaced, Returns};
    use StreamErrorDetail::{Ack, ConflictDeviceRemoved, ConflictReplaced, XmlNotWellFormed};
    let network = start().await;
    let store = Store::new();
    linked(&network, A, &store).await.stop().await;
    let error = |code, detail| Action::StreamError {
        code,
        detail,
        close: true,
    };
    for (action, wanted) in [
        (Action::Close { abrupt: true }, Returns),
        (Action::Close { abrupt: false }, Returns),
        (Action::StreamEnd, Returns),
        (error(Some(515), None), Returns),
        (error(Some(503), None), Returns),
        (error(Some(500), None), Returns),
        (error(Some(401), None), LoggedOut),
        (error(Some(516), None), LoggedOut),
        (error(Some(409), None), Replaced),
        (error(None, Some(ConflictReplaced)), Replaced),
        (error(None, Some(ConflictDeviceRemoved)), LoggedOut),
        (error(Some(401), Some(ConflictDeviceRemoved)), LoggedOut),
        (error(None, Some(XmlNotWellFormed)), Returns),
        (error(None, Some(Ack)), Returns),
    ] {
        assert_stream_error(&network, &store, action, wanted).await;
    }
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refused_login_has_its_outcome() {
    use Outcome::{Banned, LoggedOut, Outdated, Refused};
    let network = start().await;
    let store = Store::new();
    linked(&network, A, &store).await.stop().await;
    for (reason, wanted) in [
        (401, LoggedOut),
        (402, Banned),
        (403, LoggedOut),
        (405, Outdated),
        (406, LoggedOut),
        (409, Refused),
        (411, Refused),
        (413, Refused),
        (414, Refused),
        (415, Refused),
        (418, Refused),
        (429, Refused),
        (500, Refused),
        (503, Refused),
    ] {
        let ban = reason == 402;
        let action = Action::Failure {
            reason,
            code: ban.then_some(101),
            expire: ban.then_some(3600),
            location: Some("sandbox".into()),
            message: None,
            url: None,
        };
        add(
            &network,
            FaultRule::new(Match::connect().account(A), action).once(),
        );
        let mut client = Companion::start(&network, &store).await;
        let got = client
            .expect(&format!("the refusal {reason}"), outcome)
            .await;
        assert_eq!(got, wanted, "{reason}");
        if matches!(reason, 500 | 503) {
            // The two that mean "later": it comes back by itself.
            client.connected().await;
            client.stop().await;
        } else {
            client.ended().await;
        }
    }
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_can_be_late_or_lost() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    let rule = Match::from_device("message").account(A);
    add(&network, FaultRule::new(rule.clone(), Action::NoAck).once());
    let lost = client.send(B, "without an ack").await;
    peer.expect_text("without an ack").await.unwrap();
    client.receipt(&lost, ReceiptType::Delivered).await;

    add(
        &network,
        FaultRule::new(rule, Action::LateAck { ms: 60_000 }).once(),
    );
    let late = client.send(B, "with a late ack").await;
    client.receipt(&late, ReceiptType::Delivered).await;
    assert!(!client.has_ack(&late));
    network.advance(60_000);
    assert_eq!(client.ack(&late).await, None);
    assert!(!client.has_ack(&lost));
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_may_come_twice_swapped_or_late() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    peer.send(A, "opens the session").await.unwrap();
    client.text("opens the session").await;
    for action in [
        Action::Duplicate,
        Action::Reorder { ms: 10_000 },
        Action::Delay { ms: 200 },
    ] {
        let name = action.name();
        add(
            &network,
            FaultRule::new(Match::to_device("message").account(A), action).once(),
        );
        for number in 0..3 {
            peer.send(A, &format!("{name} {number}")).await.unwrap();
        }
        for number in 0..3 {
            client.text(&format!("{name} {number}")).await;
        }
    }
    assert_eq!(client.texts_twice(), Vec::<String>::new());
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_are_asked_for_again() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    // The first opens a session, the second runs in it: both kinds of damage.
    for round in 0..2 {
        let rule = Match::to_device("message").account(A);
        add(&network, FaultRule::new(rule, Action::Corrupt).once());
        let text = format!("to the client, {round}");
        let id = peer.send(A, &text).await.unwrap();
        assert_eq!(client.text(&text).await.0, id);
        peer.expect_receipt(&id, "delivered").await.unwrap();
    }
    let retries = network.with_world(|world, _, _| world.counters.retries);
    assert!(retries >= 2, "{retries}");
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_asks_again_for_a_damaged_message() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    let rule = Match::to_device("message").account(B).device(0);
    add(&network, FaultRule::new(rule, Action::Corrupt).once());
    let id = client.send(B, "to the phone").await;
    peer.expect_text("to the phone").await.unwrap();
    client.receipt(&id, ReceiptType::Delivered).await;
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_moved_to_lids_write_to_each_other() {
    let network = start().await;
    for number in [A, B] {
        let patch = AccountPatch {
            migrated_to_lid: Some(true),
            ..AccountPatch::default()
        };
        phone(&network, number).patch(patch).unwrap();
    }
    let mut a = linked(&network, A, &Store::new()).await;
    let mut b = linked(&network, B, &Store::new()).await;
    for round in 0..3 {
        let id = a.send(B, &format!("a to b, {round}")).await;
        assert_eq!(b.text(&format!("a to b, {round}")).await.0, id);
        a.receipt(&id, ReceiptType::Delivered).await;
        let id = b.send(A, &format!("b to a, {round}")).await;
        assert_eq!(a.text(&format!("b to a, {round}")).await.0, id);
        b.receipt(&id, ReceiptType::Delivered).await;
        let id = phone(&network, B)
            .send(A, &format!("phone to a, {round}"))
            .await
            .unwrap();
        assert_eq!(a.text(&format!("phone to a, {round}")).await.0, id);
    }
    a.stop().await;
    b.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_companion_that_joins_later_gets_what_follows() {
    let network = start().await;
    let mut first = linked(&network, A, &Store::new()).await;
    let mut peer = linked(&network, B, &Store::new()).await;
    peer.send(A, "to one").await;
    first.text("to one").await;
    let mut second = linked(&network, A, &Store::new()).await;
    // The peer learns of the new device by itself: the ack's `phash` differs from the one that it
    // computed, so it asks for the devices again before a later message.
    let mut round = 0;
    loop {
        let text = format!("to both, {round}");
        let id = peer.send(A, &text).await;
        assert_eq!(peer.ack(&id).await, None);
        first.text(&text).await;
        if second.soon(&text).await {
            break;
        }
        round += 1;
        assert!(round < 10, "the peer never learns of the new device");
    }
    let id = second.send(B, "from the second").await;
    assert_eq!(peer.text("from the second").await.0, id);
    first.text("from the second").await;

    phone(&network, A)
        .unlink(second.client.pn().unwrap().device)
        .await
        .unwrap();
    second.logged_out().await;
    peer.send(A, "to one again").await;
    first.text("to one again").await;
    first.stop().await;
    peer.stop().await;
    second.ended().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_and_typing_are_seen() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    let jid: Jid = format!("{B}@s.whatsapp.net").parse().unwrap();
    client.client.presence().set_available().await.unwrap();
    client
        .client
        .presence()
        .subscribe(jid.clone())
        .await
        .unwrap();
    for available in [true, false] {
        peer.presence(available).unwrap();
        client
            .expect("the presence", |event| match event {
                Event::Presence(presence) if presence.unavailable != available => Some(()),
                _ => None,
            })
            .await;
    }
    peer.chat_state(A, ChatState::Composing).unwrap();
    client
        .expect("typing", |event| {
            matches!(event, Event::ChatPresence(_)).then_some(())
        })
        .await;

    let mut events = network.subscribe();
    client
        .client
        .chatstate()
        .send_composing(&jid)
        .await
        .unwrap();
    peer.expect_chat_state(&mut events, "composing")
        .await
        .unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unregistered_number_is_not_found() {
    let network = start().await;
    let client = linked(&network, A, &Store::new()).await;
    let jids: Vec<Jid> = [B, "6281199999999"]
        .map(|number| format!("{number}@s.whatsapp.net").parse().unwrap())
        .to_vec();
    let found = client
        .client
        .contacts()
        .is_on_whatsapp(&jids)
        .await
        .unwrap();
    let registered: Vec<_> = found
        .iter()
        .filter(|contact| contact.is_registered)
        .map(|contact| contact.jid.user.to_string())
        .collect();
    assert_eq!(registered, [B]);
    client.stop().await;
    judge(network).await;
}
