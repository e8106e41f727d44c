//! The library's storage traits over `wagate_store::device_state`, for one session under one lease.
//!
//! Rules that hold for every method here:
//! - `Ok` means durable: `Db::write` has committed, together with whatever else waited (SL-2). Only the
//!   copy of what the library sends by itself is posted: it is durable with the next commit.
//! - Every write carries the lease's fencing token. A lost lease fails the write and raises [`Rows::lost`],
//!   upon which the device stops (SL-1).
//! - A read never answers older than a write that returned: the cache is written through, and a value
//!   read while a write was under way is not cached.

mod app_sync;
mod cache;
mod device;
mod missing;
mod msg_secret;
mod protocol;
mod ratchets;
mod sent;
mod signal;
#[cfg(test)]
pub(crate) mod tests;
mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wacore::store::error::StoreError as LibraryError;
use wagate_domain::{Clock, SessionId};
use wagate_store::device_state::{Put, StateKind};
use wagate_store::{Db, Lease, StoreError, Tx, When};

use cache::UserCache;
pub(crate) use missing::Missing;
use missing::MissingInbound;
pub(crate) use msg_secret::MessageSecret;
use msg_secret::OwnSecrets;
use protocol::PendingDeletes;
use ratchets::Ratchets;
use sent::QueuedIds;
use wheel::Wheel;

/// The numbers of the kinds of rows. Stored: never renumber, only add.
mod kind {
    use super::StateKind;

    pub(super) const DEVICE: StateKind = StateKind(1);
    pub(super) const IDENTITY: StateKind = StateKind(2);
    pub(super) const SESSION: StateKind = StateKind(3);
    pub(super) const PREKEY: StateKind = StateKind(4);
    pub(super) const SIGNED_PREKEY: StateKind = StateKind(5);
    pub(super) const SENDER_KEY: StateKind = StateKind(6);
    pub(super) const SYNC_KEY: StateKind = StateKind(7);
    pub(super) const SYNC_VERSION: StateKind = StateKind(8);
    pub(super) const MUTATION_MAC: StateKind = StateKind(9);
    pub(super) const META: StateKind = StateKind(10);
    pub(super) const SENDER_KEY_DEVICES: StateKind = StateKind(11);
    pub(super) const LID: StateKind = StateKind(12);
    pub(super) const PN: StateKind = StateKind(13);
    pub(super) const BASE_KEY: StateKind = StateKind(14);
    pub(super) const DEVICE_LIST: StateKind = StateKind(15);
    pub(super) const GROUP: StateKind = StateKind(16);
    pub(super) const TC_TOKEN: StateKind = StateKind(17);
    pub(super) const PENDING_INBOUND: StateKind = StateKind(18);
    pub(super) const MSG_SECRET_KEPT: StateKind = StateKind(19);
    pub(super) const MSG_SECRET_KEY: StateKind = StateKind(20);
    /// 32 kinds, a wheel of ten minutes each.
    pub(super) const SENT_FIRST: u8 = 32;
    /// 32 kinds, a wheel of eight days each.
    pub(super) const MSG_SECRET_FIRST: u8 = 64;
}

/// The row of [`kind::META`] that is written to see whether anything can be.
const WRITABLE: &str = "writable";

/// How often a write that must not fail is tried.
const INSIST_EVERY: Duration = Duration::from_millis(200);

pub(crate) type Result<T> = std::result::Result<T, LibraryError>;

/// One session's storage, as the library wants it.
pub(crate) struct SessionBackend {
    rows: Rows,
    clock: Arc<dyn Clock>,
    cache: UserCache,
    pending: PendingDeletes,
    pub(crate) missing: MissingInbound,
    sent: Wheel,
    /// Queued messages on their way.
    pub(crate) queued: QueuedIds,
    /// See [`SessionBackend::asked_again`].
    resend_after: Duration,
    /// Whether what was decrypted has changed sessions that are not stored.
    pub(crate) ratchets: Ratchets,
    secrets: Wheel,
    own_secrets: OwnSecrets,
    /// See [`SessionBackend::owe_inbound`].
    owed: AtomicBool,
    /// Writes of decrypted messages that the database refused, and that are tried again or were given up.
    unkept: AtomicUsize,
    closed: CancellationToken,
}

