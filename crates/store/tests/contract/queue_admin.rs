//! What a tenant sees and changes of its queues: validity, settings, lists, clearing, trying again.

use wagate_domain::message::{Failure, MessageInput, MessageState};
use wagate_domain::{Event, EventSeq, MessageId, Timestamp};
use wagate_store::leases::Lease;
use wagate_store::messages::{self, Message, Priority, Update};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{
    self, DeadFilter, JobFilter, JobState, QueueSettings, Retry, SettingsChange, TenantQueue,
};
use wagate_store::sessions::Session;
use wagate_store::{PageRequest, StoreError, pacing, sessions};

use crate::support::{Fixture, NOW, after, chat, outbound, texts};

contract!(
    what_is_past_its_validity_is_not_claimed_and_ends_expired,
    what_is_being_sent_does_not_expire,
    settings_bound_a_claim_from_the_next_one_on,
    a_paused_queue_gives_nothing,
    each_change_of_settings_has_one_event,
    dead_letters_come_and_go_with_their_messages,
    a_revived_message_keeps_its_id_and_gets_all_attempts,
    a_revived_message_takes_its_place_in_the_chat,
    only_failed_and_expired_ones_are_revived,
    a_revived_message_asks_again_whether_its_recipient_is_there,
    a_full_queue_takes_none_back,
    a_deleted_message_leaves_nothing_behind,
    clearing_leaves_what_is_being_sent,
    clearing_is_bounded_and_says_when_it_is_done,
    jobs_are_listed_by_state_and_page_over_sessions,
    figures_count_what_is_there,
    clearing_claiming_and_expiring_at_once_lose_nothing,
    a_session_is_deleted_with_its_settings_and_dead_letters,
    another_tenants_queue_is_out_of_reach,
);

async fn send_until(f: &Fixture, session: &Session, to: &str, until: Option<Timestamp>) -> Message {
    let (tenant, mut new) = (session.tenant.clone(), outbound(session, to, "valid"));
    new.expires_at = until;
    f.write(move |tx| messages::accept(tx, &tenant, new, NOW))
        .await
        .message
}

async fn expire(f: &Fixture, now: Timestamp) -> Vec<MessageId> {
    f.write(move |tx| {
        let mut ended = Vec::new();
        for overdue in queue::overdue(tx, now, 100)? {
            ended.extend(queue::expire(tx, &overdue, now)?);
        }
        Ok(ended)
    })
    .await
}

async fn fail_all(f: &Fixture, lease: &Lease, code: &'static str) -> usize {
    let mut failed = 0;
    loop {
        let lease = lease.clone();
        let count = f
            .write(move |tx| {
                let failure = Failure {
                    code: code.into(),
                    reason: "For a test.".into(),
                };
                let claimed = queue::claim(tx, &lease, 10, NOW)?;
                let count = claimed.len();
                for one in claimed {
                    queue::fail(tx, &lease, one, &failure, NOW)?;
                }
                Ok(count)
            })
            .await;
        if count == 0 {
            return failed;
        }
        failed += count;
    }
}

async fn ack(f: &Fixture, lease: &Lease, claimed: &queue::Claimed) {
    let (lease, wa_id) = (lease.clone(), claimed.wa_id.clone());
    let update = Update {
        wa_id,
        input: MessageInput::ServerAck,
        at: NOW,
        failure: None,
    };
    f.write(move |tx| messages::apply(tx, &lease, update, NOW))
        .await
        .unwrap();
}

async fn configure(f: &Fixture, session: Option<&Session>, change: SettingsChange) {
    let tenant = match session {
        Some(session) => session.tenant.clone(),
        None => {
            f.read(|tx| wagate_store::tenants::get_by_name(tx, "acme"))
                .await
                .unwrap()
                .id
        }
    };
    let id = session.map(|session| session.id.clone());
    f.write(move |tx| queue::configure(tx, &tenant, id.as_ref(), change, NOW))
        .await;
}

fn concurrency(most: u32) -> SettingsChange {
    SettingsChange {
        concurrency: Some(Some(most)),
        paused: None,
    }
}

async fn dead(f: &Fixture, session: &Session) -> Vec<(MessageId, String)> {
    let tenant = session.tenant.clone();
    let page = f
        .read(move |tx| queue::dead(tx, &tenant, &DeadFilter::default(), &PageRequest::default()))
        .await;
    page.items
        .into_iter()
        .map(|dead| (dead.message.id, dead.code))
        .collect()
}

