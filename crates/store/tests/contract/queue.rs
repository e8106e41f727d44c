//! The queue: order per chat and priority (MP-4), parallel chats, retries, failures, restarts (MP-2).

use wagate_domain::message::{Failure, MessageInput, MessageState};
use wagate_domain::{Timestamp, WorkerId};
use wagate_store::leases::{self, Lease};
use wagate_store::messages::{self, Message, Priority, Update};
use wagate_store::queue::{self, Claimed, QueueStats, Retry};
use wagate_store::{StoreError, sessions};

use crate::support::{Fixture, NOW, after, texts};

contract!(
    one_per_chat_is_in_flight_and_chats_go_in_parallel,
    a_chat_goes_in_order_of_acceptance,
    high_priority_goes_first_and_low_is_not_starved,
    a_retry_keeps_its_place_and_waits_for_its_time,
    a_retry_that_does_not_count_keeps_the_attempt,
    a_failure_lets_the_next_one_go,
    a_late_acknowledgement_beats_retry_and_failure,
    a_scheduled_message_waits_and_blocks_nobody,
    a_new_holder_makes_stale_claims_due_with_the_same_id,
    a_new_holder_waits_for_no_clock_that_was_put_back,
    a_message_that_loses_its_worker_each_time_fails,
    a_withdrawn_message_is_not_sent_and_the_next_one_goes,
    what_is_due_is_found_by_the_tick,
    one_transaction_may_finish_retry_fail_and_claim,
    the_queue_moves_by_its_own_functions_only,
);

async fn ack(f: &Fixture, lease: &Lease, claimed: &Claimed) {
    let (lease, wa_id) = (lease.clone(), claimed.wa_id.clone());
    let update = Update {
        wa_id,
        input: MessageInput::ServerAck,
        at: after(1),
        failure: None,
    };
    f.write(move |tx| messages::apply(tx, &lease, update, after(1)))
        .await
        .unwrap();
}

async fn retry(f: &Fixture, lease: &Lease, claimed: Claimed, retry: Retry) -> bool {
    let lease = lease.clone();
    f.write(move |tx| queue::retry(tx, &lease, claimed, retry, NOW))
        .await
}

fn failure() -> Failure {
    Failure {
        code: "recipient_not_registered".into(),
        reason: "Not on WhatsApp.".into(),
    }
}

async fn stats(f: &Fixture, lease: &Lease) -> QueueStats {
    let (tenant, session) = (lease.tenant.clone(), lease.session.clone());
    let (one, all) = f
        .read(move |tx| {
            Ok((
                queue::stats(tx, &tenant, Some(&session))?,
                queue::stats(tx, &tenant, None)?,
            ))
        })
        .await;
    assert_eq!(one, all, "the tenant has one session");
    one
}

async fn one_per_chat_is_in_flight_and_chats_go_in_parallel(f: Fixture) {
    let (session, lease) = f.running().await;
    for text in ["a1", "a2", "a3"] {
        f.send(&session, "1", text).await;
    }
    for text in ["b1", "b2"] {
        f.send(&session, "2", text).await;
    }
    let claimed = f.claim(&lease, 10, NOW).await;
    assert_eq!(texts(&claimed), ["a1", "b1"]);
    assert!(
        f.claim(&lease, 10, NOW).await.is_empty(),
        "each chat has one in flight"
    );
    assert_eq!(
        stats(&f, &lease).await,
        QueueStats {
            waiting: 3,
            active: 2,
            delayed: 0
        }
    );
    ack(&f, &lease, &claimed[1]).await;
    assert_eq!(texts(&f.claim(&lease, 10, NOW).await), ["b2"]);
    ack(&f, &lease, &claimed[0]).await;
    assert_eq!(texts(&f.claim(&lease, 10, NOW).await), ["a2"]);
}

async fn a_chat_goes_in_order_of_acceptance(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..20 {
        f.send(&session, "1", &number.to_string()).await;
    }
    for number in 0..20 {
        let claimed = f.claim(&lease, 3, NOW).await;
        assert_eq!(texts(&claimed), [number.to_string()]);
        assert_eq!(claimed[0].attempt, 1);
        ack(&f, &lease, &claimed[0]).await;
    }
    assert_eq!(stats(&f, &lease).await, QueueStats::default());
}

