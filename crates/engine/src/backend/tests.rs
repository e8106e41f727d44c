//! Conformance of the storage backend: every trait method's round trip, what survives a reopened database,
//! and the merge rules that the traits' documentation asks for.

use std::time::Duration;

use bytes::Bytes;
use wacore::appstate::hash::HashState;
use wacore::appstate::processor::AppStateMutationMAC;
use wacore::store::traits::{
    AppStateSyncKey, AppSyncStore, DeviceInfo, DeviceListRecord, DeviceStore, LidPnMappingEntry,
    MsgSecretEntry, MsgSecretStore, PendingInboundKey, PendingInboundRow, ProtocolStore,
    SignalStore, TcTokenEntry,
};
use wagate_domain::{Desired, ManualClock, Timestamp, WorkerId};
use wagate_store::{DbOptions, MasterKey, Sealer, leases, sessions, tenants};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

struct Bench {
    folder: tempfile::TempDir,
    key: String,
    lease: Lease,
    clock: ManualClock,
    db: Db,
    backend: SessionBackend,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap().to_text();
        let db = Self::db(&folder, &key).await;
        let lease = db
            .write(|tx| {
                let tenant = tenants::create(tx, "tenant", NOW)?;
                let session =
                    sessions::create(tx, &tenant.id, &sessions::NewSession::default(), NOW)?;
                sessions::set_desired(tx, &tenant.id, &session.id, Desired::Running, None, NOW)?;
                acquire(tx, "one", NOW)
            })
            .await
            .unwrap();
        let clock = ManualClock::at(NOW);
        let backend = SessionBackend::new(db.clone(), lease.clone(), Arc::new(clock.clone()));
        Self {
            folder,
            key,
            lease,
            clock,
            db,
            backend,
        }
    }

    async fn db(folder: &tempfile::TempDir, key: &str) -> Db {
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        let sealer = Sealer::new(&MasterKey::parse(key).unwrap(), &[]);
        let db = Db::open(DbOptions::new(url), sealer).await.unwrap();
        db.migrate().await.unwrap();
        db
    }

    /// The same session after the process died and another began: nothing is in memory.
    async fn reopened(self) -> Self {
        let Self {
            folder,
            key,
            lease,
            clock,
            db,
            backend,
        } = self;
        drop(backend);
        db.close().await;
        let db = Self::db(&folder, &key).await;
        let backend = SessionBackend::new(db.clone(), lease.clone(), Arc::new(clock.clone()));
        Self {
            folder,
            key,
            lease,
            clock,
            db,
            backend,
        }
    }
}

fn acquire(
    tx: &mut Tx<'_>,
    worker: &str,
    now: Timestamp,
) -> std::result::Result<Lease, StoreError> {
    let worker = WorkerId::parse(worker).unwrap();
    let mut held = leases::acquire_some(tx, &worker, 1, Duration::from_secs(15), now)?;
    Ok(held.pop().expect("the session is free"))
}

fn arcs<V: Clone>(rows: &[(&str, V)]) -> Vec<(Arc<str>, V)> {
    rows.iter()
        .map(|(key, value)| (Arc::from(*key), value.clone()))
        .collect()
}

fn mapping(lid: &str, phone: &str) -> LidPnMappingEntry {
    LidPnMappingEntry {
        lid: lid.to_owned(),
        phone_number: phone.to_owned(),
        created_at: 1,
        updated_at: 2,
        learning_source: "usync".to_owned(),
    }
}

fn device_list(user: &str, devices: u32) -> DeviceListRecord {
    DeviceListRecord {
        user: user.to_owned(),
        devices: (0..devices)
            .map(|id| DeviceInfo::new(id, Some(id)))
            .collect(),
        timestamp: 7,
        phash: Some("2:abc".to_owned()),
        raw_id: Some(9),
    }
}

