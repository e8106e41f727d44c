use wagate_domain::{TenantId, Timestamp};
use crate::{db::Tx, error::StoreError, page::{Page, PageRequest}};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant { pub id: TenantId, pub name: String, pub created_at: Timestamp }

/// Conflict when the name is taken.
pub fn create(_tx: &mut Tx<'_>, _name: &str, _now: Timestamp) -> Result<Tenant, StoreError> { todo!() }
pub fn get(_tx: &mut Tx<'_>, _id: &TenantId) -> Result<Tenant, StoreError> { todo!() }
pub fn get_by_name(_tx: &mut Tx<'_>, _name: &str) -> Result<Option<Tenant>, StoreError> { todo!() }
pub fn list(_tx: &mut Tx<'_>, _page: &PageRequest) -> Result<Page<Tenant>, StoreError> { todo!() }
pub fn count(_tx: &mut Tx<'_>) -> Result<u64, StoreError> { todo!() }
