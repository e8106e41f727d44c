//! Goal: what WhatsApp asks for is heeded until its end, in whichever worker, and typing is shown.
//! Method: refusals by the network, a clock that the test puts forward, stanzas counted.

use std::sync::Arc;
use std::time::Duration;

use wagate_domain::MessageState;
use wagate_domain::pacing::PacingPatch;
use wagate_network::faults::{Action, FaultRule, Match, StanzaMatch};
use wagate_store::pacing;
use wagate_worker::WorkerOptions;

use crate::harness::{Ahead, FRIEND, Harness, OWNER, now, options};

/// A worker whose leases outlast the clock's jumps.
fn patient(id: &str) -> WorkerOptions {
    WorkerOptions {
        lease_ttl: Duration::from_secs(3 * 3600),
        ..options(id)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_out_a_reach_out_limit_also_at_another_worker() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let clock = Arc::new(Ahead::default());
    let worker = harness
        .worker_by(patient("first"), Arc::clone(&clock) as _)
        .await;
    let session = harness.linked("limited", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let rule = FaultRule::new(matches, Action::Nack { code: 463 }).once();
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let message = harness.send(&session, FRIEND, "at last").await;
    let paused = async || {
        let id = session.clone();
        let stored = harness.db.read(move |tx| pacing::load(tx, &id)).await;
        !stored.unwrap().state.pauses(now()).is_empty()
    };
    harness.until("a pause", paused).await;
    assert!(worker.stop(Duration::from_secs(10)).await);
    let again = harness
        .worker_by(patient("second"), Arc::clone(&clock) as _)
        .await;
    harness.until_connected(&session).await;
    // A little less than the first guess, and what is let go has to be looked at once more.
    clock.set(59 * 60);
    harness.send(&session, FRIEND, "and more").await;
    assert!(friend.texts().is_empty());
    clock.set(60 * 60 + 1);
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert!(again.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_strangers_must_wait_the_next_one_waits_too_and_who_is_known_does_not() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let known = harness.phone("6282200000001", "Citra");
    let next = harness.phone("6282200000002", "Dewi");
    harness.phone(FRIEND, "Budi");
    let worker = harness.worker(patient("limited")).await;
    let session = harness.linked("limited", &owner).await;
    let hello = harness.send(&session, &known.number(), "hello").await;
    harness.until_message(&hello, MessageState::Delivered).await;
    let matches = Match::from_device("message").account(OWNER);
    let rule = FaultRule::new(matches, Action::Nack { code: 463 }).once();
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    harness.send(&session, FRIEND, "limited").await;
    let paused = async || {
        let id = session.clone();
        let stored = harness.db.read(move |tx| pacing::load(tx, &id)).await;
        !stored.unwrap().state.pauses(now()).is_empty()
    };
    harness.until("a pause", paused).await;
    // Accepted before the other, so that it would go first.
    let waits = harness.send(&session, &next.number(), "waits").await;
    let goes = harness.send(&session, &known.number(), "again").await;
    harness.until_message(&goes, MessageState::Delivered).await;
    assert_eq!(harness.message(&waits).await.state, MessageState::Queued);
    assert!(next.texts().is_empty());
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_is_shown_before_a_text_when_asked() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("typist")).await;
    let session = harness.linked("typing", &owner).await;
    // Whoever takes a session reads its rules. Told of new ones, a worker may claim once more by the old ones.
    assert!(worker.stop(Duration::from_secs(10)).await);
    let stanza = StanzaMatch::tag("chatstate");
    let matches = Match::from_device("chatstate")
        .account(OWNER)
        .stanza(stanza);
    let rule = FaultRule::new(matches, Action::Delay { ms: 1 });
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let rules = PacingPatch {
        enabled: Some(true),
        typing: Some(true),
        ..PacingPatch::default()
    };
    let (tenant, id) = (harness.tenant.clone(), session.clone());
    harness
        .db
        .write(move |tx| pacing::configure(tx, &tenant, &id, &rules, now()))
        .await
        .unwrap();
    let worker = harness.worker(options("typist-again")).await;
    let message = harness.send(&session, FRIEND, "hello there").await;
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    friend.expect_text("hello there").await.unwrap();
    let shown = harness
        .network
        .with_world(|world, _, _| world.faults.list()[0].matched);
    assert_eq!(shown, 1);
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}
