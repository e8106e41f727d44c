//! Goal: a session has one holder, and loses it to nobody's harm (SL-1). Method: several workers and
//! stolen leases on one database.

use std::time::Duration;

use wagate_domain::{Desired, LinkState, MessageState, WorkerId};
use wagate_store::leases;
use wagate_worker::WorkerOptions;

use crate::harness::{FRIEND, Harness, OWNER, now, options};

const NOBODY: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_dead_worker_is_taken_over_when_its_lease_ends() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let first = harness.worker(options("first")).await;
    let session = harness.linked("kept", &owner).await;
    assert!(first.stop(Duration::from_secs(10)).await);

    harness.held_by_a_dead(Duration::from_secs(2)).await;
    let message = harness.accept(&session, FRIEND, "after the takeover").await;
    let second = harness.worker(options("second")).await;
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert_eq!(second.stats().connected, 1);
    assert_eq!(owner.companions(), 1);
    assert!(second.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_lease_ends_the_actor_and_its_connection() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("robbed")).await;
    let session = harness.linked("stolen", &owner).await;
    let (robbed, thief) = (worker.id().clone(), WorkerId::parse("thief").unwrap());
    harness
        .db
        .write(move |tx| {
            leases::release_all(tx, &robbed)?;
            leases::acquire_some(tx, &thief, 1, NOBODY, now())
        })
        .await
        .unwrap();
    let message = harness
        .send(&session, FRIEND, "not by the old holder")
        .await;
    owner.expect_companions_online(0).await.unwrap();
    assert_eq!(harness.message(&message).await.state, MessageState::Queued);
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whom_the_database_keeps_waiting_lets_go_when_its_leases_end() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("waiting")).await;
    let session = harness.linked("hanging", &owner).await;
    let look = async {
        owner.expect_companions_online(0).await.unwrap();
    };
    harness.while_it_hangs(look).await;
    let message = harness.send(&session, FRIEND, "back again").await;
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

/// WhatsApp says a receipt once: whoever heard it must keep it until the database is back, longer than
/// the lease and the actor that heard it. The first one is part of a write that hangs, the others come
/// while it does.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_outlive_a_database_that_is_away_longer_than_the_lease() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friends: Vec<_> = (0..4)
        .map(|n| harness.phone(&format!("628220000000{n}"), "Friend"))
        .collect();
    let worker = harness.worker(options("patient")).await;
    let session = harness.linked("hanging", &owner).await;
    let mut messages = Vec::new();
    for friend in &friends {
        friend.go_offline().unwrap();
        let message = harness.send(&session, &friend.number(), "got it?").await;
        let sent = harness.until_message(&message, MessageState::Sent).await;
        assert_eq!(sent.state, MessageState::Sent);
        messages.push(message);
    }
    let look = async {
        for friend in &friends {
            friend.go_online().unwrap();
            friend.expect_text("got it?").await.unwrap();
        }
        owner.expect_companions_online(0).await.unwrap();
    };
    harness.while_it_hangs(look).await;
    for message in &messages {
        harness
            .until_message(message, MessageState::Delivered)
            .await;
    }
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_is_carried_out_although_the_wake_up_was_lost() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let worker = harness.worker(options("deaf")).await;
    let session = harness.linked("unheard", &owner).await;
    harness.want(&session, Desired::Stopped).await;
    let stopped = |s: &wagate_store::sessions::Session| s.link == LinkState::Stopped;
    harness.until_session(&session, "stopped", stopped).await;
    owner.expect_companions_online(0).await.unwrap();
    assert_eq!(owner.companions(), 1);
    // Nobody runs it any more, so that anybody may take it up.
    harness.want(&session, Desired::Running).await;
    harness.until_connected(&session).await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_leaves_sessions_to_others() {
    let harness = Harness::start().await;
    let one = || WorkerOptions {
        sessions_max: 1,
        ..options("one")
    };
    let first = harness.worker(one()).await;
    let here = harness.session("here").await;
    harness
        .until_session(&here, "a QR code", |s| s.challenge.is_some())
        .await;
    let there = harness.session("there").await;
    let second = harness
        .worker(WorkerOptions {
            sessions_max: 1,
            ..options("two")
        })
        .await;
    harness
        .until_session(&there, "a QR code", |s| s.challenge.is_some())
        .await;
    assert_eq!(first.stats().sessions, 1);
    assert_eq!(second.stats().sessions, 1);
    assert!(first.stop(Duration::from_secs(10)).await);
    assert!(second.stop(Duration::from_secs(10)).await);
    harness.check();
}
