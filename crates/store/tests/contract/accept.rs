//! Accepting messages: all of it or nothing (MP-1), idempotency keys, and reading back.

use wagate_domain::message::{Direction, MessageState};
use wagate_domain::{Event, EventSeq, Timestamp};
use wagate_store::idempotency::{self, IdempotencyKey};
use wagate_store::messages::{self, MessageFilter};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{self, QueueStats};
use wagate_store::{PageRequest, StoreError, sessions};

use crate::support::{Fixture, NOW, after, chat, outbound};

contract!(
    an_accepted_message_reads_back,
    a_session_that_is_not_there_accepts_nothing,
    a_used_key_gives_the_first_message,
    one_key_at_the_same_time_makes_one_message,
    a_key_is_forgotten_after_its_time,
    lists_are_newest_first_and_page_by_cursor,
);

async fn an_accepted_message_reads_back(f: Fixture) {
    let (session, _lease) = f.running().await;
    let sent = f.send(&session, "1", "hello").await;
    let stored = f.state(&sent).await;
    assert_eq!(stored.message, sent);
    assert_eq!(sent.state, MessageState::Queued);
    assert_eq!(
        (sent.chat, sent.direction, sent.from_me),
        (chat("1"), Direction::Outbound, true)
    );
    assert_eq!(stored.history.len(), 1);
    assert_eq!(
        (stored.history[0].state, stored.history[0].at),
        (MessageState::Queued, NOW)
    );
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let (stats, counters, events) = f
        .read(move |tx| {
            let everything = EventFilter::default();
            Ok((
                queue::stats(tx, &tenant, Some(&id))?,
                sessions::counters(tx, &tenant, &id)?,
                outbox::after(tx, &tenant, EventSeq(0), &everything, 10)?,
            ))
        })
        .await;
    assert_eq!(
        stats,
        QueueStats {
            waiting: 1,
            active: 0,
            delayed: 0
        }
    );
    assert_eq!(counters.queued, 1);
    assert!(
        matches!(&events[1].event, Event::MessageQueued { message, .. } if *message == sent.id)
    );
    assert_eq!(events.len(), 2);
}

async fn a_session_that_is_not_there_accepts_nothing(f: Fixture) {
    let (session, _lease) = f.running().await;
    let other = f.tenant("other").await;
    let new = outbound(&session, "1", "x");
    let refused =
        f.db.write(move |tx| messages::accept(tx, &other, new, NOW))
            .await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

fn key(key: &str, body: u8) -> Option<IdempotencyKey> {
    Some(IdempotencyKey {
        key: key.to_owned(),
        body_hash: [body; 32],
    })
}

async fn a_used_key_gives_the_first_message(f: Fixture) {
    let (session, _lease) = f.running().await;
    let send = |key: Option<IdempotencyKey>, at: Timestamp| {
        let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "x"));
        new.idempotency = key;
        f.db.write(move |tx| messages::accept(tx, &tenant, new, at))
    };
    let first = send(key("k", 1), NOW).await.unwrap();
    let again = send(key("k", 1), after(60)).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.message, again.message);
    assert!(matches!(
        send(key("k", 2), NOW).await,
        Err(StoreError::Conflict { .. })
    ));
    assert!(!send(key("other", 2), NOW).await.unwrap().replayed);
    // Past its time the key is new again.
    let day = 24 * 60 * 60;
    let later = send(key("k", 2), after(day)).await.unwrap();
    assert!(!later.replayed);
}

async fn one_key_at_the_same_time_makes_one_message(f: Fixture) {
    let (session, _lease) = f.running().await;
    let sends: Vec<_> = (0..16)
        .map(|_| {
            let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "x"));
            new.idempotency = key("k", 1);
            let db = f.db.clone();
            async move {
                db.write(move |tx| messages::accept(tx, &tenant, new, NOW))
                    .await
                    .unwrap()
            }
        })
        .collect();
    let mut set = tokio::task::JoinSet::new();
    for send in sends {
        set.spawn(send);
    }
    let accepted = set.join_all().await;
    assert_eq!(
        accepted
            .iter()
            .filter(|accepted| !accepted.replayed)
            .count(),
        1
    );
    assert!(
        accepted
            .iter()
            .all(|a| a.message.id == accepted[0].message.id)
    );
}

async fn a_key_is_forgotten_after_its_time(f: Fixture) {
    let (session, _lease) = f.running().await;
    let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "x"));
    new.idempotency = key("k", 1);
    f.write(move |tx| messages::accept(tx, &tenant, new, NOW))
        .await;
    let day = 24 * 60 * 60;
    assert_eq!(
        f.write(move |tx| idempotency::prune(tx, 10, after(day - 1)))
            .await,
        0
    );
    assert_eq!(
        f.write(move |tx| idempotency::prune(tx, 10, after(day)))
            .await,
        1
    );
}

async fn lists_are_newest_first_and_page_by_cursor(f: Fixture) {
    let (session, _lease) = f.running().await;
    for number in 0..7 {
        f.send(
            &session,
            if number % 2 == 0 { "1" } else { "2" },
            &number.to_string(),
        )
        .await;
    }
    let list = |filter: MessageFilter, page: PageRequest| {
        let (tenant, id) = (session.tenant.clone(), session.id.clone());
        f.read(move |tx| messages::list(tx, &tenant, &id, &filter, &page))
    };
    let text = |message: &messages::Message| message.content.as_text().unwrap().to_owned();
    let mut seen = Vec::new();
    let mut page = PageRequest::first(3);
    loop {
        let got = list(MessageFilter::default(), page.clone()).await;
        seen.extend(got.items.iter().map(text));
        // A message that comes meanwhile does not shift the pages.
        f.send(&session, "3", "new").await;
        match got.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["6", "5", "4", "3", "2", "1", "0"]);
    let filter = MessageFilter {
        chat: Some(chat("2")),
        ..Default::default()
    };
    let got = list(
        filter.clone(),
        PageRequest {
            limit: 2,
            after: None,
            offset: 1,
        },
    )
    .await;
    assert_eq!(got.items.iter().map(text).collect::<Vec<_>>(), ["3", "1"]);
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    assert_eq!(
        f.read(move |tx| messages::count(tx, &tenant, &id, &filter))
            .await,
        3
    );
    let inbound = MessageFilter {
        direction: Some(Direction::Inbound),
        ..Default::default()
    };
    assert!(list(inbound, PageRequest::default()).await.items.is_empty());
}
