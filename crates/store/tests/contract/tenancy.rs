//! No row crosses tenants (TN-1): whatever a tenant asks about another's things is not found.

use wagate_domain::session::Desired;
use wagate_domain::{EventSeq, Timestamp};
use wagate_store::idempotency::IdempotencyKey;
use wagate_store::messages::{self, MessageFilter};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{self, QueueStats};
use wagate_store::{Lease, PageRequest, StoreError, api_keys, device_state, sessions};

use crate::support::{Fixture, NOW, outbound};

contract!(
    another_tenants_things_are_not_found,
    a_lease_is_worth_nothing_under_another_tenants_name,
    idempotency_keys_do_not_meet,
);

fn not_found<T: std::fmt::Debug>(result: &Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::NotFound { .. })),
        "{result:?}"
    );
}

async fn another_tenants_things_are_not_found(f: Fixture) {
    let (session, _lease) = f.running().await;
    let sent = f.send(&session, "1", "x").await;
    let stranger = f.tenant("stranger").await;
    let key = api_keys::NewApiKey {
        name: "k".into(),
        expires_at: None,
    };
    let owner = session.tenant.clone();
    let (key, _) = f
        .write(move |tx| api_keys::create(tx, &owner, &key, NOW))
        .await;

    let (who, name) = (stranger.clone(), session.name.clone());
    not_found(&f.db.read(move |tx| sessions::get(tx, &who, &name)).await);
    let (who, id) = (stranger.clone(), session.id.clone());
    not_found(&f.db.read(move |tx| sessions::counters(tx, &who, &id)).await);
    let (who, id) = (stranger.clone(), session.id.clone());
    not_found(
        &f.db
            .write(move |tx| sessions::set_desired(tx, &who, &id, Desired::Deleted, None, NOW))
            .await,
    );
    let (who, id) = (stranger.clone(), sent.id.clone());
    not_found(&f.db.read(move |tx| messages::get(tx, &who, &id)).await);
    let (who, id) = (stranger.clone(), sent.id.clone());
    not_found(
        &f.db
            .write(move |tx| messages::cancel(tx, &who, &id, NOW))
            .await,
    );
    let (who, id) = (stranger.clone(), key.id.clone());
    not_found(
        &f.db
            .write(move |tx| api_keys::revoke(tx, &who, &id, NOW))
            .await,
    );
    let (who, id) = (stranger.clone(), key.id.clone());
    not_found(&f.db.write(move |tx| api_keys::rotate(tx, &who, &id)).await);

    let (who, id) = (stranger.clone(), session.id.clone());
    let (listed, counted, stats, events, sessions) = f
        .read(move |tx| {
            let (all, page) = (MessageFilter::default(), PageRequest::default());
            Ok((
                messages::list(tx, &who, &id, &all, &page)?,
                messages::count(tx, &who, &id, &all)?,
                queue::stats(tx, &who, Some(&id))?,
                outbox::after(tx, &who, EventSeq(0), &EventFilter::default(), 99)?,
                sessions::list(tx, &who, &page)?,
            ))
        })
        .await;
    assert!(listed.items.is_empty() && events.is_empty() && sessions.items.is_empty());
    assert_eq!((counted, stats), (0, QueueStats::default()));
    // Nothing of the owner's was touched by the attempts.
    let (owner, name) = (session.tenant.clone(), session.name.clone());
    assert_eq!(
        f.read(move |tx| sessions::get(tx, &owner, &name))
            .await
            .desired,
        Desired::Running
    );
}

async fn a_lease_is_worth_nothing_under_another_tenants_name(f: Fixture) {
    let (_, lease) = f.running().await;
    let forged = Lease {
        tenant: f.tenant("stranger").await,
        ..lease
    };
    let refused = [
        f.db.write({
            let l = forged.clone();
            move |tx| queue::claim(tx, &l, 1, NOW).map(drop)
        })
        .await,
        f.db.write(move |tx| device_state::delete_session(tx, &forged).map(drop))
            .await,
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::LeaseLost)));
    }
}

async fn idempotency_keys_do_not_meet(f: Fixture) {
    let one = f.session(&f.tenant("one").await, "main").await;
    let two = f.session(&f.tenant("two").await, "main").await;
    for (session, body) in [(&one, 1), (&two, 2)] {
        let (tenant, mut new) = (session.tenant.clone(), outbound(session, "1", "x"));
        new.idempotency = Some(IdempotencyKey {
            key: "same".into(),
            body_hash: [body; 32],
        });
        let at = Timestamp::EPOCH;
        assert!(
            !f.write(move |tx| messages::accept(tx, &tenant, new, at))
                .await
                .replayed
        );
    }
}
