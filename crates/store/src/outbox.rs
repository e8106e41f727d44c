use wagate_domain::{Event, EventSeq, SessionId, TenantId, Timestamp};
use crate::{db::Tx, error::StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent { pub seq: EventSeq, pub session: Option<SessionId>, pub event: Event, pub at: Timestamp }
/// Written when the closure ends, in this transaction (EV-1). A tenant's sequence has no gaps and is in order of commit.
pub fn append(_tx: &mut Tx<'_>, _tenant: &TenantId, _session: Option<&SessionId>, _event: Event, _now: Timestamp) -> Result<(), StoreError> { todo!() }
#[derive(Clone, Debug, Default)]
pub struct EventFilter { pub session: Option<SessionId>, /// `Event::name`s; empty: all.
    pub types: Vec<String> }
pub fn after(_tx: &mut Tx<'_>, _tenant: &TenantId, _after: EventSeq, _filter: &EventFilter, _limit: u32) -> Result<Vec<StoredEvent>, StoreError> { todo!() }
/// The newest of a tenant.
pub fn head(_tx: &mut Tx<'_>, _tenant: &TenantId) -> Result<EventSeq, StoreError> { todo!() }
/// The newest of every tenant: for the relay's tick.
pub fn heads(_tx: &mut Tx<'_>) -> Result<Vec<(TenantId, EventSeq)>, StoreError> { todo!() }
/// Forgets events older than `before`, up to `limit`.
pub fn prune(_tx: &mut Tx<'_>, _before: Timestamp, _limit: u32) -> Result<u64, StoreError> { todo!() }
