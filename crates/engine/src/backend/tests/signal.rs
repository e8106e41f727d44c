//! Keys, sessions, app state, and the device itself.

use super::*;

#[tokio::test]
async fn signal_rows_survive_a_restart() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .put_identities_batch(&arcs(&[("1@lid.0", [1; 32]), ("1:2@lid.0", [2; 32])]))
        .await
        .unwrap();
    store.put_identity("9@lid.0", [9; 32]).await.unwrap();
    store
        .put_sessions_batch(&arcs(&[("1@lid.0", Bytes::from_static(b"s1"))]))
        .await
        .unwrap();
    store.put_session("1:2@lid.0", b"s2").await.unwrap();
    store
        .put_sender_keys_batch(&arcs(&[("g::1", Bytes::from_static(b"k1"))]))
        .await
        .unwrap();
    store.put_sender_key("g::2", b"k2").await.unwrap();
    store.store_signed_prekey(3, b"signed").await.unwrap();

    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert_eq!(store.load_identity("1@lid.0").await.unwrap(), Some([1; 32]));
    assert_eq!(
        store.load_identity("1:2@lid.0").await.unwrap(),
        Some([2; 32])
    );
    assert_eq!(store.load_identity("9@lid.0").await.unwrap(), Some([9; 32]));
    for _ in 0..3 {
        assert_eq!(
            store.get_session("1@lid.0").await.unwrap().as_deref(),
            Some(b"s1".as_slice())
        );
    }
    assert!(store.has_session("1:2@lid.0").await.unwrap());
    assert!(!store.has_session("1:3@lid.0").await.unwrap());
    assert_eq!(
        store.get_sender_key("g::1").await.unwrap().as_deref(),
        Some(b"k1".as_slice())
    );
    assert_eq!(
        store.get_sender_key("g::2").await.unwrap().as_deref(),
        Some(b"k2".as_slice())
    );
    assert_eq!(
        store.load_signed_prekey(3).await.unwrap().as_deref(),
        Some(b"signed".as_slice())
    );
    assert_eq!(
        store.load_all_signed_prekeys().await.unwrap(),
        vec![(3, b"signed".to_vec())]
    );

    store.delete_identity("1@lid.0").await.unwrap();
    store.delete_session("1@lid.0").await.unwrap();
    store.delete_session("1@lid.0").await.unwrap();
    store.delete_sender_key("g::1").await.unwrap();
    store.remove_signed_prekey(3).await.unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert_eq!(store.load_identity("1@lid.0").await.unwrap(), None);
    assert_eq!(store.get_session("1@lid.0").await.unwrap(), None);
    assert_eq!(store.get_sender_key("g::1").await.unwrap(), None);
    assert_eq!(store.load_signed_prekey(3).await.unwrap(), None);
}

#[tokio::test]
async fn the_cache_never_answers_older_than_a_write() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    // Absence is remembered, and a write ends it.
    assert_eq!(store.get_session("5@lid.0").await.unwrap(), None);
    assert_eq!(store.load_identity("5@lid.0").await.unwrap(), None);
    store.put_session("5@lid.0", b"one").await.unwrap();
    assert_eq!(
        store.get_session("5@lid.0").await.unwrap().as_deref(),
        Some(b"one".as_slice())
    );
    store.put_session("5@lid.0", b"two").await.unwrap();
    assert_eq!(
        store.get_session("5@lid.0").await.unwrap().as_deref(),
        Some(b"two".as_slice())
    );
    store.put_identity("5@lid.0", [1; 32]).await.unwrap();
    store.put_identity("5@lid.0", [2; 32]).await.unwrap();
    assert_eq!(store.load_identity("5@lid.0").await.unwrap(), Some([2; 32]));
    store.delete_session("5@lid.0").await.unwrap();
    assert!(!store.has_session("5@lid.0").await.unwrap());
    assert_eq!(store.load_identity("5@lid.0").await.unwrap(), Some([2; 32]));
}

#[tokio::test]
async fn many_writers_and_readers_of_one_peer_agree_in_the_end() {
    let bench = Bench::new().await;
    let store = Arc::new(bench.backend);
    let mut tasks = tokio::task::JoinSet::new();
    for device in 0..16_u8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let address = format!("7:{device}@lid.0");
            for round in 0..20_u8 {
                store.put_session(&address, &[device, round]).await.unwrap();
                let read = store.get_session(&address).await.unwrap();
                assert_eq!(read.as_deref(), Some([device, round].as_slice()));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(store.has_signal_state_for_user("7").await.unwrap());
}

#[tokio::test]
async fn signal_state_of_a_user_is_found_by_user_not_by_prefix() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert!(!store.has_signal_state_for_user("5511").await.unwrap());
    store
        .put_session("55110@s.whatsapp.net.0", b"s")
        .await
        .unwrap();
    assert!(!store.has_signal_state_for_user("5511").await.unwrap());
    store
        .put_identity("5511:5@s.whatsapp.net.0", [7; 32])
        .await
        .unwrap();
    assert!(store.has_signal_state_for_user("5511").await.unwrap());
    assert!(store.has_signal_state_for_user("55110").await.unwrap());
}

