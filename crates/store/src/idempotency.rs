/// The caller's key and a hash of what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey { pub key: String, pub body_hash: [u8; 32] }
use wagate_domain::Timestamp;
use crate::{db::Tx, error::StoreError};
/// Forgets what is older than IDEMPOTENCY_TTL; up to `limit` rows.
pub fn prune(_tx: &mut Tx<'_>, _limit: u32, _now: Timestamp) -> Result<u64, StoreError> { todo!() }
