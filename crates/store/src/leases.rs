use std::time::Duration;
use wagate_domain::{FencingToken, SessionId, TenantId, Timestamp, WorkerId};
use crate::{db::Tx, error::StoreError};

/// The right to run a session until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease { pub session: SessionId, pub tenant: TenantId, pub worker: WorkerId, pub token: FencingToken, pub expires: Timestamp }

/// Takes up to `max` sessions that want a worker (want to run, or have an undone generation) and have none, oldest expiry first.
pub fn acquire_some(_tx: &mut Tx<'_>, _worker: &WorkerId, _max: u32, _ttl: Duration, _now: Timestamp) -> Result<Vec<Lease>, StoreError> { todo!() }
/// Renews everything this worker holds and returns it; compare tokens: a session missing here, or with another token, is lost.
pub fn renew(_tx: &mut Tx<'_>, _worker: &WorkerId, _ttl: Duration, _now: Timestamp) -> Result<Vec<Lease>, StoreError> { todo!() }
/// Gives one back; LeaseLost if it was not held any more.
pub fn release(_tx: &mut Tx<'_>, _lease: &Lease) -> Result<(), StoreError> { todo!() }
/// Gives back everything that an earlier life of this worker held (call at start, before acquire: a restart need not wait for expiry).
pub fn release_all(_tx: &mut Tx<'_>, _worker: &WorkerId) -> Result<u64, StoreError> { todo!() }
/// Who holds the session, if somebody does at `now`.
pub fn get(_tx: &mut Tx<'_>, _session: &SessionId, _now: Timestamp) -> Result<Option<Lease>, StoreError> { todo!() }