fn secret(id: &str, byte: u8, expires_at: i64, message_ts: i64) -> MsgSecretEntry {
    MsgSecretEntry {
        chat: Arc::from("1@lid"),
        sender: Arc::from("1@lid"),
        msg_id: Arc::from(id),
        secret: [byte; 32],
        expires_at,
        message_ts,
    }
}

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
    let mac = |index: u8| AppStateMutationMAC {
        index_mac: vec![index; 32],
        value_mac: vec![index],
    };
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
    assert_eq!(
        store.get_latest_sync_key_id().await.unwrap().as_deref(),
        Some(b"\x00\x02".as_slice())
    );
    assert_eq!(
        store
            .get_sync_key(b"\x00\x01")
            .await
            .unwrap()
            .unwrap()
            .timestamp,
        4
    );
    assert!(store.get_sync_key(b"\x07").await.unwrap().is_none());
    let version = store.get_version("regular").await.unwrap();
    assert_eq!((version.version, version.hash), (5, [6; 128]));
    assert_eq!(
        store.get_mutation_mac("regular", &[2; 32]).await.unwrap(),
        Some(vec![2])
    );
    let macs = store
        .get_mutation_macs("regular", &[[1; 32], [2; 32], [3; 32]])
        .await
        .unwrap();
    assert_eq!(macs.len(), 2);
    store
        .delete_mutation_macs("regular", &[vec![2; 32]])
        .await
        .unwrap();
    assert_eq!(
        store.get_mutation_mac("regular", &[2; 32]).await.unwrap(),
        None
    );
    store.clear_mutation_macs("regular").await.unwrap();
    assert_eq!(
        store.get_mutation_mac("regular", &[1; 32]).await.unwrap(),
        None
    );
    assert_eq!(
        store.get_mutation_mac("critical", &[1; 32]).await.unwrap(),
        Some(vec![1])
    );
}

#[tokio::test]
async fn lid_mappings_are_found_from_both_sides() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .put_lid_mapping(&mapping("100", "62811"))
        .await
        .unwrap();
    store
        .put_lid_mappings(&[mapping("200", "62822"), mapping("300", "62833")])
        .await
        .unwrap();
    // The number got another LID; then a LID moved to another number.
    store
        .put_lid_mapping(&mapping("101", "62811"))
        .await
        .unwrap();
    store
        .put_lid_mapping(&mapping("200", "62899"))
        .await
        .unwrap();
    // The old LID of a number moves on, and must not take the number's newer LID along.
    store
        .put_lid_mapping(&mapping("100", "62877"))
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert_eq!(
        store.get_pn_mapping("62811").await.unwrap().unwrap().lid,
        "101"
    );
    assert_eq!(
        store
            .get_lid_mapping("200")
            .await
            .unwrap()
            .unwrap()
            .phone_number,
        "62899"
    );
    assert!(store.get_pn_mapping("62822").await.unwrap().is_none());
    assert_eq!(
        store.get_pn_mapping("62899").await.unwrap().unwrap().lid,
        "200"
    );
    assert_eq!(store.get_all_lid_mappings().await.unwrap().len(), 4);
}

#[tokio::test]
async fn device_lists_and_group_rows_round_trip() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert!(store.get_devices("1").await.unwrap().is_none());
    store
        .update_device_lists(vec![device_list("1", 2), device_list("2", 1)])
        .await
        .unwrap();
    store.update_device_list(device_list("1", 3)).await.unwrap();
    assert_eq!(
        store.get_devices("1").await.unwrap().unwrap().devices.len(),
        3
    );
    store.delete_devices("2").await.unwrap();
    store.put_group_metadata("g@g.us", b"blob").await.unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    let list = store.get_devices("1").await.unwrap().unwrap();
    assert_eq!(
        (list.devices.len(), list.raw_id, list.phash.as_deref()),
        (3, Some(9), Some("2:abc"))
    );
    assert!(store.get_devices("2").await.unwrap().is_none());
    assert_eq!(
        store.get_group_metadata("g@g.us").await.unwrap().as_deref(),
        Some(b"blob".as_slice())
    );
    store.delete_group_metadata("g@g.us").await.unwrap();
    assert_eq!(store.get_group_metadata("g@g.us").await.unwrap(), None);
}