async fn revive(
    f: &Fixture,
    message: &Message,
    until: Option<Timestamp>,
) -> Result<Message, StoreError> {
    let (tenant, id) = (message.tenant.clone(), message.id.clone());
    f.db.write(move |tx| queue::revive(tx, &tenant, &id, until, after(100)))
        .await
}

async fn clear(f: &Fixture, session: &Session, states: Vec<JobState>, limit: u32) -> usize {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| queue::clear(tx, &tenant, &id, &states, limit, NOW))
        .await
        .len()
}

async fn events(f: &Fixture, session: &Session) -> Vec<Event> {
    let tenant = session.tenant.clone();
    let all = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &EventFilter::default(), 1000))
        .await;
    all.into_iter().map(|stored| stored.event).collect()
}

async fn queued(f: &Fixture, session: &Session) -> u64 {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.read(move |tx| sessions::counters(tx, &tenant, &id))
        .await
        .queued
}

async fn what_is_past_its_validity_is_not_claimed_and_ends_expired(f: Fixture) {
    let (session, lease) = f.running().await;
    let old = send_until(&f, &session, "1", Some(after(10))).await;
    f.send(&session, "1", "behind it").await;
    let long = send_until(&f, &session, "2", Some(after(20))).await;
    assert!(expire(&f, after(9)).await.is_empty());
    let claimed = f.claim(&lease, 10, after(10)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].message, long.id);
    assert_eq!(claimed[0].expires_at, Some(after(20)));
    assert_eq!(expire(&f, after(10)).await, std::slice::from_ref(&old.id));
    assert!(expire(&f, after(10)).await.is_empty());
    let ended = f.state(&old).await;
    assert_eq!(ended.message.state, MessageState::Expired);
    assert_eq!(ended.history.len(), 2);
    assert_eq!(dead(&f, &session).await, [(old.id, "expired".to_owned())]);
    assert_eq!(texts(&f.claim(&lease, 10, after(10)).await), ["behind it"]);
    assert_eq!(queued(&f, &session).await, 2);
}

async fn what_is_being_sent_does_not_expire(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = send_until(&f, &session, "1", Some(after(10))).await;
    let claimed = f.claim(&lease, 1, NOW).await.remove(0);
    assert!(expire(&f, after(60)).await.is_empty());
    ack(&f, &lease, &claimed).await;
    assert_eq!(f.state(&sent).await.message.state, MessageState::Sent);
    // One that comes back after its time is not tried again.
    let late = send_until(&f, &session, "1", Some(after(10))).await;
    let claimed = f.claim(&lease, 1, NOW).await.remove(0);
    let again = lease.clone();
    let retry = Retry {
        due: after(60),
        counts: true,
    };
    f.write(move |tx| queue::retry(tx, &again, claimed, retry, after(50)))
        .await;
    assert!(f.claim(&lease, 1, after(60)).await.is_empty());
    assert_eq!(expire(&f, after(60)).await, [late.id]);
}

async fn settings_bound_a_claim_from_the_next_one_on(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..30 {
        f.send(&session, &format!("1{number}"), "x").await;
    }
    let take = |max: u32| {
        let lease = lease.clone();
        f.write(move |tx| queue::claim_within(tx, &lease, max, 3, NOW))
    };
    let first = take(10).await;
    assert_eq!((first.claimed.len(), first.concurrency), (3, Some(3)));
    configure(&f, None, concurrency(5)).await;
    let more = take(10).await;
    assert_eq!((more.claimed.len(), more.concurrency), (2, Some(5)));
    configure(&f, Some(&session), concurrency(2)).await;
    let none = take(10).await;
    assert_eq!((none.claimed.len(), none.concurrency), (0, Some(2)));
    for claimed in first.claimed.iter().chain(&more.claimed).take(4) {
        ack(&f, &lease, claimed).await;
    }
    assert_eq!(take(10).await.claimed.len(), 1);
    // Taken back, the tenant's counts again; what is asked for stays a bound.
    let change = SettingsChange {
        concurrency: Some(None),
        paused: None,
    };
    configure(&f, Some(&session), change).await;
    let asked = take(1).await;
    assert_eq!((asked.claimed.len(), asked.concurrency), (1, Some(5)));
}

