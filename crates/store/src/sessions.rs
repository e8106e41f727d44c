use wagate_domain::{session::*, Jid, SessionId, TenantId, Timestamp};
use crate::{db::Tx, error::StoreError, leases::Lease, page::{Page, PageRequest}};

/// A number that rises with each request for a desired state.
pub type Generation = i64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId, pub tenant: TenantId, pub name: SessionName,
    pub label: Option<String>, pub user_id: Option<String>,
    pub desired: Desired, pub method: Option<LinkMethod>,
    pub generation: Generation,
    /// The newest generation that a worker has made true.
    pub generation_done: Generation,
    pub link: LinkState,
    pub challenge: Option<LinkChallenge>,
    /// Who is linked; none when nobody is.
    pub identity: Option<Identity>,
    pub last_activity: Option<Timestamp>, pub connected_at: Option<Timestamp>,
    pub created_at: Timestamp, pub updated_at: Timestamp,
}
/// The linked account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity { pub jid: Jid, pub lid: Option<Jid>, pub push_name: Option<String>, pub platform: Option<String> }
#[derive(Clone, Debug, Default)]
pub struct NewSession { /// None: the generated id is the name too.
    pub name: Option<SessionName>, pub label: Option<String>, pub user_id: Option<String> }
/// What a change does to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> { #[default] Keep, Set(T), Clear }
/// What a worker saw.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub link: Option<LinkState>, pub challenge: Patch<LinkChallenge>, pub identity: Patch<Identity>,
    pub last_activity: Option<Timestamp>, pub generation_done: Option<Generation>,
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters { pub queued: u64, pub sent: u64, pub delivered: u64, pub read: u64, pub failed: u64, pub received: u64 }

/// Conflict when the name is taken; Limit at SESSIONS_PER_TENANT_MAX. Emits session.created.
pub fn create(_tx: &mut Tx<'_>, _tenant: &TenantId, _new: &NewSession, _now: Timestamp) -> Result<Session, StoreError> { todo!() }
/// A session whose deletion was asked for is NotFound.
pub fn get(_tx: &mut Tx<'_>, _tenant: &TenantId, _name: &SessionName) -> Result<Session, StoreError> { todo!() }
/// The worker's side: also those that are to be deleted.
pub fn find(_tx: &mut Tx<'_>, _id: &SessionId) -> Result<Session, StoreError> { todo!() }
pub fn list(_tx: &mut Tx<'_>, _tenant: &TenantId, _page: &PageRequest) -> Result<Page<Session>, StoreError> { todo!() }
pub fn count(_tx: &mut Tx<'_>, _tenant: &TenantId) -> Result<u64, StoreError> { todo!() }
/// Bumps the generation. `Running` again is a restart. Emits session.deleted for `Deleted`.
pub fn set_desired(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &SessionId, _desired: Desired, _method: Option<&LinkMethod>, _now: Timestamp) -> Result<Generation, StoreError> { todo!() }
/// Fenced. Emits session.status when the link state changed, and session.qr / pairing_code / connected / disconnected / logged_out as they follow from it.
pub fn observe(_tx: &mut Tx<'_>, _lease: &Lease, _seen: &Observation, _now: Timestamp) -> Result<Session, StoreError> { todo!() }
/// Fenced: removes the rows of a deleted session, up to `limit` messages a call; true when everything is gone (the lease with it).
pub fn delete_rows(_tx: &mut Tx<'_>, _lease: &Lease, _limit: u32) -> Result<bool, StoreError> { todo!() }
pub fn counters(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &SessionId) -> Result<Counters, StoreError> { todo!() }
