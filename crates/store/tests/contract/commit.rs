//! Transactions: closures share commits on SQLite without harming each other, and nobody hears of
//! success before it is durable (MP-1).

use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::Duration;

use wagate_store::{Db, DbOptions, MasterKey, Sealer, StoreError, tenants};

use crate::support::{Fixture, NOW};

contract!(
    a_failing_closure_does_not_harm_its_neighbours,
    a_panicking_closure_does_not_end_the_thread,
    a_dropped_error_dooms_the_transaction,
    what_was_answered_is_seen_by_every_reader,
    a_read_changes_nothing,
    a_closed_database_says_so,
);

async fn a_failing_closure_does_not_harm_its_neighbours(f: Fixture) {
    let mut set = tokio::task::JoinSet::new();
    for number in 0..120 {
        let db = f.db.clone();
        set.spawn(async move {
            let made = db
                .write(move |tx| {
                    let tenant = tenants::create(tx, &format!("t{number}"), NOW)?;
                    match number % 4 {
                        1 => Err(StoreError::NotFound { what: "reason" }),
                        // Breaks a constraint inside the database.
                        2 => tenants::create(tx, &format!("t{number}"), NOW),
                        3 if number % 3 == 0 => panic!("on purpose"),
                        _ => Ok(tenant),
                    }
                })
                .await;
            (number, made.is_ok())
        });
    }
    let mut kept: Vec<String> = set
        .join_all()
        .await
        .into_iter()
        .filter(|(_, ok)| *ok)
        .map(|(number, _)| format!("t{number}"))
        .collect();
    for number in 0..120 {
        let expected = number % 4 == 0 || (number % 4 == 3 && number % 3 != 0);
        assert_eq!(kept.contains(&format!("t{number}")), expected, "{number}");
    }
    let page = wagate_store::PageRequest::first(200);
    let stored = f.read(move |tx| tenants::list(tx, &page)).await.items;
    let mut stored: Vec<String> = stored.into_iter().map(|tenant| tenant.name).collect();
    stored.sort();
    kept.sort();
    assert_eq!(stored, kept);
}

async fn a_panicking_closure_does_not_end_the_thread(f: Fixture) {
    for _ in 0..6 {
        let panicked: Result<(), _> =
            f.db.write(|tx| {
                tenants::create(tx, "lost", NOW)?;
                panic!("on purpose")
            })
            .await;
        assert!(matches!(panicked, Err(StoreError::Panicked(text)) if text == "on purpose"));
    }
    f.tenant("kept").await;
    assert_eq!(f.read(tenants::count).await, 1);
}

async fn a_dropped_error_dooms_the_transaction(f: Fixture) {
    let session = f.session(&f.tenant("acme").await, "main").await;
    let stranger = wagate_domain::TenantId::generate();
    let result =
        f.db.write(move |tx| {
            tenants::create(tx, "second", NOW)?;
            // A tenant that is not there breaks a foreign key; the error is thrown away.
            let new = wagate_store::api_keys::NewApiKey {
                name: "k".into(),
                expires_at: None,
            };
            drop(wagate_store::api_keys::create(tx, &stranger, &new, NOW));
            drop(session);
            Ok(())
        })
        .await;
    assert!(
        result.is_err(),
        "PostgreSQL would have rolled back in silence"
    );
    assert_eq!(f.read(tenants::count).await, 1);
}

async fn what_was_answered_is_seen_by_every_reader(f: Fixture) {
    let other = f.another().await;
    for number in 1..=30 {
        f.write(move |tx| tenants::create(tx, &format!("t{number}"), NOW))
            .await;
        for db in [&f.db, &other] {
            assert_eq!(db.read(tenants::count).await.unwrap(), number);
        }
    }
}

async fn a_read_changes_nothing(f: Fixture) {
    let refused = f.db.read(|tx| tenants::create(tx, "x", NOW)).await;
    assert!(refused.is_err());
    assert_eq!(f.read(tenants::count).await, 0);
    f.tenant("x").await;
}

async fn a_closed_database_says_so(f: Fixture) {
    let other = f.db.clone();
    f.db.ping().await.unwrap();
    f.db.clone().close().await;
    let late = other.write(|tx| tenants::create(tx, "x", NOW)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))));
    assert!(matches!(
        other.ping().await,
        Err(StoreError::Unavailable(_))
    ));
}

/// A closure that waits inside the writer until it is told to leave.
pub(crate) struct Held {
    inside: mpsc::Receiver<()>,
    pub(crate) leave: mpsc::Sender<()>,
}

pub(crate) fn hold() -> (impl FnOnce() + Send + 'static, Held) {
    let (entered, inside) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel();
    let closure = move || {
        entered.send(()).unwrap();
        may_leave.recv_timeout(Duration::from_secs(20)).unwrap();
    };
    (closure, Held { inside, leave })
}

impl Held {
    pub(crate) fn wait_until_inside(&self) {
        tokio::task::block_in_place(|| self.inside.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}

/// Hands the closure over, without waiting for its answer.
pub(crate) fn start<F: Future + Unpin>(write: &mut F) -> bool {
    Pin::new(write)
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_after_the_commit() {
    let f = Fixture::sqlite().await;
    let (wait, first) = hold();
    let mut busy = Box::pin(f.db.write(move |_| {
        wait();
        Ok(())
    }));
    assert!(start(&mut busy));
    first.wait_until_inside();
    // Both wait for the writer now, so that they share a group.
    let mut create = Box::pin(f.db.write(|tx| tenants::create(tx, "grouped", NOW)));
    assert!(start(&mut create));
    let (wait, second) = hold();
    let mut last = Box::pin(f.db.write(move |_| {
        wait();
        Ok(())
    }));
    assert!(start(&mut last));
    first.leave.send(()).unwrap();
    second.wait_until_inside();
    // The tenant was written, but its group is not committed: no answer, and nobody sees it.
    assert!(start(&mut create));
    assert_eq!(f.read(tenants::count).await, 0);
    second.leave.send(()).unwrap();
    create.await.unwrap();
    assert_eq!(f.read(tenants::count).await, 1);
    busy.await.unwrap();
    last.await.unwrap();
}

#[tokio::test]
async fn a_database_in_memory_works() {
    let key = MasterKey::generate().unwrap();
    let db = Db::open(DbOptions::new("sqlite::memory:"), Sealer::new(&key, &[]))
        .await
        .unwrap();
    db.migrate().await.unwrap();
    db.write(|tx| tenants::create(tx, "x", NOW)).await.unwrap();
    assert_eq!(db.read(tenants::count).await.unwrap(), 1);
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_busy_rather_than_endless() {
    let key = MasterKey::generate().unwrap();
    let mut options = DbOptions::new("sqlite::memory:");
    options.queue_max = 1;
    options.queue_wait = Duration::from_millis(50);
    options.group_max = 1;
    let db = Db::open(options, Sealer::new(&key, &[])).await.unwrap();
    db.migrate().await.unwrap();
    let (wait, held) = hold();
    let mut busy = Box::pin(db.write(move |_| {
        wait();
        Ok(())
    }));
    assert!(start(&mut busy));
    held.wait_until_inside();
    let mut waiting = Box::pin(db.write(|_| Ok(())));
    assert!(start(&mut waiting));
    assert!(matches!(db.ping().await, Err(StoreError::Busy)));
    held.leave.send(()).unwrap();
    busy.await.unwrap();
    waiting.await.unwrap();
    db.ping().await.unwrap();
}
