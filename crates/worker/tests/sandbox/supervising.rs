//! Goal: one device at a time for a session, and peace after a fault (SL-1). Method: leases and the
//! database's file changed behind the worker's back.

use std::time::Duration;

use tokio::time::Instant;
use wagate_domain::{Desired, LinkState, MessageState, SessionId};
use wagate_store::bus::BusMessage;
use wagate_store::{Lease, leases};
use wagate_worker::WorkerOptions;

use crate::harness::{BOUND, FRIEND, Harness, OWNER, now, options};

/// How long a worker leaves a session alone after a fault, at least.
const PAUSE: Duration = Duration::from_secs(5);

/// Every write to the queue is refused in a way that no waiting cures.
const PLANT: &str = "CREATE TRIGGER planted BEFORE UPDATE ON queue \
                     BEGIN SELECT RAISE(ABORT, 'planted'); END";
const UPROOT: &str = "DROP TRIGGER planted";

async fn holder(harness: &Harness, session: &SessionId) -> Option<Lease> {
    let id = session.clone();
    harness
        .db
        .read(move |tx| leases::get(tx, &id, now()))
        .await
        .unwrap()
}

/// The lease ends and is granted anew while the actor that has it does not know: its successor waits until
/// its device has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_taken_up_before_it_was_let_go_has_one_device() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let unaware = WorkerOptions {
        // Renewing would tell the worker, and later give back what nobody attends to.
        lease_ttl: Duration::from_secs(600),
        ..options("unaware")
    };
    let worker = harness.worker(unaware).await;
    let session = harness.linked("twice", &owner).await;
    // More than once, since the actor may hear of it by a write of its own before.
    for _ in 0..3 {
        let message = harness.send(&session, FRIEND, "settled").await;
        harness
            .until_message(&message, MessageState::Delivered)
            .await;
        let before = holder(&harness, &session).await.unwrap();
        let robbed = worker.id().clone();
        harness
            .db
            .write(move |tx| leases::release_all(tx, &robbed))
            .await
            .unwrap();
        harness
            .until("a new lease", async || {
                let now = holder(&harness, &session).await;
                now.is_some_and(|now| now.token > before.token)
            })
            .await;
    }
    // Whoever runs it now hears what is wanted, and nobody else is left.
    harness.want(&session, Desired::Stopped).await;
    harness.bus.publish(BusMessage::DesiredChanged {
        session: session.clone(),
    });
    let stopped = |s: &wagate_store::sessions::Session| s.link == LinkState::Stopped;
    harness.until_session(&session, "stopped", stopped).await;
    owner.expect_companions_online(0).await.unwrap();
    assert_eq!(owner.companions(), 1);
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fault_a_session_is_left_alone_for_a_while_and_then_taken_up_again() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let patient = WorkerOptions {
        // Renewed within the pause: what rests is not given back then.
        lease_ttl: Duration::from_secs(9),
        ..options("patient")
    };
    let worker = harness.worker(patient).await;
    let session = harness.linked("faulty", &owner).await;
    let file = harness.raw();
    file.execute_batch(PLANT).unwrap();
    let since = Instant::now();
    let message = harness.send(&session, FRIEND, "at last").await;
    owner.expect_companions_online(0).await.unwrap();
    file.execute_batch(UPROOT).unwrap();
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert!(since.elapsed() >= PAUSE, "{:?}", since.elapsed());
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_back_what_rests_after_a_fault() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let long = WorkerOptions {
        lease_ttl: Duration::from_secs(600),
        ..options("long")
    };
    let worker = harness.worker(long).await;
    let session = harness.linked("faulty", &owner).await;
    let file = harness.raw();
    file.execute_batch(PLANT).unwrap();
    harness.send(&session, FRIEND, "not now").await;
    // Until the worker has nobody for it, and holds it all the same.
    let deadline = Instant::now() + BOUND;
    while worker.stats().sessions > 0 {
        assert!(holder(&harness, &session).await.is_some());
        assert!(Instant::now() < deadline, "no fault");
    }
    assert!(worker.stop(Duration::from_secs(10)).await);
    assert_eq!(holder(&harness, &session).await, None);
    harness.check();
}
