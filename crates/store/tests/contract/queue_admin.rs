//! What a tenant changes in its queues: validity, clearing, and what deletion and other tenants see of it.

use wagate_domain::message::{MessageInput, MessageState};
use wagate_domain::{Desired, Event};
use wagate_store::messages::{self, Priority, Update};
use wagate_store::queue::{self, DeadFilter, JobFilter, JobState, Retry, TenantQueue};
use wagate_store::sessions::{self, Session};
use wagate_store::{PageRequest, StoreError};

use crate::support::queues::{
    ack, concurrency, configure, dead, events, expire, fail_all, queued, retry, send_until,
};
use crate::support::{Fixture, NOW, after, texts};

contract!(
    what_is_past_its_validity_is_not_claimed_and_ends_expired,
    what_is_being_sent_does_not_expire,
    clearing_leaves_what_is_being_sent,
    clearing_is_bounded_and_says_when_it_is_done,
    clearing_claiming_and_expiring_at_once_lose_nothing,
    a_session_is_deleted_with_its_settings_and_dead_letters,
    another_tenants_queue_is_out_of_reach,
);

async fn clear(f: &Fixture, session: &Session, states: Vec<JobState>, limit: u32) -> usize {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| queue::clear(tx, &tenant, &id, &states, limit, NOW))
        .await
        .len()
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
    ack(&f, &lease, &claimed.wa_id).await;
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

async fn clearing_leaves_what_is_being_sent(f: Fixture) {
    let (session, lease) = f.running().await;
    let active = f.send(&session, "1", "active").await;
    f.claim(&lease, 1, NOW).await;
    f.send(&session, "1", "behind").await;
    let delayed = f.send(&session, "2", "delayed").await;
    let claimed = f.claim(&lease, 1, NOW).await.remove(0);
    retry(&f, &lease, claimed, after(9)).await;
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
    let deleted = Desired::Deleted;
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
