//! States of outbound messages: forward only, in any order of news (MP-3); `sent` by the server's word
//! (MP-5); one event for each move (EV-1).

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wagate_domain::message::{Failure, MessageInput, MessageState, Step};
use wagate_domain::{Event, EventSeq, ReceiptKind, WaMessageId};
use wagate_store::messages::{self, Applied, Message, Update};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{self, QueueStats};
use wagate_store::{Lease, StoreError, sessions};

use crate::support::{Fixture, NOW, after, texts};

contract!(
    any_order_of_news_ends_in_the_highest,
    each_move_has_one_event_and_one_entry,
    a_receipt_that_overtakes_the_acknowledgement_finishes_the_message,
    many_receipts_are_applied_at_once,
    news_of_an_unknown_message_is_nothing,
    a_wrong_verdict_is_taken_back,
);

const NEWS: [MessageInput; 4] = [
    MessageInput::ServerAck,
    MessageInput::Receipt(ReceiptKind::Delivered),
    MessageInput::Receipt(ReceiptKind::Read),
    MessageInput::Receipt(ReceiptKind::Played),
];

fn news(wa_id: &WaMessageId, input: MessageInput, secs: u64) -> Update {
    Update {
        wa_id: wa_id.clone(),
        input,
        at: after(secs),
        failure: None,
    }
}

async fn apply(f: &Fixture, lease: &Lease, updates: Vec<Update>) -> Vec<Option<Applied>> {
    let lease = lease.clone();
    f.write(move |tx| messages::apply_many(tx, &lease, &updates, after(100)))
        .await
}

async fn claimed(f: &Fixture, lease: &Lease) -> Message {
    let session = f
        .read({
            let id = lease.session.clone();
            move |tx| sessions::find(tx, &id)
        })
        .await;
    let sent = f.send(&session, "1", "x").await;
    assert_eq!(f.claim(lease, 1, NOW).await.len(), 1);
    sent
}

async fn any_order_of_news_ends_in_the_highest(f: Fixture) {
    let (_, lease) = f.running().await;
    let mut runner = TestRunner::new(Config {
        cases: 12,
        ..Config::default()
    });
    let cases = RefCell::new(Vec::new());
    let orders = (
        Just(NEWS.to_vec()).prop_shuffle(),
        1usize..=4,
        any::<bool>(),
    );
    let gathered = runner.run(&orders, |case| {
        cases.borrow_mut().push(case);
        Ok(())
    });
    gathered.unwrap();
    for (order, keep, at_once) in cases.into_inner() {
        let sent = claimed(&f, &lease).await;
        let updates: Vec<Update> = order[..keep]
            .iter()
            .map(|n| news(&sent.wa_id, *n, 1))
            .collect();
        let rank = |input: &MessageInput| NEWS.iter().position(|n| n == input).unwrap();
        let highest = order[..keep].iter().map(rank).max().unwrap();
        if at_once {
            apply(&f, &lease, updates).await;
        } else {
            for update in updates {
                apply(&f, &lease, vec![update]).await;
            }
        }
        let stored = f.state(&sent).await;
        let want = [
            MessageState::Sent,
            MessageState::Delivered,
            MessageState::Read,
            MessageState::Played,
        ][highest];
        assert_eq!(stored.message.state, want, "{order:?}, the first {keep}");
        let ranks: Vec<u8> = stored
            .history
            .iter()
            .map(|entry| entry.state.rank())
            .collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        assert_eq!(queue_of(&f, &lease).await, QueueStats::default());
    }
}

async fn queue_of(f: &Fixture, lease: &Lease) -> QueueStats {
    let (tenant, session) = (lease.tenant.clone(), lease.session.clone());
    f.read(move |tx| queue::stats(tx, &tenant, Some(&session)))
        .await
}

async fn each_move_has_one_event_and_one_entry(f: Fixture) {
    let (_, lease) = f.running().await;
    let sent = claimed(&f, &lease).await;
    let updates = [1, 0, 0, 2, 1, 3].map(|n: usize| news(&sent.wa_id, NEWS[n], n as u64));
    let steps: Vec<Step> = apply(&f, &lease, updates.to_vec())
        .await
        .into_iter()
        .map(|a| a.unwrap().step)
        .collect();
    let moved = |state| Step::Moved(state);
    assert_eq!(
        steps,
        [
            moved(MessageState::Delivered),
            Step::Ignored,
            Step::Ignored,
            moved(MessageState::Read),
            Step::Ignored,
            moved(MessageState::Played)
        ]
    );
    let tenant = lease.tenant.clone();
    let only = EventFilter {
        types: vec!["message.status".into()],
        session: None,
    };
    let events = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &only, 99))
        .await;
    let states: Vec<MessageState> = events
        .iter()
        .map(|stored| match &stored.event {
            Event::MessageStatus {
                status, message, ..
            } if *message == sent.id => *status,
            other => panic!("{other:?}"),
        })
        .collect();
    let history: Vec<MessageState> = f
        .state(&sent)
        .await
        .history
        .iter()
        .map(|entry| entry.state)
        .collect();
    assert_eq!(states, history[1..], "the first entry has message.queued");
    // The receipt that came first proves that the server had taken the message.
    let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    assert_eq!(words, ["sending", "sent", "delivered", "read", "played"]);
    let counters = f
        .read(move |tx| sessions::counters(tx, &lease.tenant, &lease.session))
        .await;
    assert_eq!(
        (
            counters.sent,
            counters.delivered,
            counters.read,
            counters.queued
        ),
        (1, 1, 1, 0)
    );
}

