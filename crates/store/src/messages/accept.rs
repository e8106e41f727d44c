//! Accepting a message to send: message, history, queue row, event and idempotency key in one
//! transaction (MP-1, EV-1).

use wagate_domain::limits::QUEUE_PER_SESSION_MAX;
use wagate_domain::message::{Content, Direction, MessageState};
use wagate_domain::{
    Event, Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId,
};

use super::{Message, Priority, find, to_json};
use crate::db::{Tx, params};
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
    new: NewOutbound,
    now: Timestamp,
) -> Result<Accepted, StoreError> {
    let session_name: SessionName = tx
        .query_opt(
            "SELECT name FROM sessions \
             WHERE tenant_id = $1 AND id = $2 AND desired <> 'deleted'",
            params![tenant, &new.session],
            |row| row.parse(0),
        )?
        .ok_or(StoreError::NotFound { what: "session" })?;
    let id = MessageId::generate();
    if let Some(key) = &new.idempotency
        && let Some(first) = idempotency::take(tx, tenant, &new.session, key, &id, now)?
    {
        let (message, _) = find(tx, tenant, &first)?;
        return Ok(Accepted {
            message,
            replayed: true,
        });
    }
    // MP-2: chosen and stored before any attempt.
    let wa_id = WaMessageId::generate();
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
        sent_at: None,
        delivered_at: None,
        read_at: None,
        updated_at: now,
    };
    insert(tx, &message, new.not_before.unwrap_or(now), now)?;
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

fn insert(
    tx: &mut Tx<'_>,
    message: &Message,
    due: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let chat = message.chat.to_string();
    let seq = tx.query_one(
        "INSERT INTO messages (id, tenant_id, session_id, direction, from_me, chat, sender, wa_id, \
         content, state, version, priority, attempts, at_ms, updated_ms) \
         VALUES ($1, $2, $3, 'outbound', 1, $4, '', $5, $6, 'queued', 0, $7, 0, $8, $8) \
         RETURNING seq",
        params![
            &message.id,
            &message.tenant,
            &message.session,
            chat.as_str(),
            &message.wa_id,
            to_json(&message.content)?,
            message.priority.rank(),
            now
        ],
        |row| row.int(0),
    )?;
    tx.execute(
        "INSERT INTO message_history (message_seq, version, state, at_ms) \
         VALUES ($1, 0, 'queued', $2)",
        params![seq, now],
    )?;
    queue::enqueue(tx, message, seq, &chat, due, now)?;
    // The counter last: its lock is the one that all who accept for this session meet at.
    let room = tx.execute(
        "UPDATE session_counters SET queued = queued + 1 WHERE session_id = $1 AND queued < $2",
        params![&message.session, QUEUE_PER_SESSION_MAX],
    )?;
    if room == 0 {
        Err(StoreError::Limit {
            what: "queued messages of the session",
        })
    } else {
        Ok(())
    }
}