impl SessionBackend {
    pub(crate) fn new(db: Db, lease: Lease, clock: Arc<dyn Clock>, resend_after: Duration) -> Self {
        Self {
            rows: Rows {
                db,
                lease: Arc::new(lease),
                lost: CancellationToken::new(),
            },
            clock,
            cache: UserCache::default(),
            pending: PendingDeletes::default(),
            missing: MissingInbound::default(),
            sent: Wheel::new(kind::SENT_FIRST, 600),
            queued: QueuedIds::default(),
            resend_after,
            ratchets: Ratchets::default(),
            secrets: Wheel::new(kind::MSG_SECRET_FIRST, 8 * 24 * 3600),
            own_secrets: OwnSecrets::default(),
            owed: AtomicBool::new(false),
            unkept: AtomicUsize::new(0),
            closed: CancellationToken::new(),
        }
    }

    /// Raised when the lease was found to be lost.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.rows.lost
    }

    /// Inbound messages lie in the buffer and were not committed. They are not acknowledged (IN-1), so
    /// WhatsApp keeps them, and delivers them again on the next connection only.
    pub(crate) fn owe_inbound(&self) {
        self.owed.store(true, Ordering::SeqCst);
    }

    /// Whether a new connection would bring messages that could not be committed before, and can be now.
    pub(crate) async fn wants_redelivery(&self) -> bool {
        if !self.owed.load(Ordering::SeqCst) {
            return false;
        }
        let written = self.put_one(kind::META, WRITABLE.to_owned(), Vec::new());
        written.await.is_ok() && self.owed.swap(false, Ordering::SeqCst)
    }

    /// Tries a write of decrypted messages again and again while the database is away, until the device
    /// is closed.
    ///
    /// From the first refusal on no Signal session is stored: the ratchet in the library's memory is past
    /// these messages, and once it is on disk they can never be decrypted again, however often they are
    /// delivered (IN-1). When they are given up, that stays so until the device is opened anew, from what
    /// is on disk.
    async fn insist<F, A>(&self, write: F) -> Result<()>
    where
        F: Fn() -> A,
        A: Future<Output = Result<()>>,
    {
        let mut refused = false;
        loop {
            let error = match write().await {
                Ok(()) => {
                    self.unkept
                        .fetch_sub(usize::from(refused), Ordering::SeqCst);
                    return Ok(());
                }
                Err(error) => error,
            };
            if !refused {
                refused = true;
                self.unkept.fetch_add(1, Ordering::SeqCst);
            }
            if !is_transient(&error) {
                return Err(error);
            }
            tokio::select! {
                () = self.closed.cancelled() => return Err(error),
                () = self.rows.lost.cancelled() => return Err(error),
                () = tokio::time::sleep(INSIST_EVERY) => {}
            }
        }
    }

    /// Reads a key again and again while the database is away, until the device is closed.
    ///
    /// The library takes a message whose keys cannot be read for one that nobody can decrypt, and tells
    /// WhatsApp to drop it (IN-1).
    async fn patiently<R, F, A>(&self, read: F) -> Result<R>
    where
        F: Fn() -> A,
        A: Future<Output = Result<R>>,
    {
        loop {
            let error = match read().await {
                Err(error) if is_transient(&error) => error,
                done => return done,
            };
            tokio::select! {
                () = self.closed.cancelled() => return Err(error),
                () = self.rows.lost.cancelled() => return Err(error),
                () = tokio::time::sleep(INSIST_EVERY) => {}
            }
        }
    }

    /// Refuses to store Signal's sessions while decrypted messages are not kept.
    fn may_store_sessions(&self) -> Result<()> {
        if self.unkept.load(Ordering::SeqCst) == 0 {
            Ok(())
        } else {
            Err(library_error(StoreError::Busy))
        }
    }

    /// The device has hung up: nobody waits for the database on its behalf any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Writes what was put off; before the device lets go of its lease.
    pub(crate) async fn flush(&self) {
        if let Err(error) = self.flush_pending_deletes().await {
            tracing::debug!(%error, "deferred deletes were not written");
        }
    }

    async fn put_one(&self, kind: StateKind, key: String, value: Vec<u8>) -> Result<()> {
        self.put_all(vec![Put { kind, key, value }]).await
    }

    async fn put_all(&self, puts: Vec<Put>) -> Result<()> {
        self.rows.put(&puts, When::Now).await
    }

    async fn get_one(&self, kind: StateKind, key: impl Into<String>) -> Result<Option<Vec<u8>>> {
        let key = key.into();
        self.rows
            .read(move |tx, session| wagate_store::device_state::get(tx, session, kind, &key))
            .await
    }

    async fn delete_some(&self, kind: StateKind, keys: Vec<String>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.rows
            .write(move |tx, lease| {
                wagate_store::device_state::delete_many(tx, lease, kind, &keys).map(drop)
            })
            .await
    }
}

