//! Device state: what was put is read back, sealed at rest and bound to its place (SL-2).

use wagate_store::device_state::{self, Put, StateKind};
use wagate_store::{Db, Lease, MasterKey, Sealer, StoreError, When};

use crate::support::{Fixture, after};

contract!(
    values_read_back_by_key_and_prefix,
    an_update_never_brings_a_row_back,
    values_are_sealed_at_rest_and_bound_to_their_place,
    a_rotated_master_key_reads_the_old_and_seals_again,
    a_large_batch_is_one_write,
    a_lost_lease_refuses_its_own_rows_only,
    what_is_posted_is_written_without_being_waited_for,
);

const KIND: StateKind = StateKind(3);

fn put(key: &str, value: &[u8]) -> Put {
    Put {
        kind: KIND,
        key: key.into(),
        value: value.to_vec(),
    }
}

async fn store(f: &Fixture, lease: &Lease, puts: Vec<Put>) {
    let lease = lease.clone();
    f.write(move |tx| device_state::put_many(tx, &lease, &puts))
        .await;
}

async fn all(f: &Fixture, lease: &Lease) -> Vec<(String, Vec<u8>)> {
    let session = lease.session.clone();
    f.read(move |tx| device_state::load_all(tx, &session, KIND))
        .await
}

async fn values_read_back_by_key_and_prefix(f: Fixture) {
    let (_, lease) = f.running().await;
    let puts = vec![
        put("a:1", b"one"),
        put("a:2", b"two"),
        put("b:1", b""),
        put("a:1", b"newer"),
        Put {
            kind: StateKind(4),
            ..put("a:1", b"other kind")
        },
    ];
    store(&f, &lease, puts).await;
    let session = lease.session.clone();
    let (one, none, prefix, some, keys, there, not_there) = f
        .read(move |tx| {
            Ok((
                device_state::get(tx, &session, KIND, "a:1")?,
                device_state::get(tx, &session, KIND, "a:9")?,
                device_state::scan(tx, &session, KIND, "a:")?,
                device_state::get_many(
                    tx,
                    &session,
                    KIND,
                    &["b:1".into(), "x".into(), "a:2".into()],
                )?,
                device_state::keys(tx, &session, KIND, "")?,
                device_state::exists(tx, &session, KIND)?,
                device_state::exists(tx, &session, StateKind(9))?,
            ))
        })
        .await;
    assert_eq!((one, none), (Some(b"newer".to_vec()), None));
    assert_eq!(
        prefix,
        [
            ("a:1".into(), b"newer".to_vec()),
            ("a:2".into(), b"two".to_vec())
        ]
    );
    assert_eq!(some.len(), 2);
    assert_eq!(keys, ["a:1", "a:2", "b:1"]);
    assert!(there && !not_there);
    let held = lease.clone();
    let deleted = f
        .write(move |tx| device_state::delete_many(tx, &held, KIND, &["a:1".into(), "x".into()]))
        .await;
    assert_eq!(deleted, 1);
    let held = lease.clone();
    assert_eq!(
        f.write(move |tx| device_state::delete_kind(tx, &held, KIND))
            .await,
        2
    );
    assert!(all(&f, &lease).await.is_empty());
    assert_eq!(
        f.write(move |tx| device_state::delete_session(tx, &lease))
            .await,
        1
    );
}

async fn an_update_never_brings_a_row_back(f: Fixture) {
    let (_, lease) = f.running().await;
    store(&f, &lease, vec![put("a", b"1")]).await;
    let held = lease.clone();
    let updates = vec![put("a", b"2"), put("gone", b"2")];
    f.write(move |tx| device_state::update_many(tx, &held, &updates))
        .await;
    assert_eq!(all(&f, &lease).await, [("a".into(), b"2".to_vec())]);
}

