//! Accepting a message to send: message, history, queue row, event and idempotency key in one
//! transaction (MP-1, EV-1).

use wagate_domain::message::{Content, Direction, MessageState};
use wagate_domain::{
    Event, Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId, plant,
};

use super::{Counts, Message, Priority, find, to_json};
use crate::db::{Dialect, Tx, params};
use crate::error::StoreError;
use crate::idempotency::{self, IdempotencyKey};
use crate::{outbox, queue};

/// A message to send.
#[derive(Clone, Debug)]
pub struct NewOutbound {
    pub session: SessionId,
    pub chat: Jid,
    pub content: Content,
    pub priority: Priority,
    /// Not to be sent earlier.
    pub not_before: Option<Timestamp>,
    /// Not to be sent from then on: it ends expired.
    pub expires_at: Option<Timestamp>,
    pub idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub message: Message,
    /// The idempotency key was used before; this is the message of that time.
    pub replayed: bool,
}

/// Accepts a message. Emits `message.queued`.
///
/// [`StoreError::Conflict`] when the idempotency key was used with another body, [`StoreError::Limit`]
/// when the session's queue is full, [`StoreError::NotFound`] when there is no such session.
pub fn accept(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    mut new: NewOutbound,
    now: Timestamp,
) -> Result<Accepted, StoreError> {
    if plant::is("validity_ignored") {
        new.expires_at = None;
    }
    let id = MessageId::generate();
    if let Some(key) = &new.idempotency
        && !plant::is("key_ignored")
        && let Some(first) = idempotency::take(tx, tenant, &new.session, key, &id, now)?
    {
        // Its message may have been deleted since: then there is no first answer to give.
        let (message, _) = find(tx, tenant, &first).map_err(|error| match error {
            StoreError::NotFound { .. } => StoreError::Conflict {
                what: "the idempotency key belongs to a message that was deleted".into(),
            },
            other => other,
        })?;
        return Ok(Accepted {
            message,
            replayed: true,
        });
    }
    // MP-2: chosen and stored before any attempt.
    let wa_id = WaMessageId::generate();
    let (seq, session_name) = insert(tx, tenant, &id, &wa_id, &new, now)?;
    let message = Message {
        id,
        tenant: tenant.clone(),
        session: new.session,
        session_name,
        direction: Direction::Outbound,
        from_me: true,
        chat: new.chat,
        sender: None,
        push_name: None,
        wa_id,
        content: new.content,
        state: MessageState::Queued,
        priority: new.priority,
        failure: None,
        attempts: 0,
        at: now,
        not_before: new.not_before,
        expires_at: new.expires_at,
        sent_at: None,
        delivered_at: None,
        read_at: None,
        updated_at: now,
    };
    if plant::nth("answer_before_commit", 7) {
        tx.execute("DELETE FROM messages WHERE seq = $1", params![seq])?;
        return Ok(Accepted {
            message,
            replayed: false,
        });
    }
    queue::enqueue(tx, &message, seq, now)?;
    // Refused at the end of the closure when the queue is full.
    Counts {
        queued: 1,
        ..Counts::default()
    }
    .write(tx, &message.session);
    let event = Event::MessageQueued {
        session: message.session_name.clone(),
        message: message.id.clone(),
        chat: message.chat.clone(),
    };
    outbox::append(tx, tenant, Some(&message.session), &event, now)?;
    Ok(Accepted {
        message,
        replayed: false,
    })
}

const INSERT: &str = "INSERT INTO messages (id, tenant_id, session_id, direction, from_me, chat, sender, wa_id, \
     content, state, version, priority, attempts, at_ms, updated_ms, not_before_ms, expires_ms)";
/// Its values but for tenant and session.
const REST: &str = "'outbound', 1, CAST($4 AS TEXT), '', CAST($5 AS TEXT), CAST($6 AS TEXT), 'queued', 0, \
     CAST($7 AS BIGINT), 0, CAST($8 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), CAST($10 AS BIGINT)";
const THERE: &str = "tenant_id = $1 AND id = $2 AND desired <> 'deleted'";

/// Writes the row, if the tenant has such a session; gives its place in the order of acceptance and the
/// session's name. The history begins with the row itself.
fn insert(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
    wa_id: &WaMessageId,
    new: &NewOutbound,
    now: Timestamp,
) -> Result<(i64, SessionName), StoreError> {
    let chat = new.chat.to_string();
    let content = to_json(&new.content)?;
    let values = params![
        tenant,
        &new.session,
        id,
        &chat,
        wa_id,
        &content,
        new.priority.rank(),
        now,
        new.not_before,
        new.expires_at
    ];
    let not_found = StoreError::NotFound { what: "session" };
    if tx.dialect() == Dialect::Postgres {
        // In one statement, since the session may be deleted meanwhile.
        let sql = format!(
            "{INSERT} SELECT CAST($3 AS TEXT), tenant_id, id, {REST} FROM sessions WHERE {THERE} \
             RETURNING seq, (SELECT name FROM sessions WHERE sessions.id = session_id)"
        );
        let inserted = tx.query_opt(&sql, values, |row| Ok((row.int(0)?, row.parse(1)?)))?;
        return inserted.ok_or(not_found);
    }
    // SQLite would keep what it returns in a table made for it, which costs more than asking before.
    let sql = format!("SELECT name FROM sessions WHERE {THERE}");
    let name = tx.query_opt(&sql, params![tenant, &new.session], |row| row.parse(0))?;
    let name = name.ok_or(not_found)?;
    let sql = format!("{INSERT} VALUES ($3, $1, $2, {REST})");
    tx.execute(&sql, values)?;
    Ok((tx.last_insert_id()?, name))
}