async fn a_paused_queue_gives_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "x").await;
    let paused = |paused: bool| SettingsChange {
        concurrency: None,
        paused: Some(paused),
    };
    configure(&f, Some(&session), paused(true)).await;
    assert!(f.claim(&lease, 1, NOW).await.is_empty());
    let worker = lease.worker.clone();
    let due = f
        .read(move |tx| queue::due_sessions(tx, &worker, NOW))
        .await;
    assert!(due.is_empty(), "nobody is woken for nothing");
    configure(&f, Some(&session), paused(false)).await;
    assert_eq!(f.claim(&lease, 1, NOW).await.len(), 1);
}

async fn each_change_of_settings_has_one_event(f: Fixture) {
    let (session, _lease) = f.running().await;
    configure(&f, None, concurrency(5)).await;
    configure(&f, None, concurrency(5)).await;
    configure(&f, Some(&session), concurrency(7)).await;
    let told: Vec<Event> = events(&f, &session)
        .await
        .into_iter()
        .filter(|event| event.name() == "queue.configured")
        .collect();
    let want = |name, most| Event::QueueConfigured {
        session: name,
        concurrency: Some(most),
        paused: false,
    };
    assert_eq!(told, [want(None, 5), want(Some(session.name.clone()), 7)]);
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let set = f
        .read(move |tx| queue::settings(tx, &tenant, Some(&id)))
        .await;
    let want = QueueSettings {
        concurrency: Some(7),
        paused: false,
    };
    assert_eq!(set, want);
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
    let (lease, wa_id) = (lease.clone(), first.wa_id.clone());
    let update = Update {
        wa_id,
        input: MessageInput::ServerAck,
        at: NOW,
        failure: None,
    };
    f.write(move |tx| messages::apply(tx, &lease, update, NOW))
        .await;
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
    let again = Retry {
        due: NOW,
        counts: true,
    };
    for _ in 0..3 {
        let claimed = f.claim(&lease, 1, NOW).await.remove(0);
        let lease = lease.clone();
        f.write(move |tx| queue::retry(tx, &lease, claimed, again, NOW))
            .await;
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
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let counters = f.read(move |tx| sessions::counters(tx, &tenant, &id)).await;
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
    ack(&f, &lease, &second).await;
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
    new.idempotency = Some(wagate_store::idempotency::IdempotencyKey {
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
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let counters = f.read(move |tx| sessions::counters(tx, &tenant, &id)).await;
    assert_eq!((counters.queued, counters.failed), (0, 0));
    // Its idempotency key has no answer to give any more, and makes no second message.
    let tenant = session.tenant.clone();
    let refused =
        f.db.write(move |tx| messages::accept(tx, &tenant, repeat, NOW))
            .await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
}

async fn clearing_leaves_what_is_being_sent(f: Fixture) {
    let (session, lease) = f.running().await;
    let active = f.send(&session, "1", "active").await;
    f.claim(&lease, 1, NOW).await;
    f.send(&session, "1", "behind").await;
    let delayed = f.send(&session, "2", "delayed").await;
    let claimed = f.claim(&lease, 1, NOW).await.remove(0);
    let again = lease.clone();
    let retry = Retry {
        due: after(9),
        counts: true,
    };
    f.write(move |tx| queue::retry(tx, &again, claimed, retry, NOW))
        .await;
    f.send_with(&session, "3", "later", Priority::Low, Some(after(9)))
        .await;
    assert_eq!(clear(&f, &session, vec![JobState::Active], 10).await, 0);
    assert_eq!(clear(&f, &session, vec![JobState::Delayed], 10).await, 1);
    assert_eq!(
        f.state(&delayed).await.message.state,
        MessageState::Canceled
    );
    assert_eq!(clear(&f, &session, JobState::ALL.to_vec(), 10).await, 2);
    assert_eq!(f.state(&active).await.message.state, MessageState::Sending);
    assert_eq!(queued(&f, &session).await, 1);
    let canceled = events(&f, &session).await.into_iter().filter(
        |event| matches!(event, Event::MessageStatus { status, .. } if *status == MessageState::Canceled),
    );
    assert_eq!(canceled.count(), 3);
}

async fn clearing_is_bounded_and_says_when_it_is_done(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..25 {
        f.send(&session, &format!("{}", number % 4), "x").await;
    }
    let all = || JobState::ALL.to_vec();
    assert_eq!(clear(&f, &session, all(), 10).await, 10);
    assert_eq!(queued(&f, &session).await, 15);
    assert_eq!(clear(&f, &session, all(), 10).await, 10);
    // What is left goes in order: no chat has lost its head.
    assert!(!f.claim(&lease, 10, NOW).await.is_empty());
    assert!(clear(&f, &session, all(), 10).await < 10);
}

async fn jobs_are_listed_by_state_and_page_over_sessions(f: Fixture) {
    let (first, lease) = f.running().await;
    let second = f.session(&first.tenant, "second").await;
    let _empty = f.session(&first.tenant, "empty").await;
    let third = f.session(&first.tenant, "third").await;
    let mut all = Vec::new();
    for session in [&first, &second, &third] {
        for number in 0..3 {
            let sent = f.send(session, &number.to_string(), "x").await;
            all.push((session.id.clone(), sent.id));
        }
    }
    f.claim(&lease, 1, NOW).await;
    let later = f
        .send_with(&third, "1", "later", Priority::High, Some(after(9)))
        .await;
    all.push((third.id.clone(), later.id.clone()));
    let of_the_first: Vec<MessageId> = all[..3].iter().map(|(_, id)| id.clone()).collect();
    // By session, then in the order of acceptance; ids of one millisecond have no order of their own.
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let all: Vec<MessageId> = all.into_iter().map(|(_, id)| id).collect();
    let list = |state: Option<JobState>, session: Option<&Session>, page: PageRequest| {
        let tenant = first.tenant.clone();
        let session = session.map(|session| session.id.clone());
        f.db.read(move |tx| queue::jobs(tx, &tenant, &JobFilter { session, state }, &page))
    };
    let mut seen = Vec::new();
    let mut page = PageRequest::first(2);
    loop {
        let got = list(None, None, page.clone()).await.unwrap();
        assert!(got.items.len() <= 2);
        seen.extend(got.items.into_iter().map(|job| job.message.id));
        match got.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let ids = |page: wagate_store::Page<queue::Job>| -> Vec<MessageId> {
        page.items.into_iter().map(|job| job.message.id).collect()
    };
    let some = PageRequest::default;
    let active = list(Some(JobState::Active), None, some()).await.unwrap();
    assert_eq!(ids(active), of_the_first[..1]);
    let waiting = list(Some(JobState::Waiting), Some(&first), some()).await;
    assert_eq!(ids(waiting.unwrap()), of_the_first[1..]);
    let scheduled = list(Some(JobState::Scheduled), None, some()).await.unwrap();
    assert_eq!(scheduled.items[0].due, after(9));
    assert_eq!(ids(scheduled), [later.id]);
    let strange = PageRequest {
        after: Some("x".into()),
        ..some()
    };
    let of_first = PageRequest {
        after: Some(format!("{}.0", first.id)),
        ..some()
    };
    for (session, page) in [(None, strange), (Some(&third), of_first)] {
        let refused = list(None, session, page).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })));
    }
}