async fn values_are_sealed_at_rest_and_bound_to_their_place(f: Fixture) {
    let (_, lease) = f.running().await;
    let secret = b"the quick brown private key of the session";
    store(&f, &lease, vec![put("a", secret), put("b", secret)]).await;
    if let Some(path) = f.options.url.strip_prefix("sqlite:") {
        for file in [path.to_owned(), format!("{path}-wal")] {
            let bytes = std::fs::read(file).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    } else {
        // No row's value contains the plain bytes.
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let check = format!(
            "CREATE TABLE plain (n BIGINT CHECK (n = 0)); INSERT INTO plain SELECT COUNT(*) \
             FROM device_state WHERE position('\\x{hex}'::bytea in value) > 0"
        );
        f.raw(&check).unwrap();
    }
    // Copied to another key, a value does not open: neither replay nor mix-up.
    f.raw(
        "UPDATE device_state SET value = (SELECT value FROM device_state WHERE key = 'b') \
         WHERE key = 'a'",
    )
    .unwrap();
    let session = lease.session.clone();
    let moved =
        f.db.read(move |tx| device_state::get(tx, &session, KIND, "a"))
            .await;
    assert!(matches!(moved, Err(StoreError::Sealed)));
    // Nor with another master key.
    let stranger = Sealer::new(&MasterKey::generate().unwrap(), &[]);
    let db = Db::open(f.options.clone(), stranger).await.unwrap();
    let session = lease.session.clone();
    let foreign = db
        .read(move |tx| device_state::get(tx, &session, KIND, "b"))
        .await;
    assert!(matches!(foreign, Err(StoreError::Sealed)));
}

async fn a_rotated_master_key_reads_the_old_and_seals_again(f: Fixture) {
    let (_, lease) = f.running().await;
    store(
        &f,
        &lease,
        (0..25).map(|n| put(&format!("{n:02}"), &[n])).collect(),
    )
    .await;
    let before = all(&f, &lease).await;
    let key = MasterKey::generate().unwrap();
    let both = Sealer::new(&key, std::slice::from_ref(&f.key));
    let db = Db::open(f.options.clone(), both).await.unwrap();
    let session = lease.session.clone();
    let read = db
        .read(move |tx| device_state::load_all(tx, &session, KIND))
        .await
        .unwrap();
    assert_eq!(read, before);
    let mut cursor = None;
    loop {
        let after = cursor.clone();
        cursor = db
            .write(move |tx| device_state::reseal_some(tx, after.as_ref(), 10))
            .await
            .unwrap();
        if cursor.is_none() {
            break;
        }
    }
    // The old key is not needed any more, and useless.
    let only = Db::open(f.options.clone(), Sealer::new(&key, &[]))
        .await
        .unwrap();
    let session = lease.session.clone();
    let read = only
        .read(move |tx| device_state::load_all(tx, &session, KIND))
        .await
        .unwrap();
    assert_eq!(read, before);
    let session = lease.session.clone();
    let old =
        f.db.read(move |tx| device_state::load_all(tx, &session, KIND))
            .await;
    assert!(matches!(old, Err(StoreError::Sealed)));
}

async fn a_large_batch_is_one_write(f: Fixture) {
    let (_, lease) = f.running().await;
    let prekeys: Vec<Put> = (0..812)
        .map(|n| put(&format!("{n:08}"), &[7; 70]))
        .collect();
    store(&f, &lease, prekeys.clone()).await;
    let keys: Vec<String> = prekeys.iter().map(|put| put.key.clone()).collect();
    let (session, wanted) = (lease.session.clone(), keys.clone());
    let got = f
        .read(move |tx| device_state::get_many(tx, &session, KIND, &wanted))
        .await;
    assert_eq!(got.len(), 812);
    // All or nothing: a stale lease in the same closure undoes what came before it.
    let stale = lease.clone();
    f.acquire("w2", after(20)).await;
    let refused =
        f.db.write(move |tx| device_state::put_many(tx, &stale, &[put("new", b"x")]))
            .await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)));
    assert_eq!(all(&f, &lease).await.len(), 812);
}

async fn a_lost_lease_refuses_its_own_rows_only(f: Fixture) {
    let (_, stale) = f.running().await;
    let held = f.acquire("w2", after(16)).await.pop().unwrap();
    assert!(held.token > stale.token);
    let mine = [put("mine", b"1"), put("mine", b"2")];
    let late = [put("late", b"x"), put("mine", b"x")];
    // Handed over together, and on SQLite written by one statement.
    let (mine, late, more) = tokio::join!(
        f.db.put_state(&held, &mine, When::Now),
        f.db.put_state(&stale, &late, When::Soon),
        f.write({
            let held = held.clone();
            move |tx| device_state::put_many(tx, &held, &[put("more", b"3")])
        }),
    );
    mine.unwrap();
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    let () = more;
    assert_eq!(
        all(&f, &held).await,
        [
            ("mine".into(), b"2".to_vec()),
            ("more".into(), b"3".to_vec())
        ]
    );
}

async fn what_is_posted_is_written_without_being_waited_for(f: Fixture) {
    let (_, lease) = f.running().await;
    let other = f.another().await;
    for value in [b"1", b"2"] {
        other
            .post_state(&lease, &[put("posted", value)])
            .await
            .unwrap();
    }
    // Nothing is wanted now, and yet it is written.
    other
        .put_state(&lease, &[put("soon", b"3")], When::Soon)
        .await
        .unwrap();
    // Finishes what was handed over.
    other.close().await;
    let rows = all(&f, &lease).await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[1], ("soon".into(), b"3".to_vec()));
}
