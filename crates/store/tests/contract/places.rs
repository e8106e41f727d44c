//! Goal: a message keeps its place whatever comes meanwhile, claims belong to one holder, a queue is bounded,
//! and a session on its way out says nothing more (MP-4, SL-1, BD-1, EV-1).

use wagate_domain::limits::QUEUE_PER_SESSION_MAX;
use wagate_domain::session::{Desired, LinkState};
use wagate_domain::{EventSeq, MessageState};
use wagate_store::messages;
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{self, Retry};
use wagate_store::sessions::{self, Observation};
use wagate_store::{StoreError, leases};

use crate::support::{Fixture, NOW, after, outbound, texts};

contract!(
    what_is_accepted_meanwhile_does_not_overtake_a_retry,
    a_claim_of_an_earlier_holder_gives_nothing_back,
    a_full_queue_takes_no_more_until_one_has_left_it,
    a_session_that_is_being_deleted_says_nothing_more,
);

async fn what_is_accepted_meanwhile_does_not_overtake_a_retry(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "first").await;
    let claimed = f.claim(&lease, 5, NOW).await.remove(0);
    let held = lease.clone();
    let later = Retry {
        due: after(2),
        counts: true,
    };
    let given_back = f.write(move |tx| queue::retry(tx, &held, claimed, later, NOW));
    assert!(given_back.await);
    f.send(&session, "1", "second").await;
    assert!(f.claim(&lease, 5, after(1)).await.is_empty());
    assert_eq!(texts(&f.claim(&lease, 5, after(2)).await), ["first"]);
}

async fn a_claim_of_an_earlier_holder_gives_nothing_back(f: Fixture) {
    let (session, first) = f.running().await;
    let message = f.send(&session, "1", "text").await;
    let claimed = f.claim(&first, 5, NOW).await.remove(0);
    f.write(move |tx| leases::release(tx, &first)).await;
    let second = f.acquire("w2", NOW).await.remove(0);
    let now = Retry {
        due: NOW,
        counts: true,
    };
    let given_back = f.write(move |tx| queue::retry(tx, &second, claimed, now, NOW));
    assert!(!given_back.await);
    assert_eq!(f.state(&message).await.message.state, MessageState::Sending);
}

async fn a_full_queue_takes_no_more_until_one_has_left_it(f: Fixture) {
    let (session, _) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    f.raw(&format!(
        "UPDATE session_counters SET queued = {QUEUE_PER_SESSION_MAX}"
    ))
    .unwrap();
    let accept = || {
        let (tenant, new) = (session.tenant.clone(), outbound(&session, "1", "another"));
        f.db.write(move |tx| messages::accept(tx, &tenant, new, NOW))
    };
    let refused = accept().await;
    assert!(
        matches!(refused, Err(StoreError::Limit { .. })),
        "{refused:?}"
    );
    let (tenant, id) = (session.tenant.clone(), first.id);
    f.write(move |tx| messages::cancel(tx, &tenant, &id, NOW))
        .await;
    accept().await.unwrap();
}

async fn a_session_that_is_being_deleted_says_nothing_more(f: Fixture) {
    let (session, lease) = f.running().await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let head = f
        .write(move |tx| {
            sessions::set_desired(tx, &tenant, &id, Desired::Deleted, None, NOW)?;
            outbox::head(tx, &tenant)
        })
        .await;
    let seen = Observation {
        link: Some(LinkState::Connecting),
        ..Observation::default()
    };
    f.write(move |tx| sessions::observe(tx, &lease, &seen, NOW))
        .await;
    let tenant = session.tenant.clone();
    let behind = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(head.0), &EventFilter::default(), 10))
        .await;
    // What the request itself says is written when its transaction ends.
    let of_the_worker = |event: &&outbox::StoredEvent| event.event.name() == "session.status";
    assert_eq!(behind.iter().find(of_the_worker), None);
}