async fn high_priority_goes_first_and_low_is_not_starved(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send_with(&session, "100", "low", Priority::Low, None)
        .await;
    for number in 0..20 {
        f.send(&session, &format!("2{number}"), "normal").await;
    }
    f.send_with(&session, "300", "high", Priority::High, None)
        .await;
    // In the chat of the low one too a higher one goes first.
    f.send_with(&session, "100", "high too", Priority::High, None)
        .await;
    let mut order = Vec::new();
    for _ in 0..10 {
        let claimed = f.claim(&lease, 1, NOW).await;
        order.push(claimed[0].content.as_text().unwrap().to_owned());
        ack(&f, &lease, &claimed[0]).await;
    }
    assert_eq!(&order[..3], ["high", "high too", "normal"]);
    assert_eq!(
        order[7], "low",
        "every eighth turn is for the oldest: {order:?}"
    );
}

async fn a_retry_keeps_its_place_and_waits_for_its_time(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    f.send(&session, "1", "second").await;
    let claimed = f.claim(&lease, 5, NOW).await.pop().unwrap();
    let wa_id = claimed.wa_id.clone();
    assert!(
        retry(
            &f,
            &lease,
            claimed,
            Retry {
                due: after(2),
                counts: true
            }
        )
        .await
    );
    assert_eq!(f.state(&first).await.message.state, MessageState::Queued);
    assert_eq!(
        stats(&f, &lease).await,
        QueueStats {
            waiting: 1,
            active: 0,
            delayed: 1
        }
    );
    assert!(
        f.claim(&lease, 5, after(1)).await.is_empty(),
        "the second must not overtake"
    );
    let (held, due) = (
        lease.clone(),
        f.read({
            let lease = lease.clone();
            move |tx| queue::next_due(tx, &lease)
        }),
    );
    assert_eq!(due.await, Some(after(2)));
    let claimed = f.claim(&held, 5, after(2)).await;
    assert_eq!(texts(&claimed), ["first"]);
    assert_eq!(claimed[0].attempt, 2);
    // MP-2: the same id, so that a repeat is recognised.
    assert_eq!(claimed[0].wa_id, wa_id);
    ack(&f, &lease, &claimed[0]).await;
    assert_eq!(texts(&f.claim(&lease, 5, after(2)).await), ["second"]);
    let stored = f.state(&first).await;
    let states: Vec<&str> = stored
        .history
        .iter()
        .map(|entry| entry.state.as_str())
        .collect();
    assert_eq!(states, ["queued", "sending", "queued", "sending", "sent"]);
    assert_eq!(stored.message.attempts, 2);
}

async fn a_retry_that_does_not_count_keeps_the_attempt(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "x").await;
    for _ in 0..7 {
        let claimed = f.claim(&lease, 1, NOW).await.pop().unwrap();
        assert_eq!(claimed.attempt, 1);
        assert!(
            retry(
                &f,
                &lease,
                claimed,
                Retry {
                    due: NOW,
                    counts: false
                }
            )
            .await
        );
    }
}

async fn a_failure_lets_the_next_one_go(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    f.send(&session, "1", "second").await;
    let claimed = f.claim(&lease, 5, NOW).await.pop().unwrap();
    let held = lease.clone();
    assert!(
        f.write(move |tx| queue::fail(tx, &held, claimed, &failure(), NOW))
            .await
    );
    let stored = f.state(&first).await.message;
    assert_eq!(
        (stored.state, stored.failure),
        (MessageState::Failed, Some(failure()))
    );
    assert_eq!(texts(&f.claim(&lease, 5, NOW).await), ["second"]);
    let counters = f
        .read(move |tx| sessions::counters(tx, &lease.tenant, &lease.session))
        .await;
    assert_eq!((counters.failed, counters.queued), (1, 1));
}

async fn a_late_acknowledgement_beats_retry_and_failure(f: Fixture) {
    let (session, lease) = f.running().await;
    for to in ["1", "2"] {
        f.send(&session, to, "x").await;
    }
    let mut claimed = f.claim(&lease, 5, NOW).await;
    for claimed in &claimed {
        ack(&f, &lease, claimed).await;
    }
    let last = claimed.pop().unwrap();
    assert!(
        !retry(
            &f,
            &lease,
            last,
            Retry {
                due: NOW,
                counts: true
            }
        )
        .await
    );
    let (held, last) = (lease.clone(), claimed.pop().unwrap());
    assert!(
        !f.write(move |tx| queue::fail(tx, &held, last, &failure(), NOW))
            .await
    );
    assert_eq!(stats(&f, &lease).await, QueueStats::default());
}

