//! Tenants take turns with the database: a backlog of one delays the others by a bounded share, counted
//! in closures and in commits.

use std::sync::{Arc, Mutex};

use wagate_domain::TenantId;
use wagate_store::{Db, Sealer, Tx, tenants};

use crate::commit::{hold, start};
use crate::support::{Fixture, NOW};

contract!(a_backlog_delays_another_tenant_by_one_closure_each);

/// Closures of the large tenant that wait when the others come.
const BACKLOG: usize = 500;

/// The fixture's database with one thread that writes.
async fn one_thread(f: &Fixture, share: usize) -> Db {
    let mut options = f.options.clone();
    options.pool = 1;
    options.tenant_share = share;
    Db::open(options, Sealer::new(&f.key, &[])).await.unwrap()
}

async fn a_backlog_delays_another_tenant_by_one_closure_each(f: Fixture) {
    let db = one_thread(&f, 8).await;
    let ran = Arc::new(Mutex::new(Vec::new()));
    let (wait, held) = hold();
    let mut busy = Box::pin(db.write(move |_| {
        wait();
        Ok(())
    }));
    assert!(start(&mut busy));
    held.wait_until_inside();
    let [large, small, single] = [(); 3].map(|()| TenantId::generate());
    let mut writes = Vec::new();
    for (name, tenant, count) in [
        ("large", large, BACKLOG),
        ("small", small, 20),
        ("one", single, 1),
    ] {
        for number in 0..count {
            let (db, ran, tenant) = (db.clone(), Arc::clone(&ran), tenant.clone());
            let mut write = Box::pin(async move {
                let closure = move |_: &mut Tx<'_>| {
                    ran.lock().unwrap().push((name, number));
                    Ok(())
                };
                db.write_for(&tenant, closure).await
            });
            assert!(start(&mut write));
            writes.push(write);
        }
    }
    held.leave.send(()).unwrap();
    busy.await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    let ran = ran.lock().unwrap();
    let places = |of: &str| -> Vec<usize> {
        let places = ran.iter().enumerate().filter(|(_, (name, _))| *name == of);
        // Whatever the turns: what one tenant asked for keeps its order.
        places
            .enumerate()
            .map(|(nth, (place, (_, number)))| {
                assert_eq!(nth, *number, "{of}");
                place
            })
            .collect()
    };
    assert_eq!(places("large").len(), BACKLOG);
    assert_eq!(places("one"), [2]);
    for (nth, place) in places("small").into_iter().enumerate() {
        assert!(
            place <= 2 * nth + 2,
            "{nth} of the small tenant was at place {place}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_delays_another_tenants_commit_by_its_share() {
    const SHARE: usize = 8;
    let f = Fixture::sqlite().await;
    let db = one_thread(&f, SHARE).await;
    let path = f.options.url.strip_prefix("sqlite:").unwrap();
    // Sees only what is committed.
    let outside = Arc::new(Mutex::new(rusqlite::Connection::open(path).unwrap()));
    let (wait, held) = hold();
    let mut busy = Box::pin(db.write(move |_| {
        wait();
        Ok(())
    }));
    assert!(start(&mut busy));
    held.wait_until_inside();
    let (large, small) = (TenantId::generate(), TenantId::generate());
    let before = Arc::new(Mutex::new(0));
    let mut writes = Vec::new();
    for _ in 0..BACKLOG {
        let (db, large) = (db.clone(), large.clone());
        let (outside, before) = (Arc::clone(&outside), Arc::clone(&before));
        let mut write = Box::pin(async move {
            let closure = move |_: &mut Tx<'_>| {
                let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                let seen = outside.lock().unwrap();
                let committed = seen.query_row("SELECT COUNT(*) FROM tenants", [], count);
                if committed.unwrap() == 0 {
                    *before.lock().unwrap() += 1;
                }
                Ok(())
            };
            db.write_for(&large, closure).await
        });
        assert!(start(&mut write));
        writes.push(write);
    }
    let mut last = Box::pin(db.write_for(&small, |tx| tenants::create(tx, "small", NOW)));
    assert!(start(&mut last));
    held.leave.send(()).unwrap();
    last.await.unwrap();
    busy.await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(*before.lock().unwrap(), SHARE);
}