async fn a_receipt_that_overtakes_the_acknowledgement_finishes_the_message(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = claimed(&f, &lease).await;
    f.send(&session, "1", "next").await;
    apply(&f, &lease, vec![news(&sent.wa_id, NEWS[1], 3)]).await;
    let message = f.state(&sent).await.message;
    assert_eq!(
        (message.sent_at, message.delivered_at),
        (Some(after(3)), Some(after(3)))
    );
    assert_eq!(message.read_at, None);
    assert_eq!(texts(&f.claim(&lease, 1, NOW).await), ["next"]);
}

async fn many_receipts_are_applied_at_once(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..300 {
        f.send(&session, &format!("{number:03}"), "x").await;
    }
    let claimed = f.claim(&lease, 1000, NOW).await;
    assert_eq!(claimed.len(), 300);
    let mut updates: Vec<Update> = claimed
        .iter()
        .map(|claimed| news(&claimed.wa_id, NEWS[0], 1))
        .collect();
    updates.extend(
        claimed
            .iter()
            .rev()
            .map(|claimed| news(&claimed.wa_id, NEWS[2], 2)),
    );
    let applied = apply(&f, &lease, updates).await;
    assert!(
        applied
            .iter()
            .all(|a| matches!(a.as_ref().unwrap().step, Step::Moved(_)))
    );
    let counters = f
        .read({
            let lease = lease.clone();
            move |tx| sessions::counters(tx, &lease.tenant, &lease.session)
        })
        .await;
    assert_eq!(
        (counters.queued, counters.sent, counters.read),
        (0, 300, 300)
    );
    assert_eq!(queue_of(&f, &lease).await, QueueStats::default());
}

async fn news_of_an_unknown_message_is_nothing(f: Fixture) {
    let (_, lease) = f.running().await;
    let sent = claimed(&f, &lease).await;
    let updates = vec![
        news(&WaMessageId::generate(), NEWS[1], 1),
        news(&sent.wa_id, NEWS[0], 1),
        news(&WaMessageId::generate(), NEWS[0], 1),
    ];
    let applied = apply(&f, &lease, updates).await;
    assert!(applied[0].is_none() && applied[2].is_none());
    assert_eq!(applied[1].as_ref().unwrap().message, sent.id);
    // Nor may another session of the tenant hear of it.
    let other = f.session(&lease.tenant, "other").await;
    let other = f.start(&other, "w1").await;
    assert_eq!(
        apply(&f, &other, vec![news(&sent.wa_id, NEWS[2], 1)]).await,
        [None]
    );
    // Nor does a holder whose time is over say anything.
    f.acquire("w2", after(20)).await;
    let update = vec![news(&sent.wa_id, NEWS[2], 1)];
    let stale =
        f.db.write(move |tx| messages::apply_many(tx, &lease, &update, NOW))
            .await;
    assert!(matches!(stale, Err(StoreError::LeaseLost)));
    assert_eq!(f.state(&sent).await.message.state, MessageState::Sent);
}

async fn a_wrong_verdict_is_taken_back(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = f.send(&session, "1", "x").await;
    let claimed = f.claim(&lease, 1, NOW).await.pop().unwrap();
    let held = lease.clone();
    let failure = Failure {
        code: "timeout".into(),
        reason: "No answer.".into(),
    };
    f.write(move |tx| queue::fail(tx, &held, claimed, &failure, NOW))
        .await;
    apply(&f, &lease, vec![news(&sent.wa_id, NEWS[1], 5)]).await;
    let stored = f.state(&sent).await;
    assert_eq!(
        (stored.message.state, &stored.message.failure),
        (MessageState::Delivered, &None)
    );
    assert!(
        stored.history.iter().any(|entry| entry.failure.is_some()),
        "the history keeps it"
    );
    let counters = f
        .read(move |tx| sessions::counters(tx, &lease.tenant, &lease.session))
        .await;
    assert_eq!((counters.failed, counters.sent, counters.queued), (0, 1, 0));
}