async fn figures_count_what_is_there(f: Fixture) {
    let (session, lease) = f.running().await;
    let other = f.session(&session.tenant, "other").await;
    for number in 0..4 {
        f.send(&session, &number.to_string(), "x").await;
    }
    let mut claimed = f.claim(&lease, 2, NOW).await;
    ack(&f, &lease, &claimed[0]).await;
    let (again, one) = (lease.clone(), claimed.remove(1));
    let retry = Retry {
        due: after(9),
        counts: true,
    };
    f.write(move |tx| queue::retry(tx, &again, one, retry, NOW))
        .await;
    f.claim(&lease, 1, NOW).await;
    f.send_with(&other, "1", "later", Priority::Low, Some(after(9)))
        .await;
    let tenant = session.tenant.clone();
    let (total, page) = f
        .read(move |tx| {
            Ok((
                queue::tenant_stats(tx, &tenant)?,
                queue::session_stats(tx, &tenant, None, &PageRequest::default())?,
            ))
        })
        .await;
    let of_first = TenantQueue {
        active: 1,
        waiting: 1,
        delayed: 1,
        scheduled: 0,
        failed: 0,
        completed: 1,
        oldest: Some(NOW),
    };
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.items[0].queue, of_first);
    let of_other = TenantQueue {
        scheduled: 1,
        ..TenantQueue::default()
    };
    assert_eq!(page.items[1].queue, of_other);
    assert_eq!(
        total,
        TenantQueue {
            scheduled: 1,
            ..of_first
        }
    );
}