#[tokio::test]
async fn sender_key_devices_are_tracked_per_group() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .set_sender_key_status("g", &[("a", true), ("b", true)])
        .await
        .unwrap();
    store
        .set_sender_key_status("g", &[("b", false), ("c", true)])
        .await
        .unwrap();
    store
        .set_sender_key_status("h", &[("a", true)])
        .await
        .unwrap();
    let all = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
        pairs
            .iter()
            .map(|(jid, has)| ((*jid).to_owned(), *has))
            .collect()
    };
    let found = store.get_sender_key_devices("g").await.unwrap();
    assert_eq!(found, all(&[("a", true), ("b", false), ("c", true)]));
    store
        .delete_sender_key_device_rows(&["a", "c"])
        .await
        .unwrap();
    assert_eq!(
        store.get_sender_key_devices("g").await.unwrap(),
        all(&[("b", false)])
    );
    assert!(store.get_sender_key_devices("h").await.unwrap().is_empty());
    store.clear_sender_key_devices("g").await.unwrap();
    assert!(store.get_sender_key_devices("g").await.unwrap().is_empty());
    store
        .set_sender_key_status("h", &[("a", true)])
        .await
        .unwrap();
    store.clear_all_sender_key_devices().await.unwrap();
    assert!(store.get_sender_key_devices("h").await.unwrap().is_empty());
}

#[tokio::test]
async fn base_keys_are_compared() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store.save_base_key("1@lid.0", "M", b"key").await.unwrap();
    assert!(
        store
            .has_same_base_key("1@lid.0", "M", b"key")
            .await
            .unwrap()
    );
    assert!(
        !store
            .has_same_base_key("1@lid.0", "M", b"other")
            .await
            .unwrap()
    );
    store.delete_base_key("1@lid.0", "M").await.unwrap();
    assert!(
        !store
            .has_same_base_key("1@lid.0", "M", b"key")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn tokens_merge_by_field() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let token = async |jid: &str| store.get_tc_token(jid).await.unwrap();
    store
        .touch_tc_token_sender_timestamp("1@lid", 50)
        .await
        .unwrap();
    store
        .touch_tc_token_sender_timestamp("1@lid", 40)
        .await
        .unwrap();
    assert_eq!(token("1@lid").await.unwrap().sender_timestamp, Some(50));
    // A placeholder never blocks the first real token, whatever its time.
    store
        .store_received_tc_token("1@lid", b"real", 10)
        .await
        .unwrap();
    store
        .store_received_tc_token("1@lid", b"stale", 9)
        .await
        .unwrap();
    let merged = token("1@lid").await.unwrap();
    assert_eq!(
        (merged.token.as_slice(), merged.token_timestamp),
        (b"real".as_slice(), 10)
    );
    assert_eq!(merged.sender_timestamp, Some(50));
    store
        .store_received_tc_token("1@lid", b"newer", 11)
        .await
        .unwrap();
    assert_eq!(token("1@lid").await.unwrap().token, b"newer");

    let entry = |token_timestamp, sender_timestamp| TcTokenEntry {
        token: b"t".to_vec(),
        token_timestamp,
        sender_timestamp,
    };
    store
        .put_tc_token("2@lid", &entry(5, Some(100)))
        .await
        .unwrap();
    store
        .put_tc_token("3@lid", &entry(5, Some(5)))
        .await
        .unwrap();
    store
        .put_tc_token("4@lid", &entry(100, None))
        .await
        .unwrap();
    store.put_tc_token("5@lid", &entry(5, None)).await.unwrap();
    assert!(token("3@lid").await.is_some());
    assert_eq!(store.delete_expired_tc_tokens(50, 50).await.unwrap(), 2);
    assert!(token("3@lid").await.is_none());
    let mut left = store.get_all_tc_token_jids().await.unwrap();
    left.sort();
    assert_eq!(left, ["1@lid", "2@lid", "4@lid"]);
    store.delete_tc_token("4@lid").await.unwrap();
    assert!(
        bench
            .reopened()
            .await
            .backend
            .get_tc_token("4@lid")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_sent_message_is_taken_once() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .store_sent_message("1@lid", "M", b"first")
        .await
        .unwrap();
    // Sent again later: it sits in two spokes and is still one message.
    bench.clock.advance(Duration::from_secs(1200));
    store
        .store_sent_message("1@lid", "M", b"again")
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = Arc::new(bench.backend);
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        takers.spawn(async move { store.take_sent_message("1@lid", "M").await.unwrap() });
    }
    let mut taken = 0;
    while let Some(result) = takers.join_next().await {
        taken += usize::from(result.unwrap().is_some());
    }
    assert_eq!(taken, 1);
    assert_eq!(store.take_sent_message("2@lid", "M").await.unwrap(), None);
}

