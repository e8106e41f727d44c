//! What a tenant sees of its queues: lists by state, page by page, and figures.

use wagate_domain::MessageId;
use wagate_store::messages::Priority;
use wagate_store::queue::{self, JobFilter, JobState, TenantQueue};
use wagate_store::sessions::Session;
use wagate_store::{PageRequest, StoreError};

use crate::support::queues::{ack, retry};
use crate::support::{Fixture, NOW, after};

contract!(
    jobs_are_listed_by_state_and_page_over_sessions,
    figures_count_what_is_there,
);

async fn jobs_are_listed_by_state_and_page_over_sessions(f: Fixture) {
    let (first, lease) = f.running().await;
    let second = f.session(&first.tenant, "second").await;
    let _empty = f.session(&first.tenant, "empty").await;
    let third = f.session(&first.tenant, "third").await;
    let mut all = Vec::new();
    for session in [&first, &second, &third] {
        for number in 0..3 {
            let sent = f.send(session, &number.to_string(), "x").await;
            all.push(sent.id);
        }
    }
    f.claim(&lease, 1, NOW).await;
    let later = f
        .send_with(&third, "1", "later", Priority::High, Some(after(9)))
        .await;
    all.push(later.id.clone());
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
    assert_eq!(ids(active), all[..1]);
    let waiting = list(Some(JobState::Waiting), Some(&first), some()).await;
    assert_eq!(ids(waiting.unwrap()), all[1..3]);
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
    ack(&f, &lease, &claimed[0].wa_id).await;
    retry(&f, &lease, claimed.remove(1), after(9)).await;
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
