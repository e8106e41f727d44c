//! Idempotency keys: the same key and body get the first answer again, another body is refused.
//!
//! Used inside `messages::accept`, in the transaction of the message, so that two requests with one key
//! at the same time make one message.

use wagate_domain::limits::IDEMPOTENCY_TTL;
use wagate_domain::{MessageId, SessionId, TenantId, Timestamp};

use crate::db::{Tx, params};
use crate::error::StoreError;

/// A caller's key, and a hash of what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    pub body_hash: [u8; 32],
}

/// Takes the key for a new message; gives the first message when the key was used before.
pub(crate) fn take(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    key: &IdempotencyKey,
    message: &MessageId,
    now: Timestamp,
) -> Result<Option<MessageId>, StoreError> {
    // A key that is past its time counts as unused. PostgreSQL waits here for another transaction that
    // is just taking the same key.
    let taken = tx.execute(
        "INSERT INTO idempotency (tenant_id, key, body_hash, session_id, message_id, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, key) DO UPDATE SET \
         body_hash = excluded.body_hash, session_id = excluded.session_id, \
         message_id = excluded.message_id, created_ms = excluded.created_ms \
         WHERE idempotency.created_ms <= $7",
        params![
            tenant,
            &key.key,
            key.body_hash.as_slice(),
            session,
            message,
            now,
            now.minus(IDEMPOTENCY_TTL)
        ],
    )?;
    if taken > 0 {
        return Ok(None);
    }
    let (hash, first): (Vec<u8>, MessageId) = tx.query_one(
        "SELECT body_hash, message_id FROM idempotency WHERE tenant_id = $1 AND key = $2",
        params![tenant, &key.key],
        |row| Ok((row.bytes(0)?.to_vec(), row.parse(1)?)),
    )?;
    if hash == key.body_hash {
        Ok(Some(first))
    } else {
        Err(StoreError::Conflict {
            what: "the idempotency key was used with another body".into(),
        })
    }
}

/// Forgets keys past their time, at most `limit` of them.
pub fn prune(tx: &mut Tx<'_>, limit: u32, now: Timestamp) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM idempotency WHERE (tenant_id, key) IN \
         (SELECT tenant_id, key FROM idempotency WHERE created_ms <= $1 ORDER BY created_ms LIMIT $2)",
        params![now.minus(IDEMPOTENCY_TTL), limit],
    )
}
