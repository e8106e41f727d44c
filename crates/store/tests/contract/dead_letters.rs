//! Messages that ended failed or expired: they are listed, tried again under the same id (MP-2), deleted.

use wagate_domain::message::MessageState;
use wagate_domain::{Event, Timestamp};
use wagate_store::messages::{self, Message};
use wagate_store::queue::{self, DeadFilter};
use wagate_store::{PageRequest, StoreError, idempotency, pacing};

use crate::support::queues::{ack, counters, dead, events, expire, fail_all, retry, send_until};
use crate::support::{Fixture, NOW, after, chat, outbound, texts};

contract!(
    dead_letters_come_and_go_with_their_messages,
    a_revived_message_keeps_its_id_and_gets_all_attempts,
    a_revived_message_takes_its_place_in_the_chat,
    only_failed_and_expired_ones_are_revived,
    a_revived_message_asks_again_whether_its_recipient_is_there,
    a_full_queue_takes_none_back,
    a_deleted_message_leaves_nothing_behind,
);

async fn revive(
    f: &Fixture,
    message: &Message,
    until: Option<Timestamp>,
) -> Result<Message, StoreError> {
    let (tenant, id) = (message.tenant.clone(), message.id.clone());
    f.db.write(move |tx| queue::revive(tx, &tenant, &id, until, after(100)))
        .await
}

async fn dead_letters_come_and_go_with_their_messages(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "a").await;
    let second = f.send(&session, "2", "b").await;
    assert_eq!(fail_all(&f, &lease, "unconfirmed").await, 2);
    let code = "unconfirmed".to_owned();
    let both = [
        (second.id.clone(), code.clone()),
        (first.id.clone(), code.clone()),
    ];
    assert_eq!(dead(&f, &session).await, both, "the last accepted first");
    // A late acknowledgement lifts the verdict, and the letter goes.
    ack(&f, &lease, &first.wa_id).await;
    assert_eq!(dead(&f, &session).await, both[..1]);
    let tenant = session.tenant.clone();
    let filter = DeadFilter {
        session: Some(session.id.clone()),
        code: Some("other".into()),
    };
    let none = f
        .read(move |tx| queue::dead(tx, &tenant, &filter, &PageRequest::default()))
        .await;
    assert!(none.items.is_empty());
}

async fn a_revived_message_keeps_its_id_and_gets_all_attempts(f: Fixture) {
    let (session, lease) = f.running().await;
    use MessageState::{Failed, Queued, Sending};
    let sent = f.send(&session, "1", "a").await;
    for _ in 0..3 {
        let claimed = f.claim(&lease, 1, NOW).await.remove(0);
        retry(&f, &lease, claimed, NOW).await;
    }
    fail_all(&f, &lease, "timeout").await;
    let revived = revive(&f, &sent, Some(after(500))).await.unwrap();
    assert_eq!(revived.state, Queued);
    assert_eq!(revived.wa_id, sent.wa_id);
    assert_eq!(revived.expires_at, Some(after(500)));
    assert_eq!(revived.failure, None);
    assert!(dead(&f, &session).await.is_empty());
    let claimed = f.claim(&lease, 1, after(100)).await.remove(0);
    assert_eq!((claimed.attempt, &claimed.wa_id), (1, &sent.wa_id));
    let counters = counters(&f, &session).await;
    assert_eq!((counters.queued, counters.failed), (1, 0));
    let history = f.state(&sent).await.history;
    let last: Vec<_> = history
        .iter()
        .rev()
        .take(3)
        .map(|step| step.state)
        .collect();
    assert_eq!(last, [Sending, Queued, Failed]);
}

async fn a_revived_message_takes_its_place_in_the_chat(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    fail_all(&f, &lease, "timeout").await;
    f.send(&session, "1", "second").await;
    f.send(&session, "1", "third").await;
    let second = f.claim(&lease, 1, NOW).await.remove(0);
    revive(&f, &first, None).await.unwrap();
    assert!(f.claim(&lease, 1, NOW).await.is_empty());
    ack(&f, &lease, &second.wa_id).await;
    assert_eq!(texts(&f.claim(&lease, 1, NOW).await), ["first"]);
}

async fn only_failed_and_expired_ones_are_revived(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = send_until(&f, &session, "1", Some(after(50))).await;
    for state in ["queued", "sending"] {
        let refused = revive(&f, &sent, None).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Conflict { what } if what == state),
            "{refused:?}"
        );
        f.claim(&lease, 1, NOW).await;
    }
    let gone = send_until(&f, &session, "2", Some(after(50))).await;
    expire(&f, after(60)).await;
    let revived = revive(&f, &gone, None).await.unwrap();
    assert_eq!(revived.expires_at, None, "what is over does not count");
    assert_eq!(f.claim(&lease, 1, after(100)).await[0].message, gone.id);
}

async fn a_revived_message_asks_again_whether_its_recipient_is_there(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = f.send(&session, "1", "a").await;
    fail_all(&f, &lease, "recipient_not_registered").await;
    let hour = std::time::Duration::from_secs(3600);
    let (held, chats) = (lease.clone(), vec![sent.chat.clone(), chat("2")]);
    let noted = chats.clone();
    f.write(move |tx| pacing::note_absent(tx, &held, &noted, hour, NOW))
        .await;
    revive(&f, &sent, None).await.unwrap();
    let id = session.id.clone();
    let absent = f
        .read(move |tx| pacing::absent(tx, &id, &chats, NOW.minus(hour)))
        .await;
    assert_eq!(absent, [chat("2")]);
}

async fn a_full_queue_takes_none_back(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = f.send(&session, "1", "a").await;
    fail_all(&f, &lease, "timeout").await;
    f.raw("UPDATE session_counters SET queued = 1000000")
        .unwrap();
    let refused = revive(&f, &sent, None).await;
    assert!(matches!(refused, Err(StoreError::Limit { .. })));
    assert_eq!(f.state(&sent).await.message.state, MessageState::Failed);
}

async fn a_deleted_message_leaves_nothing_behind(f: Fixture) {
    let (session, lease) = f.running().await;
    let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "x"));
    new.idempotency = Some(idempotency::IdempotencyKey {
        key: "k".into(),
        body_hash: [1; 32],
    });
    let repeat = new.clone();
    let sent = f
        .write(move |tx| messages::accept(tx, &tenant, new, NOW))
        .await
        .message;
    let delete = || {
        let (tenant, id) = (sent.tenant.clone(), sent.id.clone());
        f.db.write(move |tx| queue::delete_dead(tx, &tenant, &id, NOW))
    };
    assert!(matches!(delete().await, Err(StoreError::Conflict { what }) if what == "queued"));
    fail_all(&f, &lease, "timeout").await;
    assert_eq!(delete().await.unwrap().state, MessageState::Failed);
    assert!(matches!(delete().await, Err(StoreError::NotFound { .. })));
    assert!(dead(&f, &session).await.is_empty());
    let last = events(&f, &session).await.pop().unwrap();
    assert!(matches!(last, Event::MessageDeleted { message, .. } if message == sent.id));
    let counters = counters(&f, &session).await;
    assert_eq!((counters.queued, counters.failed), (0, 0));
    // Its idempotency key has no answer to give any more, and makes no second message.
    let tenant = session.tenant.clone();
    let refused =
        f.db.write(move |tx| messages::accept(tx, &tenant, repeat, NOW))
            .await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
}
