//! IN-1: committed before acknowledged, and delivered again when the commit failed.

use std::time::Duration;

use wagate_domain::{Jid, ReceiptKind};
use wagate_engine::Liveness;
use wagate_network::world::AccountPatch;

use crate::harness::{A, B, Harness};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_committed_before_it_is_acknowledged() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    companion.sink.hold();
    let peer = harness.phone(B);
    let id = peer.send(A, "hello").await.unwrap();
    companion.sink.until_waiting().await;
    // Decrypted, not committed: the network must still hold it for this device.
    let unconfirmed = harness.network.with_world(|world, _, _| {
        let account = world.account_by_phone(A).unwrap();
        let companion = account.devices().find(|device| device.number != 0).unwrap();
        companion
            .unconfirmed()
            .filter(|stanza| stanza.is("message"))
            .count()
    });
    assert_eq!(unconfirmed, 1);
    companion.sink.release();
    let message = companion.sink.text("hello").await;
    assert_eq!(message.wa_id.as_str(), id);
    assert_eq!((&message.chat, &message.sender), (&Jid::pn(B), &Jid::pn(B)));
    assert!(!message.from_me);
    assert_eq!(message.push_name.as_deref(), Some("Budi"));
    peer.expect_receipt(&id, "delivered").await.unwrap();
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_committed_comes_again() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    companion.sink.fail(true);
    let peer = harness.phone(B);
    let id = peer.send(A, "again").await.unwrap();
    companion.sink.until_refused().await;
    companion.stop().await;
    assert!(companion.sink.all().is_empty());
    drop(companion);
    let mut companion = harness.open(&lease).await;
    let message = companion.sink.text("again").await;
    assert_eq!(message.wa_id.as_str(), id);
    companion.connected().await;
    companion.stop().await;
    assert_eq!(companion.sink.all().len(), 1);
    harness.judge().await;
}

/// A process that died after Signal's session was stored and before the message was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decrypted_and_not_kept_is_asked_for_again() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    let peer = harness.phone(B);
    peer.send(A, "first").await.unwrap();
    companion.sink.text("first").await;
    companion.sink.fail(true);
    let id = peer.send(A, "second").await.unwrap();
    companion.sink.until_refused().await;
    companion.stop().await;
    drop(companion);
    assert_eq!(harness.forget_buffered(&lease).await, 1);

    let mut companion = harness.open(&lease).await;
    let message = companion.sink.text("second").await;
    assert_eq!(message.wa_id.as_str(), id);
    peer.expect_receipt(&id, "delivered").await.unwrap();
    companion.connected().await;
    companion.stop().await;
    assert_eq!(companion.sink.all().len(), 1);
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_committed_is_fetched_by_a_new_connection_when_it_can_be() {
    let quick = Liveness {
        probe_after: Duration::from_secs(30),
        answer_within: Duration::from_millis(600),
    };
    let harness = Harness::start_with(|options| options.liveness = quick).await;
    let (_, mut companion) = harness.linked(A).await;
    companion.sink.fail(true);
    let id = harness.phone(B).send(A, "later").await.unwrap();
    companion.sink.until_refused().await;
    companion.sink.fail(false);
    let message = companion.sink.text("later").await;
    assert_eq!(message.wa_id.as_str(), id);
    harness
        .phone(B)
        .expect_receipt(&id, "delivered")
        .await
        .unwrap();
    companion.connected().await;
    companion.stop().await;
    assert_eq!(companion.sink.all().len(), 1);
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_while_away_comes_in_order() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    companion.stop().await;
    drop(companion);
    let peer = harness.phone(B);
    for number in 0..20 {
        peer.send(A, &format!("waited {number}")).await.unwrap();
    }
    let mut companion = harness.open(&lease).await;
    companion.sink.text("waited 19").await;
    let texts: Vec<_> = companion
        .sink
        .all()
        .iter()
        .filter_map(|message| message.content.as_text().map(str::to_owned))
        .collect();
    let wanted: Vec<_> = (0..20).map(|number| format!("waited {number}")).collect();
    assert_eq!(texts, wanted);
    assert!(companion.sink.all().iter().all(|message| message.offline));
    companion.connected().await;
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owner_writes_on_the_phone_appears() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).send(B, "by hand").await.unwrap();
    let message = companion.sink.text("by hand").await;
    assert!(message.from_me);
    assert_eq!((&message.chat, &message.sender), (&Jid::pn(B), &Jid::pn(A)));
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_one_chat_whichever_way_he_is_addressed() {
    let harness = Harness::start().await;
    for number in [A, B] {
        let patch = AccountPatch {
            migrated_to_lid: Some(true),
            ..AccountPatch::default()
        };
        harness.phone(number).patch(patch).unwrap();
    }
    let (_, mut companion) = harness.linked(A).await;
    let peer = harness.phone(B);
    let lid = peer.lid().unwrap().to_string();
    peer.send(A, "by lid").await.unwrap();
    let message = companion.sink.text("by lid").await;
    assert_eq!((&message.chat, &message.sender), (&Jid::pn(B), &Jid::pn(B)));
    assert_eq!(message.chat_alt.map(|alt| alt.to_string()), Some(lid));
    let id = companion.send(B, "by number").await;
    assert_eq!(companion.ack(&id).await, None);
    assert_eq!(
        companion.receipt(&id, ReceiptKind::Delivered).await,
        Jid::pn(B)
    );
    peer.expect_text("by number").await.unwrap();
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_is_told_to_the_sender() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let peer = harness.phone(B);
    let id = peer.send(A, "seen?").await.unwrap();
    let message = companion.sink.text("seen?").await;
    companion
        .device
        .mark_read(&message.chat, None, &[message.wa_id])
        .await
        .unwrap();
    peer.expect_receipt(&id, "read").await.unwrap();
    companion.stop().await;
    harness.judge().await;
}
