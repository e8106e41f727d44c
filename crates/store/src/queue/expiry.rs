//! The end of messages whose validity is over before they could be sent.
//!
//! A claim leaves them alone; a worker's tick ends them, also those of sessions that nobody runs.

use wagate_domain::message::MessageInput;
use wagate_domain::{MessageId, SessionId, TenantId, Timestamp};

use super::admin::{end, held};
use crate::db::{Tx, Value, params};
use crate::error::StoreError;

/// Messages of one session that are past their validity, as far as one look found them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    pub tenant: TenantId,
    pub session: SessionId,
    seqs: Vec<i64>,
}

/// The messages that are past their validity and not being sent, of all sessions, at most `limit`.
pub fn overdue(tx: &mut Tx<'_>, now: Timestamp, limit: u32) -> Result<Vec<Overdue>, StoreError> {
    let rows: Vec<(TenantId, SessionId, i64)> = tx.query(
        "SELECT tenant_id, session_id, message_seq FROM queue \
         WHERE expires_ms <= $1 AND state <> 1 ORDER BY expires_ms LIMIT $2",
        params![now, limit],
        |row| Ok((row.parse(0)?, row.parse(1)?, row.int(2)?)),
    )?;
    let mut found: Vec<Overdue> = Vec::new();
    for (tenant, session, seq) in rows {
        match found.iter_mut().find(|one| one.session == session) {
            Some(one) => one.seqs.push(seq),
            None => found.push(Overdue {
                tenant,
                session,
                seqs: vec![seq],
            }),
        }
    }
    Ok(found)
}

/// Ends what is still past its validity, and gives the messages; their chats' next ones become due.
pub fn expire(
    tx: &mut Tx<'_>,
    overdue: &Overdue,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let owner = match held(tx, &overdue.tenant, &overdue.session) {
        Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let keys: Vec<Value<'_>> = overdue.seqs.iter().map(|seq| Value::from(*seq)).collect();
    // Looked at again under the lock: somebody may have sent, withdrawn or revived it since.
    let seqs = tx.query_keys(
        "SELECT message_seq FROM queue WHERE session_id = $1 AND expires_ms <= $2 \
         AND state <> 1 AND message_seq IN ({})",
        params![&overdue.session, now],
        &keys,
        |row| row.int(0),
    )?;
    end(tx, &owner, &seqs, MessageInput::Expired, now)
}