#[tokio::test]
async fn prekeys_are_numbered_and_a_used_one_is_not_resurrected() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert_eq!(store.get_max_prekey_id().await.unwrap(), 0);
    let keys: Vec<(u32, Bytes)> = (1..=12)
        .map(|id| (id, Bytes::from(vec![u8::try_from(id).unwrap(); 3])))
        .collect();
    store.store_prekeys_batch(&keys, false).await.unwrap();
    store.store_prekey(100, b"late", true).await.unwrap();
    assert_eq!(store.get_max_prekey_id().await.unwrap(), 100);
    store.remove_prekey(5).await.unwrap();
    store.mark_prekeys_uploaded(&[4, 5, 6]).await.unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert_eq!(store.load_prekey(5).await.unwrap(), None);
    assert_eq!(
        store.load_prekey(4).await.unwrap().as_deref(),
        Some([4; 3].as_slice())
    );
    let mut some = store.load_prekeys_batch(&[4, 5, 6, 100]).await.unwrap();
    some.sort();
    assert_eq!(
        some.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [4, 6, 100]
    );
    assert_eq!(some[2].1.as_ref(), b"late");
}

fn mac(index: u8) -> AppStateMutationMAC {
    AppStateMutationMAC {
        index_mac: vec![index; 32],
        value_mac: vec![index],
    }
}

#[tokio::test]
async fn app_state_survives_a_restart() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert_eq!(store.get_latest_sync_key_id().await.unwrap(), None);
    assert_eq!(store.get_version("regular").await.unwrap().version, 0);
    for id in [b"\x00\x01", b"\x00\x02"] {
        let key = AppStateSyncKey {
            key_data: id.to_vec(),
            fingerprint: vec![3],
            timestamp: 4,
        };
        store.set_sync_key(id, key).await.unwrap();
    }
    let state = HashState {
        version: 5,
        hash: [6; 128],
        ..HashState::default()
    };
    store.set_version("regular", state).await.unwrap();

    let bench = bench.reopened().await;
    let store = &bench.backend;
    let latest = store.get_latest_sync_key_id().await.unwrap();
    assert_eq!(latest.as_deref(), Some(b"\x00\x02".as_slice()));
    let key = store.get_sync_key(b"\x00\x01").await.unwrap().unwrap();
    assert_eq!(
        (key.key_data.as_slice(), key.timestamp),
        (b"\x00\x01".as_slice(), 4)
    );
    assert!(store.get_sync_key(b"\x07").await.unwrap().is_none());
    let version = store.get_version("regular").await.unwrap();
    assert_eq!((version.version, version.hash), (5, [6; 128]));
}

#[tokio::test]
async fn mutation_macs_are_kept_by_collection() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .put_mutation_macs("regular", 5, &[mac(1), mac(2)])
        .await
        .unwrap();
    store
        .put_mutation_macs("critical", 5, &[mac(1)])
        .await
        .unwrap();

    let bench = bench.reopened().await;
    let store = &bench.backend;
    let get = async |name, index: u8| store.get_mutation_mac(name, &[index; 32]).await.unwrap();
    assert_eq!(get("regular", 2).await, Some(vec![2]));
    let wanted = [[1; 32], [2; 32], [3; 32]];
    assert_eq!(
        store
            .get_mutation_macs("regular", &wanted)
            .await
            .unwrap()
            .len(),
        2
    );
    store
        .delete_mutation_macs("regular", &[vec![2; 32]])
        .await
        .unwrap();
    assert_eq!(get("regular", 2).await, None);
    store.clear_mutation_macs("regular").await.unwrap();
    assert_eq!(get("regular", 1).await, None);
    assert_eq!(get("critical", 1).await, Some(vec![1]));
}

#[tokio::test]
async fn the_device_comes_back_as_it_was() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert!(!store.exists().await.unwrap());
    assert!(store.load().await.unwrap().is_none());
    store.create().await.unwrap();
    let mut device = wacore::store::Device::new();
    device.push_name = "Budi".to_owned();
    device.pn = Some("6281234567890:3@s.whatsapp.net".parse().unwrap());
    store.save(&device).await.unwrap();
    let bench = bench.reopened().await;
    assert!(bench.backend.exists().await.unwrap());
    let loaded = bench.backend.load().await.unwrap().unwrap();
    assert_eq!(loaded.push_name, "Budi");
    assert_eq!(loaded.pn, device.pn);
    assert_eq!(
        loaded.identity_key.private_key.serialize(),
        device.identity_key.private_key.serialize()
    );
}

#[tokio::test]
async fn a_lost_lease_refuses_writes_and_says_so() {
    let bench = Bench::new().await;
    bench.backend.put_session("1@lid.0", b"mine").await.unwrap();
    let later = NOW.plus(Duration::from_secs(60));
    let theirs = bench
        .db
        .write(move |tx| acquire(tx, "two", later))
        .await
        .unwrap();
    assert!(theirs.token > bench.lease.token);
    assert!(!bench.backend.lost().is_cancelled());
    assert!(
        bench
            .backend
            .put_session("1@lid.0", b"stale")
            .await
            .is_err()
    );
    assert!(bench.backend.lost().is_cancelled());
    let read = bench.backend.get_session("1@lid.0").await.unwrap();
    assert_eq!(read.as_deref(), Some(b"mine".as_slice()));
}
