//! How queues work, as tenants set it: concurrency, pauses, and the events that tell of it.

use wagate_domain::Event;
use wagate_store::queue::{self, QueueSettings, SettingsChange};

use crate::support::queues::{ack, concurrency, configure, events_of};
use crate::support::{Fixture, NOW};

contract!(
    settings_bound_a_claim_from_the_next_one_on,
    a_paused_queue_gives_nothing,
    each_change_of_settings_has_one_event,
);

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
        ack(&f, &lease, &claimed.wa_id).await;
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
    let told = events_of(&f, &session, &["queue.configured"]).await;
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