async fn a_scheduled_message_waits_and_blocks_nobody(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send_with(&session, "1", "later", Priority::Normal, Some(after(60)))
        .await;
    f.send(&session, "1", "now").await;
    f.send(&session, "1", "next").await;
    let claimed = f.claim(&lease, 5, NOW).await;
    assert_eq!(texts(&claimed), ["now"]);
    assert_eq!(stats(&f, &lease).await.delayed, 1);
    // Its time comes while another is in flight: it takes the place of its acceptance.
    assert!(f.claim(&lease, 5, after(60)).await.is_empty());
    ack(&f, &lease, &claimed[0]).await;
    let claimed = f.claim(&lease, 5, after(60)).await;
    assert_eq!(texts(&claimed), ["later"]);
    ack(&f, &lease, &claimed[0]).await;
    assert_eq!(texts(&f.claim(&lease, 5, after(60)).await), ["next"]);
}

async fn a_new_holder_makes_stale_claims_due_with_the_same_id(f: Fixture) {
    let (session, old) = f.running().await;
    let sent = f.send(&session, "1", "x").await;
    let claimed = f.claim(&old, 5, NOW).await.pop().unwrap();
    let new = f.acquire("w2", after(16)).await.pop().unwrap();
    assert!(new.token > old.token);
    assert!(
        f.claim(&new, 5, after(16)).await.is_empty(),
        "still in flight for the old holder"
    );
    let held = new.clone();
    assert_eq!(
        f.write(move |tx| queue::release_stale(tx, &held, 5, after(16)))
            .await,
        1
    );
    let again = f.claim(&new, 5, after(16)).await.pop().unwrap();
    // The attempt that was lost counts.
    assert_eq!((&again.wa_id, again.attempt), (&sent.wa_id, 2));
    // What the old holder still does changes nothing.
    let held = old.clone();
    let late = f.db.write(move |tx| {
        queue::retry(
            tx,
            &held,
            claimed,
            Retry {
                due: NOW,
                counts: true,
            },
            NOW,
        )
    });
    assert!(matches!(late.await, Err(StoreError::LeaseLost)));
    assert_eq!(f.state(&sent).await.message.state, MessageState::Sending);
    let held = new.clone();
    assert_eq!(
        f.write(move |tx| queue::release_stale(tx, &held, 5, after(17)))
            .await,
        0
    );
}

async fn a_new_holder_waits_for_no_clock_that_was_put_back(f: Fixture) {
    let (session, ahead) = f.running().await;
    f.send(&session, "1", "x").await;
    let claimed = f.claim(&ahead, 5, NOW).await.pop().unwrap();
    let due = after(3_600);
    assert!(retry(&f, &ahead, claimed, Retry { due, counts: true }).await);
    let new = f.acquire("w2", after(16)).await.pop().unwrap();
    assert!(f.claim(&new, 5, after(16)).await.is_empty());
    let held = new.clone();
    f.write(move |tx| queue::release_stale(tx, &held, 5, after(16)))
        .await;
    assert_eq!(texts(&f.claim(&new, 5, after(16)).await), ["x"]);
}

async fn a_message_that_loses_its_worker_each_time_fails(f: Fixture) {
    let (session, _) = f.running().await;
    let poison = f.send(&session, "1", "poison").await;
    let behind = f.send(&session, "1", "behind").await;
    for attempt in 1..=5 {
        let at = after(attempt * 20);
        let lease = f.acquire("w", at).await.pop().unwrap();
        let held = lease.clone();
        f.write(move |tx| queue::release_stale(tx, &held, 5, at))
            .await;
        let claimed = f.claim(&lease, 5, at).await.pop().unwrap();
        assert_eq!(claimed.message, poison.id);
        assert_eq!(u64::from(claimed.attempt), attempt);
    }
    let lease = f.acquire("w", after(120)).await.pop().unwrap();
    let held = lease.clone();
    let released = f.write(move |tx| queue::release_stale(tx, &held, 5, after(120)));
    assert_eq!(released.await, 1);
    let ended = f.state(&poison).await.message;
    assert_eq!((ended.state, ended.attempts), (MessageState::Failed, 5));
    assert_eq!(ended.failure.unwrap().code, "worker_lost");
    let next = f.claim(&lease, 5, after(120)).await.pop().unwrap();
    assert_eq!((next.message, next.attempt), (behind.id, 1));
}

async fn cancel(f: &Fixture, message: &Message) -> Result<Message, StoreError> {
    let (tenant, id) = (message.tenant.clone(), message.id.clone());
    f.db.write(move |tx| messages::cancel(tx, &tenant, &id, NOW))
        .await
}

