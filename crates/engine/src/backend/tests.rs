//! Conformance of the storage backend: every trait method's round trip, what survives a reopened database,
//! and the merge rules that the traits' documentation asks for.

mod away;
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
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// A database with one session that is held, and the backend for it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    key: String,
    pub(crate) lease: Lease,
    pub(crate) clock: ManualClock,
    pub(crate) db: Db,
    backend: SessionBackend,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// On a database that is opened in another way than usual.
    async fn with(change: impl FnOnce(&mut DbOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap().to_text();
        let db = Self::db(&folder, &key, change).await;
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
        let backend = SessionBackend::new(
            db.clone(),
            lease.clone(),
            Arc::new(clock.clone()),
            RESEND_AFTER,
        );
        Self {
            folder,
            key,
            lease,
            clock,
            db,
            backend,
        }
    }

    async fn db(folder: &tempfile::TempDir, key: &str, change: impl FnOnce(&mut DbOptions)) -> Db {
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        let sealer = Sealer::new(&MasterKey::parse(key).unwrap(), &[]);
        let mut options = DbOptions::new(url);
        change(&mut options);
        let db = Db::open(options, sealer).await.unwrap();
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
        let db = Self::db(&folder, &key, |_| {}).await;
        let backend = SessionBackend::new(
            db.clone(),
            lease.clone(),
            Arc::new(clock.clone()),
            RESEND_AFTER,
        );
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

fn row(id: &'static str) -> PendingInboundRow<'static> {
    PendingInboundRow {
        chat: "1@lid",
        sender: "1:3@lid",
        id,
        message: b"body",
    }
}

async fn is_pending(store: &SessionBackend, id: &str) -> bool {
    let found = store
        .get_pending_inbound("1@lid", "1:3@lid", id)
        .await
        .unwrap();
    assert!(found.as_deref().is_none_or(|message| message == b"body"));
    found.is_some()
}
