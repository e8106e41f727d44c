//! The outbox: no gap, no skip, in order of commit, also with many writers at once (EV-1).

use wagate_domain::session::SessionName;
use wagate_domain::{Event, EventSeq, TenantId};
use wagate_store::outbox::{self, EventFilter, StoredEvent};
use wagate_store::{Db, StoreError};

use crate::support::{Fixture, NOW, after};

contract!(
    a_reader_skips_nothing_while_many_write,
    what_is_rolled_back_leaves_no_gap,
    tenants_have_numbers_of_their_own,
    filters_and_limits_hold,
    old_events_are_pruned_and_numbers_go_on,
);

fn event(name: &str) -> Event {
    Event::SessionCreated {
        session: SessionName::parse(name).unwrap(),
    }
}

async fn append(db: &Db, tenant: &TenantId, names: Vec<String>) {
    let tenant = tenant.clone();
    db.write(move |tx| {
        names
            .iter()
            .try_for_each(|name| outbox::append(tx, &tenant, None, &event(name), NOW))
    })
    .await
    .unwrap();
}

async fn read(db: &Db, tenant: &TenantId, after: EventSeq) -> Vec<StoredEvent> {
    let tenant = tenant.clone();
    db.read(move |tx| outbox::after(tx, &tenant, after, &EventFilter::default(), 50))
        .await
        .unwrap()
}

async fn a_reader_skips_nothing_while_many_write(f: Fixture) {
    const WRITERS: usize = 12;
    const EACH: usize = 40;
    let tenant = f.tenant("acme").await;
    // A second process, so that SQLite too has writers that do not share a thread.
    let other = f.another().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let db = if writer % 2 == 0 {
            f.db.clone()
        } else {
            other.clone()
        };
        let tenant = tenant.clone();
        writers.spawn(async move {
            for number in 0..EACH {
                let names = (0..number % 3 + 1).map(|part| format!("{writer}.{number}.{part}"));
                append(&db, &tenant, names.collect()).await;
            }
        });
    }
    let total: usize = WRITERS * (0..EACH).map(|number| number % 3 + 1).sum::<usize>();
    let mut cursor = EventSeq(0);
    let mut seen = 0;
    while seen < total {
        let over = writers.is_empty();
        let page = read(&f.db, &tenant, cursor).await;
        // A page may be less than all that is there.
        assert!(
            !over || !page.is_empty(),
            "{seen} of {total} events after all writers ended"
        );
        for stored in page {
            // Each number is the next one: had one been skipped, it would show here.
            assert_eq!(stored.seq.0, cursor.0 + 1);
            cursor = stored.seq;
            seen += 1;
        }
        while writers.try_join_next().is_some() {}
    }
    assert_eq!(f.read(move |tx| outbox::head(tx, &tenant)).await, cursor);
}

async fn what_is_rolled_back_leaves_no_gap(f: Fixture) {
    let tenant = f.tenant("acme").await;
    append(&f.db, &tenant, vec!["a".into()]).await;
    let owner = tenant.clone();
    let failed: Result<(), StoreError> =
        f.db.write(move |tx| {
            outbox::append(tx, &owner, None, &event("lost"), NOW)?;
            Err(StoreError::NotFound { what: "nothing" })
        })
        .await;
    assert!(failed.is_err());
    append(&f.db, &tenant, vec!["b".into()]).await;
    let seqs: Vec<i64> = read(&f.db, &tenant, EventSeq(0))
        .await
        .iter()
        .map(|e| e.seq.0)
        .collect();
    assert_eq!(seqs, [1, 2]);
}

async fn tenants_have_numbers_of_their_own(f: Fixture) {
    let (one, two) = (f.tenant("one").await, f.tenant("two").await);
    let (first, second) = (one.clone(), two.clone());
    f.write(move |tx| {
        for (tenant, name) in [(&first, "a"), (&second, "b"), (&first, "c")] {
            outbox::append(tx, tenant, None, &event(name), NOW)?;
        }
        Ok(())
    })
    .await;
    assert_eq!(read(&f.db, &one, EventSeq(0)).await.len(), 2);
    assert_eq!(read(&f.db, &two, EventSeq(0)).await[0].event, event("b"));
    let mut heads = f.read(outbox::heads).await;
    heads.sort();
    let mut want = vec![(one, EventSeq(2)), (two, EventSeq(1))];
    want.sort();
    assert_eq!(heads, want);
}

async fn filters_and_limits_hold(f: Fixture) {
    let (session, lease) = f.running().await;
    let other = f.session(&session.tenant, "other").await;
    f.send(&session, "1", "x").await;
    f.claim(&lease, 1, NOW).await;
    let ask = |filter: EventFilter, limit: u32| {
        let tenant = session.tenant.clone();
        f.read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &filter, limit))
    };
    let all = ask(EventFilter::default(), 100).await;
    assert_eq!(ask(EventFilter::default(), 2).await, all[..2]);
    let types = vec!["message.queued".to_owned(), "message.status".to_owned()];
    let names = |events: Vec<StoredEvent>| -> Vec<&'static str> {
        events.iter().map(|stored| stored.event.name()).collect()
    };
    let filter = EventFilter {
        session: Some(session.id.clone()),
        types,
    };
    assert_eq!(
        names(ask(filter, 100).await),
        ["message.queued", "message.status"]
    );
    let filter = EventFilter {
        session: Some(other.id),
        types: vec![],
    };
    assert_eq!(names(ask(filter, 100).await), ["session.created"]);
}

async fn old_events_are_pruned_and_numbers_go_on(f: Fixture) {
    let tenant = f.tenant("acme").await;
    for secs in 0..6 {
        let tenant = tenant.clone();
        f.write(move |tx| outbox::append(tx, &tenant, None, &event("x"), after(secs)))
            .await;
    }
    assert_eq!(f.write(|tx| outbox::prune(tx, after(4), 3)).await, 3);
    assert_eq!(f.write(|tx| outbox::prune(tx, after(4), 3)).await, 1);
    assert_eq!(f.write(|tx| outbox::prune(tx, after(4), 3)).await, 0);
    append(&f.db, &tenant, vec!["new".into()]).await;
    let seqs: Vec<i64> = read(&f.db, &tenant, EventSeq(0))
        .await
        .iter()
        .map(|e| e.seq.0)
        .collect();
    assert_eq!(seqs, [5, 6, 7]);
}