async fn a_withdrawn_message_is_not_sent_and_the_next_one_goes(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    let second = f.send(&session, "1", "second").await;
    f.send(&session, "1", "third").await;
    assert_eq!(
        cancel(&f, &second).await.unwrap().state,
        MessageState::Canceled
    );
    assert_eq!(
        cancel(&f, &first).await.unwrap().state,
        MessageState::Canceled
    );
    assert_eq!(
        cancel(&f, &first).await.unwrap().state,
        MessageState::Canceled
    );
    let claimed = f.claim(&lease, 5, NOW).await;
    assert_eq!(texts(&claimed), ["third"]);
    let third = Message {
        id: claimed[0].message.clone(),
        ..first
    };
    assert!(matches!(
        cancel(&f, &third).await,
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(
        stats(&f, &lease).await,
        QueueStats {
            waiting: 0,
            active: 1,
            delayed: 0
        }
    );
}

async fn what_is_due_is_found_by_the_tick(f: Fixture) {
    let (session, lease) = f.running().await;
    let idle = f.session(&session.tenant, "idle").await;
    f.start(&idle, "w1").await;
    let due = |now: Timestamp| {
        f.read(move |tx| queue::due_sessions(tx, &WorkerId::parse("w1").unwrap(), now))
    };
    let next = || {
        let lease = lease.clone();
        f.read(move |tx| queue::next_due(tx, &lease))
    };
    let mine = vec![session.id.clone()];
    assert!(due(NOW).await.is_empty());
    assert_eq!(next().await, None);
    f.send_with(&session, "1", "later", Priority::Normal, Some(after(9)))
        .await;
    assert!(due(after(8)).await.is_empty());
    assert_eq!(next().await, Some(after(9)));
    assert_eq!(due(after(9)).await, mine);
    f.send(&session, "1", "now").await;
    assert_eq!(due(NOW).await, mine);
    assert_eq!(next().await, Some(Timestamp::EPOCH));
    f.claim(&lease, 1, NOW).await;
    f.send_with(&session, "1", "high", Priority::High, None)
        .await;
    assert_eq!(
        next().await,
        Some(after(9)),
        "what is ready waits for the one in flight"
    );
    let worker = WorkerId::parse("w1").unwrap();
    f.write(move |tx| leases::release_all(tx, &worker)).await;
    assert!(due(after(9)).await.is_empty());
}

async fn one_transaction_may_finish_retry_fail_and_claim(f: Fixture) {
    let (session, lease) = f.running().await;
    for to in ["1", "2", "3"] {
        for text in ["first", "second"] {
            f.send(&session, to, &format!("{to} {text}")).await;
        }
    }
    let mut claimed = f.claim(&lease, 3, NOW).await;
    let (failed, retried, sent) = (
        claimed.pop().unwrap(),
        claimed.pop().unwrap(),
        claimed.pop().unwrap(),
    );
    let held = lease.clone();
    let next = f
        .write(move |tx| {
            let update = Update {
                wa_id: sent.wa_id,
                input: MessageInput::ServerAck,
                at: NOW,
                failure: None,
            };
            messages::apply(tx, &held, update, NOW)?;
            queue::retry(
                tx,
                &held,
                retried,
                Retry {
                    due: after(5),
                    counts: true,
                },
                NOW,
            )?;
            queue::fail(tx, &held, failed, &failure(), NOW)?;
            queue::claim(tx, &held, 9, NOW)
        })
        .await;
    assert_eq!(texts(&next), ["1 second", "3 second"]);
    let held = lease.clone();
    let counters = f
        .read(move |tx| sessions::counters(tx, &held.tenant, &held.session))
        .await;
    assert_eq!((counters.queued, counters.sent, counters.failed), (4, 1, 1));
    assert_eq!(
        stats(&f, &lease).await,
        QueueStats {
            waiting: 1,
            active: 2,
            delayed: 1
        }
    );
}

async fn the_queue_moves_by_its_own_functions_only(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = f.send(&session, "1", "x").await;
    assert_eq!(texts(&f.claim(&lease, 1, NOW).await), ["x"]);
    for input in [MessageInput::Claimed, MessageInput::Requeued] {
        let (held, wa_id) = (lease.clone(), sent.wa_id.clone());
        let update = Update {
            wa_id,
            input,
            at: NOW,
            failure: None,
        };
        let applied = f
            .write(move |tx| messages::apply(tx, &held, update, NOW))
            .await
            .unwrap();
        assert_eq!(applied.step, wagate_domain::message::Step::Refused);
    }
    assert!(f.claim(&lease, 1, NOW).await.is_empty());
}
