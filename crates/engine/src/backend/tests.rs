//! Conformance of the storage backend: every trait method's round trip, what survives a reopened database,
//! and the merge rules that the traits' documentation asks for.

mod protocol;
mod signal;

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
