//! Leases: one holder, a token that rises at each grant, and nothing written by a stale one (SL-1).

use std::collections::HashSet;

use wagate_domain::session::{Desired, LinkReason, LinkState};
use wagate_domain::{Timestamp, WorkerId};
use wagate_store::device_state::{self, Put, StateKind};
use wagate_store::leases::{self, Lease};
use wagate_store::sessions::{self, Observation, Session};
use wagate_store::{StoreError, queue};

use crate::support::{Fixture, NOW, TTL, after};

contract!(
    two_workers_never_hold_one_session,
    a_stale_token_changes_nothing,
    a_lease_is_renewed_released_and_taken_over,
    a_restarted_worker_need_not_wait,
    only_what_wants_a_worker_is_acquired,
);

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

async fn ask(f: &Fixture, session: &Session, desired: Desired) -> i64 {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, desired, None, NOW))
        .await
}

async fn observe(f: &Fixture, lease: &Lease, seen: Observation) -> Session {
    let lease = lease.clone();
    f.write(move |tx| sessions::observe(tx, &lease, &seen, NOW))
        .await
}

async fn two_workers_never_hold_one_session(f: Fixture) {
    let tenant = f.tenant("acme").await;
    for number in 0..40 {
        let name: &'static str = Box::leak(format!("s{number}").into_boxed_str());
        let session = f.session(&tenant, name).await;
        ask(&f, &session, Desired::Running).await;
    }
    let other = f.another().await;
    let mut set = tokio::task::JoinSet::new();
    for number in 0..8 {
        let db = if number % 2 == 0 {
            f.db.clone()
        } else {
            other.clone()
        };
        set.spawn(async move {
            let name = worker(&format!("w{number}"));
            let mut held = Vec::new();
            loop {
                let name = name.clone();
                let got = db
                    .write(move |tx| leases::acquire_some(tx, &name, 3, TTL, NOW))
                    .await;
                match got.unwrap() {
                    leases if leases.is_empty() => return held,
                    leases => held.extend(leases),
                }
            }
        });
    }
    let held: Vec<Lease> = set.join_all().await.into_iter().flatten().collect();
    let sessions: HashSet<_> = held.iter().map(|lease| lease.session.clone()).collect();
    assert_eq!(sessions.len(), held.len(), "a session was given twice");
    // What one worker was just taking another left out; nothing is left in the end.
    assert_eq!(held.len() + f.acquire("last", NOW).await.len(), 40);
}

async fn a_stale_token_changes_nothing(f: Fixture) {
    let (session, old) = f.running().await;
    let new = f.acquire("w2", after(15)).await.remove(0);
    assert!(new.token > old.token);
    let state = Put {
        kind: StateKind(1),
        key: "k".into(),
        value: b"v".to_vec(),
    };
    let put = vec![state];
    let seen = Observation {
        link: Some(LinkState::Connected),
        ..Default::default()
    };
    let held = old.clone();
    let refused = [
        f.db.write({
            let l = held.clone();
            move |tx| device_state::put_many(tx, &l, &put)
        })
        .await,
        f.db.write({
            let l = held.clone();
            move |tx| device_state::delete_session(tx, &l).map(drop)
        })
        .await,
        f.db.write({
            let l = held.clone();
            move |tx| sessions::observe(tx, &l, &seen, NOW).map(drop)
        })
        .await,
        f.db.write({
            let l = held.clone();
            move |tx| queue::claim(tx, &l, 1, NOW).map(drop)
        })
        .await,
        f.db.write({
            let l = held.clone();
            move |tx| leases::release(tx, &l)
        })
        .await,
        f.db.write(move |tx| sessions::delete_rows(tx, &held, 1).map(drop))
            .await,
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::LeaseLost)), "{result:?}");
    }
    let id = session.id.clone();
    assert_eq!(
        f.read(move |tx| sessions::find(tx, &id)).await.link,
        LinkState::Idle
    );
    // A lease that was given back is no right either.
    let held = new.clone();
    f.write(move |tx| leases::release(tx, &held)).await;
    let late =
        f.db.write(move |tx| device_state::delete_session(tx, &new))
            .await;
    assert!(matches!(late, Err(StoreError::LeaseLost)));
}

async fn a_lease_is_renewed_released_and_taken_over(f: Fixture) {
    let (session, lease) = f.running().await;
    let holder = |now: Timestamp| {
        let id = session.id.clone();
        f.read(move |tx| leases::get(tx, &id, now))
    };
    assert_eq!(holder(after(14)).await.as_ref(), Some(&lease));
    assert_eq!(holder(after(15)).await, None);
    assert!(f.acquire("w2", after(14)).await.is_empty());
    let renewed = f
        .write(|tx| leases::renew(tx, &worker("w1"), TTL, after(10)))
        .await;
    assert_eq!(
        renewed,
        [Lease {
            expires: after(25),
            ..lease.clone()
        }]
    );
    assert!(f.acquire("w2", after(24)).await.is_empty());
    let taken = f.acquire("w2", after(25)).await.remove(0);
    assert!(
        f.write(|tx| leases::renew(tx, &worker("w1"), TTL, after(25)))
            .await
            .is_empty()
    );
    f.write(move |tx| leases::release(tx, &taken)).await;
    assert_eq!(f.acquire("w1", after(25)).await.len(), 1);
}

async fn a_restarted_worker_need_not_wait(f: Fixture) {
    let (_, old) = f.running().await;
    assert_eq!(
        f.write(|tx| leases::release_all(tx, &worker("w1"))).await,
        1
    );
    let new = f.acquire("w1", after(1)).await.remove(0);
    assert!(
        new.token > old.token,
        "the earlier life's writes are refused"
    );
    assert_eq!(
        f.write(|tx| leases::release_all(tx, &worker("w2"))).await,
        0
    );
}

async fn only_what_wants_a_worker_is_acquired(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let session = f.session(&tenant, "main").await;
    assert!(
        f.acquire("w1", NOW).await.is_empty(),
        "nobody asked for it yet"
    );
    let generation = ask(&f, &session, Desired::Stopped).await;
    let lease = f.acquire("w1", NOW).await.remove(0);
    // Once the request is carried out a stopped session needs nobody.
    let done = Observation {
        link: Some(LinkState::Stopped),
        generation_done: Some(generation),
        ..Default::default()
    };
    assert_eq!(observe(&f, &lease, done).await.generation_done, generation);
    let held = lease.clone();
    f.write(move |tx| leases::release(tx, &held)).await;
    assert!(f.acquire("w2", NOW).await.is_empty());
    // A running one does, until something forbids it for good.
    let generation = ask(&f, &session, Desired::Running).await;
    let lease = f.acquire("w2", NOW).await.remove(0);
    let connected = Observation {
        link: Some(LinkState::Connected),
        generation_done: Some(generation),
        ..Default::default()
    };
    observe(&f, &lease, connected).await;
    let lease = f.acquire("w3", after(20)).await.remove(0);
    let reason = LinkReason::new("unlinked", "The phone removed the device.");
    let gone = Observation {
        link: Some(LinkState::LoggedOut { reason }),
        ..Default::default()
    };
    observe(&f, &lease, gone).await;
    assert!(f.acquire("w4", after(60)).await.is_empty());
    ask(&f, &session, Desired::Running).await;
    assert_eq!(f.acquire("w4", after(60)).await.len(), 1);
}
