use wagate_domain::{ApiKeyId, TenantId, Timestamp};
use crate::{db::Tx, error::StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId, pub tenant: TenantId, pub name: String,
    /// The visible beginning of the secret.
    pub prefix: String,
    pub created_at: Timestamp, pub expires_at: Option<Timestamp>, pub revoked_at: Option<Timestamp>,
}
#[derive(Clone, Debug)]
pub struct NewApiKey { pub name: String, pub expires_at: Option<Timestamp> }
/// Who a secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyIdentity { pub tenant: TenantId, pub key: ApiKeyId, pub expires_at: Option<Timestamp> }

/// The secret (`wg_<26>_<43>`) is returned here and never again; only its SHA-256 is stored.
pub fn create(_tx: &mut Tx<'_>, _tenant: &TenantId, _new: &NewApiKey, _now: Timestamp) -> Result<(ApiKey, String), StoreError> { todo!() }
/// None: unknown, revoked or expired.
pub fn find_by_secret(_tx: &mut Tx<'_>, _secret: &str, _now: Timestamp) -> Result<Option<ApiKeyIdentity>, StoreError> { todo!() }
pub fn list(_tx: &mut Tx<'_>, _tenant: &TenantId) -> Result<Vec<ApiKey>, StoreError> { todo!() }
pub fn revoke(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &ApiKeyId, _now: Timestamp) -> Result<(), StoreError> { todo!() }
/// A new secret for the same key; the old one stops working at once.
pub fn rotate(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &ApiKeyId, _now: Timestamp) -> Result<String, StoreError> { todo!() }