#[tokio::test]
async fn sent_messages_expire_but_never_early() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .store_sent_message("1@lid", "OLD", b"old")
        .await
        .unwrap();
    bench.clock.advance(Duration::from_secs(7200));
    let cutoff = bench.clock.now().as_secs() - 7200;
    assert_eq!(store.delete_expired_sent_messages(cutoff).await.unwrap(), 0);
    store
        .store_sent_message("1@lid", "NEW", b"new")
        .await
        .unwrap();
    bench.clock.advance(Duration::from_secs(700));
    assert_eq!(
        store
            .delete_expired_sent_messages(cutoff + 700)
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.take_sent_message("1@lid", "OLD").await.unwrap(), None);
    assert!(
        store
            .take_sent_message("1@lid", "NEW")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn pending_inbound_is_kept_until_its_commit() {
    let bench = Bench::new().await;
    let row = |id: &'static str| PendingInboundRow {
        chat: "1@lid",
        sender: "1:3@lid",
        id,
        message: b"body",
    };
    let key = |id: &'static str| PendingInboundKey {
        chat: "1@lid",
        sender: "1:3@lid",
        id,
    };
    bench
        .backend
        .store_pending_inbound_batch(&[row("A"), row("B")])
        .await
        .unwrap();
    bench
        .backend
        .store_pending_inbound("1@lid", "1:3@lid", "C", b"c")
        .await
        .unwrap();

    let bench = bench.reopened().await;
    let store = &bench.backend;
    let get = async |id| {
        store
            .get_pending_inbound("1@lid", "1:3@lid", id)
            .await
            .unwrap()
    };
    assert_eq!(get("A").await.as_deref(), Some(b"body".as_slice()));
    assert_eq!(
        store
            .get_pending_inbound("2@lid", "1:3@lid", "A")
            .await
            .unwrap(),
        None
    );
    // A committed message is gone at once, though its row goes with a later write.
    store
        .delete_pending_inbound_batch(&[key("A"), key("B")])
        .await
        .unwrap();
    assert_eq!(get("A").await, None);
    store
        .store_pending_inbound_batch(&[row("B")])
        .await
        .unwrap();
    assert_eq!(get("B").await.as_deref(), Some(b"body".as_slice()));
    store
        .delete_pending_inbound("1@lid", "1:3@lid", "C")
        .await
        .unwrap();
    store.flush().await;

    let bench = bench.reopened().await;
    let store = &bench.backend;
    for (id, there) in [("A", false), ("B", true), ("C", false)] {
        let found = store
            .get_pending_inbound("1@lid", "1:3@lid", id)
            .await
            .unwrap();
        assert_eq!(found.is_some(), there, "{id}");
    }
    assert_eq!(
        store
            .delete_expired_pending_inbound(NOW.as_secs())
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        store
            .delete_expired_pending_inbound(NOW.as_secs() + 1)
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn secrets_merge_and_expire() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let now = NOW.as_secs();
    let day = 24 * 3600;
    let entries = vec![
        secret("SHORT", 1, now + day, 11),
        secret("EVER", 2, 0, 0),
        secret("LONG", 3, now + 90 * day, 13),
    ];
    assert_eq!(store.put_msg_secrets(entries).await.unwrap(), 3);
    // A later write with a nearer deadline and an unknown time shortens and loses nothing.
    store
        .put_msg_secrets(vec![secret("LONG", 3, now + day, 0)])
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    let get = async |id| {
        store
            .get_msg_secret_with_ts("1@lid", "1@lid", id)
            .await
            .unwrap()
    };
    assert_eq!(get("SHORT").await, Some((vec![1; 32], 11)));
    assert_eq!(get("LONG").await, Some((vec![3; 32], 13)));
    assert_eq!(get("NONE").await, None);
    assert_eq!(
        store
            .get_msg_secret("1@lid", "1@lid", "EVER")
            .await
            .unwrap(),
        Some(vec![2; 32])
    );
    store.delete_expired_msg_secrets(now).await.unwrap();
    assert!(get("SHORT").await.is_some());
    store
        .delete_expired_msg_secrets(now + 20 * day)
        .await
        .unwrap();
    assert!(get("SHORT").await.is_none());
    assert!(get("LONG").await.is_some());
    store
        .delete_expired_msg_secrets(now + 100 * day)
        .await
        .unwrap();
    assert!(get("LONG").await.is_none());
    assert!(get("EVER").await.is_some());
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
