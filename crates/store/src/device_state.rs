use wagate_domain::SessionId;
use crate::{db::Tx, error::StoreError, leases::Lease};

/// What kind of state a row is; the engine numbers its kinds and never renumbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKind(pub u8);
/// One value to keep. The key is readable text (bytes: hex), the value is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put { pub kind: StateKind, pub key: String, pub value: Vec<u8> }
/// (key, value) of every row of the kind, by key.
pub fn load_all(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind) -> Result<Vec<(String, Vec<u8>)>, StoreError> { todo!() }
pub fn get(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind, _key: &str) -> Result<Option<Vec<u8>>, StoreError> { todo!() }
/// Only those that exist, in no particular order.
pub fn get_many(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind, _keys: &[String]) -> Result<Vec<(String, Vec<u8>)>, StoreError> { todo!() }
/// The keys that begin with `prefix`, in order.
pub fn keys(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind, _prefix: &str) -> Result<Vec<String>, StoreError> { todo!() }
/// Rows whose key begins with `prefix`.
pub fn scan(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind, _prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> { todo!() }
/// Fenced upserts (SL-2), durable when the write returns.
pub fn put_many(_tx: &mut Tx<'_>, _lease: &Lease, _puts: &[Put]) -> Result<(), StoreError> { todo!() }
/// Fenced: replaces values of keys that exist; the others are left out (never resurrects a row).
pub fn update_many(_tx: &mut Tx<'_>, _lease: &Lease, _puts: &[Put]) -> Result<(), StoreError> { todo!() }
pub fn delete_many(_tx: &mut Tx<'_>, _lease: &Lease, _kind: StateKind, _keys: &[String]) -> Result<u64, StoreError> { todo!() }
pub fn delete_kind(_tx: &mut Tx<'_>, _lease: &Lease, _kind: StateKind) -> Result<u64, StoreError> { todo!() }
/// All of the session's state (logout).
pub fn delete_session(_tx: &mut Tx<'_>, _lease: &Lease) -> Result<u64, StoreError> { todo!() }
/// Any state at all? (was it ever linked)
pub fn exists(_tx: &mut Tx<'_>, _session: &SessionId, _kind: StateKind) -> Result<bool, StoreError> { todo!() }
/// Seals up to `limit` values again that are under a retired key; the number done (0: finished).
pub fn reseal_some(_tx: &mut Tx<'_>, _limit: u32) -> Result<u64, StoreError> { todo!() }