impl std::fmt::Debug for SessionBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBackend")
            .field("session", &self.rows.lease.session)
            .finish_non_exhaustive()
    }
}

/// The session's rows, read freely and written under the lease.
struct Rows {
    db: Db,
    lease: Arc<Lease>,
    lost: CancellationToken,
}

impl Rows {
    async fn read<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>, &SessionId) -> std::result::Result<R, StoreError> + Send + 'static,
    ) -> Result<R> {
        let lease = Arc::clone(&self.lease);
        self.db
            .read(move |tx| f(tx, &lease.session))
            .await
            .map_err(library_error)
    }

    async fn write<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>, &Lease) -> std::result::Result<R, StoreError> + Send + 'static,
    ) -> Result<R> {
        let lease = Arc::clone(&self.lease);
        let tenant = self.lease.tenant.clone();
        let written = self.db.write_for(&tenant, move |tx| f(tx, &lease)).await;
        written.map_err(|error| self.refused(error))
    }

    /// Upserts rows, atomically and durably.
    async fn put(&self, puts: &[Put], when: When) -> Result<()> {
        if puts.is_empty() {
            return Ok(());
        }
        let written = self.db.put_state(&self.lease, puts, when).await;
        written.map_err(|error| self.refused(error))
    }

    /// Hands rows over to be written with the next commit, without waiting for it.
    async fn post(&self, puts: &[Put]) -> Result<()> {
        let posted = self.db.post_state(&self.lease, puts).await;
        posted.map_err(library_error)
    }

    fn refused(&self, error: StoreError) -> LibraryError {
        if matches!(error, StoreError::LeaseLost) {
            self.lost.cancel();
        }
        library_error(error)
    }
}

fn library_error(error: StoreError) -> LibraryError {
    LibraryError::Database(Box::new(error))
}

/// Trying again later may succeed.
fn is_transient(error: &LibraryError) -> bool {
    match error {
        LibraryError::Database(source) => source
            .downcast_ref::<StoreError>()
            .is_some_and(StoreError::is_transient),
        _ => false,
    }
}

fn bad_data(error: impl std::error::Error + Send + Sync + 'static) -> LibraryError {
    LibraryError::Serialization(Box::new(error))
}

/// A stored value is not what this version writes.
#[derive(Debug, thiserror::Error)]
#[error("a stored {0} has the wrong form")]
struct WrongForm(&'static str);

fn wrong_form(what: &'static str) -> LibraryError {
    bad_data(WrongForm(what))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(bad_data)
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(bad_data)
}

/// Keys are text in the store: bytes are written in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |byte: u8, shift: u8| DIGITS[usize::from((byte >> shift) & 15)];
    bytes
        .iter()
        .flat_map(|byte| [digit(*byte, 4), digit(*byte, 0)])
        .collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect();
    digits.ok_or_else(|| wrong_form("hexadecimal key"))
}
