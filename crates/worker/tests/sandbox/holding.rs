//! Goal: what a holder leaves behind, and what it does not: claims, keys, a second device, a clock that
//! jumps (SL-1, MP-2). Method: leases and clocks moved behind the worker's back.

use std::sync::Arc;
use std::time::Duration;

use wagate_domain::{Desired, LinkState, MessageState};
use wagate_network::faults::{Action, FaultRule, Match};
use wagate_store::bus::BusMessage;
use wagate_store::device_state::{self, StateKind};
use wagate_store::queue;
use wagate_worker::WorkerOptions;

use crate::harness::{Ahead, FRIEND, Harness, OWNER, now, options};

/// The engine's own row of a device.
const DEVICE: StateKind = StateKind(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_had_in_flight_is_sent_by_the_next_holder() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let first = harness.worker(options("first")).await;
    let session = harness.linked("kept", &owner).await;
    assert!(first.stop(Duration::from_secs(10)).await);
    let message = harness.accept(&session, FRIEND, "in flight").await;
    let lease = harness.held_by_a_dead(Duration::from_secs(1)).await;
    let claimed = harness
        .db
        .write(move |tx| queue::claim(tx, &lease, 3, now()))
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);
    let second = harness.worker(options("second")).await;
    let seen = harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert_eq!((seen.wa_id, seen.attempts), (claimed[0].wa_id.clone(), 2));
    assert_eq!(friend.texts(), ["in flight"]);
    assert!(second.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_waits_for_the_database_lets_go_when_its_lease_ends() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let worker = harness.worker(options("waiting")).await;
    let session = harness.linked("hanging", &owner).await;
    let look = async {
        // In the middle of a turn: it would claim.
        let session = session.clone();
        harness.bus.publish(BusMessage::QueueReady { session });
        owner.expect_companions_online(0).await.unwrap();
    };
    harness.while_it_hangs(look).await;
    harness.until_connected(&session).await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_leaves_no_keys() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let worker = harness.worker(options("tidy")).await;
    let session = harness.linked("gone", &owner).await;
    let keys = async || {
        let session = session.clone();
        let exist = move |tx: &mut wagate_store::Tx<'_>| device_state::exists(tx, &session, DEVICE);
        harness.db.read(exist).await.unwrap()
    };
    assert!(keys().await);
    harness.want(&session, Desired::LoggedOut).await;
    let out = |s: &wagate_store::sessions::Session| matches!(s.link, LinkState::LoggedOut { .. });
    harness.until_session(&session, "logged out", out).await;
    assert!(!keys().await);
    assert_eq!(owner.companions(), 0);
    assert!(worker.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_does_not_wait_for_a_clock_that_was_put_back() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let clock = Arc::new(Ahead::default());
    clock.set(3600);
    let worker = harness
        .worker_by(options("hasty"), Arc::clone(&clock) as _)
        .await;
    let session = harness.linked("late", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let rule = FaultRule::new(matches, Action::Nack { code: 503 }).once();
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let message = harness.send(&session, FRIEND, "again").await;
    let delayed = async || {
        let seen = harness.message(&message).await;
        (seen.state, seen.attempts) == (MessageState::Queued, 1)
    };
    harness.until("a retry", delayed).await;
    clock.set(0);
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_no_linking() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let clock = Arc::new(Ahead::default());
    let patient = WorkerOptions {
        lease_ttl: Duration::from_secs(3600),
        link_timeout: Duration::from_secs(60),
        ..options("jumping")
    };
    let worker = harness.worker_by(patient, Arc::clone(&clock) as _).await;
    let session = harness.session("linking").await;
    let shown = harness
        .until_session(&session, "a QR code", |s| s.challenge.is_some())
        .await;
    let Some(wagate_domain::LinkChallenge::Qr { qr, .. }) = shown.challenge else {
        panic!("no QR code")
    };
    clock.set(120);
    owner.scan(&qr).await.unwrap();
    harness.until_connected(&session).await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}
