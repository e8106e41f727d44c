//! Strangers: chats with which there was no message yet, neither sent nor received.
//!
//! Pacing lets few first messages go, and none while WhatsApp forbids them; known chats go on. What must
//! wait is put off as a head that is delayed, so that a claim, which reads the front of the queue, meets
//! the others.

use std::collections::HashSet;

use wagate_domain::{Jid, MessageId, SessionId, Timestamp};

use super::claim::make_due;
use super::{Claimed, DELAYED};
use crate::db::{Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::messages::Priority;

/// So many heads of each priority are looked at in one go: more than a claim looks at.
const WINDOW: i64 = 64;
/// How often in one transaction.
const ROUNDS: usize = 4;

/// Puts off, until then, what strangers would get, at the front of the queue.
///
/// True: a claim now finds none there, but what it makes due itself. False: there are more; call again
/// before claiming, in another transaction.
pub fn put_off_strangers(
    tx: &mut Tx<'_>,
    lease: &Lease,
    until: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    tx.fence(lease)?;
    make_due(tx, &lease.session, now)?;
    for _ in 0..ROUNDS {
        let heads = front(tx, &lease.session)?;
        let strangers = strange(tx, &lease.session, &heads)?;
        if strangers.is_empty() {
            return Ok(true);
        }
        let keys: Vec<Value<'_>> = heads
            .iter()
            .filter(|(_, chat)| strangers.contains(chat))
            .map(|(seq, _)| Value::from(*seq))
            .collect();
        let sql = "UPDATE queue SET state = $1, due_ms = $2 \
                   WHERE state < 1 AND message_seq IN ({})";
        tx.execute_rows(sql, params![DELAYED, until], ("?", 1), &keys)?;
    }
    Ok(false)
}

/// Which of these claimed messages are the first to their chats.
pub fn to_strangers(
    tx: &mut Tx<'_>,
    session: &SessionId,
    claimed: &[Claimed],
) -> Result<HashSet<MessageId>, StoreError> {
    let heads: Vec<(i64, Jid)> = claimed
        .iter()
        .map(|claimed| (claimed.seq, claimed.chat.clone()))
        .collect();
    let strangers = strange(tx, session, &heads)?;
    let first = claimed
        .iter()
        .filter(|claimed| strangers.contains(&claimed.chat));
    Ok(first.map(|claimed| claimed.message.clone()).collect())
}

/// The chats that something is being sent to, then those that come next.
pub fn next_chats(
    tx: &mut Tx<'_>,
    session: &SessionId,
    limit: u32,
) -> Result<Vec<Jid>, StoreError> {
    let mut chats: Vec<Jid> = tx.query(
        "SELECT chat FROM queue WHERE session_id = $1 AND state = 1",
        params![session],
        |row| row.parse(0),
    )?;
    chats.extend(front(tx, session)?.into_iter().map(|(_, chat)| chat));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut seen = HashSet::new();
    Ok(chats
        .into_iter()
        .filter(|chat| seen.insert(chat.clone()))
        .take(limit)
        .collect())
}

/// The first ready heads of each priority.
fn front(tx: &mut Tx<'_>, session: &SessionId) -> Result<Vec<(i64, Jid)>, StoreError> {
    let of = |rank: i64| {
        format!(
            "SELECT * FROM (SELECT q.message_seq, q.chat FROM queue q WHERE q.session_id = $1 \
             AND q.priority = {rank} AND q.state = 0 ORDER BY q.message_seq LIMIT $2) AS p{rank}"
        )
    };
    let sql = Priority::ALL
        .map(|priority| of(priority.rank()))
        .join(" UNION ALL ");
    tx.query(&sql, params![session, WINDOW], |row| {
        Ok((row.int(0)?, row.parse(1)?))
    })
}

/// Which chats of these rows of the queue are strangers. A group never is.
fn strange(
    tx: &mut Tx<'_>,
    session: &SessionId,
    heads: &[(i64, Jid)],
) -> Result<HashSet<Jid>, StoreError> {
    let people = heads.iter().filter(|(_, chat)| chat.is_user());
    let keys: Vec<Value<'_>> = people.map(|(seq, _)| Value::from(*seq)).collect();
    let found = tx.query_keys(
        "SELECT q.chat FROM queue q WHERE q.session_id = $1 AND q.message_seq IN ({}) \
         AND NOT EXISTS (SELECT 1 FROM known_chats k WHERE k.session_id = q.session_id \
         AND k.chat = q.chat) \
         AND NOT EXISTS (SELECT 1 FROM messages i WHERE i.session_id = q.session_id \
         AND i.chat = q.chat AND i.direction = 'inbound')",
        params![session],
        &keys,
        |row| row.parse(0),
    )?;
    Ok(found.into_iter().collect())
}