async fn clearing_claiming_and_expiring_at_once_lose_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..120_u64 {
        let until = (number % 3 == 0).then(|| after(10));
        send_until(&f, &session, &(number % 7).to_string(), until).await;
    }
    let mut set = tokio::task::JoinSet::new();
    for job in 0..3 {
        let (db, lease, session) = (f.db.clone(), lease.clone(), session.clone());
        set.spawn(async move {
            let mut done = 0;
            for _ in 0..20 {
                let (lease, session) = (lease.clone(), session.clone());
                let count = db.write(move |tx| match job {
                    0 => {
                        let all = JobState::ALL;
                        let ended =
                            queue::clear(tx, &session.tenant, &session.id, &all, 1, after(11))?;
                        Ok(ended.len())
                    }
                    1 => {
                        let mut ended = 0;
                        for overdue in queue::overdue(tx, after(11), 3)? {
                            ended += queue::expire(tx, &overdue, after(11))?.len();
                        }
                        Ok(ended)
                    }
                    _ => {
                        let claimed = queue::claim(tx, &lease, 2, after(11))?;
                        let updates: Vec<Update> = claimed
                            .iter()
                            .map(|one| Update {
                                wa_id: one.wa_id.clone(),
                                input: MessageInput::ServerAck,
                                at: after(11),
                                failure: None,
                            })
                            .collect();
                        messages::apply_many(tx, &lease, &updates, after(11))?;
                        Ok(claimed.len())
                    }
                });
                match count.await {
                    Ok(count) => done += count,
                    Err(StoreError::Busy) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            done
        });
    }
    let done: usize = set.join_all().await.into_iter().sum();
    let left = usize::try_from(queued(&f, &session).await).unwrap();
    assert_eq!(done + left, 120, "each ended once");
    assert!(done > 60, "{done}");
}

async fn a_session_is_deleted_with_its_settings_and_dead_letters(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "x").await;
    fail_all(&f, &lease, "timeout").await;
    configure(&f, Some(&session), concurrency(4)).await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let deleted = wagate_domain::Desired::Deleted;
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, deleted, None, NOW))
        .await;
    assert!(dead(&f, &session).await.is_empty(), "out of sight at once");
    assert!(
        f.write(move |tx| sessions::delete_rows(tx, &lease, 100))
            .await
    );
}

async fn another_tenants_queue_is_out_of_reach(f: Fixture) {
    let (session, lease) = f.running().await;
    let failed = f.send(&session, "1", "x").await;
    fail_all(&f, &lease, "timeout").await;
    let waiting = f.send(&session, "1", "y").await;
    let other = f.tenant("other").await;
    let (id, dead_id) = (session.id.clone(), failed.id.clone());
    let attempts: Vec<Result<(), StoreError>> = f
        .write({
            let other = other.clone();
            move |tx| {
                let all = JobState::ALL;
                Ok(vec![
                    queue::clear(tx, &other, &id, &all, 10, NOW).map(drop),
                    queue::clear_dead(tx, &other, &id, 10, NOW).map(drop),
                    queue::revive_some(tx, &other, &id, None, 10, NOW).map(drop),
                    queue::revive(tx, &other, &dead_id, None, NOW).map(drop),
                    queue::delete_dead(tx, &other, &dead_id, NOW).map(drop),
                    queue::configure(tx, &other, Some(&id), concurrency(9), NOW).map(drop),
                ])
            }
        })
        .await;
    for (number, attempt) in attempts.into_iter().enumerate() {
        assert!(
            matches!(attempt, Err(StoreError::NotFound { .. })),
            "{number}: {attempt:?}"
        );
    }
    let own = session.id.clone();
    let seen = f
        .read(move |tx| {
            let filter = JobFilter {
                session: Some(own),
                state: None,
            };
            let jobs = queue::jobs(tx, &other, &filter, &PageRequest::default())?;
            let dead = queue::dead(tx, &other, &DeadFilter::default(), &PageRequest::default())?;
            let stats = queue::tenant_stats(tx, &other)?;
            Ok((jobs.items.len(), dead.items.len(), stats))
        })
        .await;
    assert_eq!(seen, (0, 0, TenantQueue::default()));
    assert_eq!(f.state(&waiting).await.message.state, MessageState::Queued);
}
