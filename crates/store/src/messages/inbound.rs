//! Messages that come from WhatsApp: stored once, before they are acknowledged (IN-1).

use std::borrow::Cow;
use std::collections::HashSet;

use wagate_domain::event::MessageReceived;
use wagate_domain::message::Content;
use wagate_domain::{Event, Jid, MessageId, SessionId, SessionName, Timestamp, WaMessageId, plant};

use super::{Counts, to_json};
use crate::db::{Dialect, Tx, Value, params, steps, values};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::outbox;

/// A message that came from WhatsApp, or was written on the owner's own phone (`from_me`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInbound {
    pub wa_id: WaMessageId,
    pub chat: Jid,
    pub sender: Jid,
    pub from_me: bool,
    pub push_name: Option<String>,
    pub content: Content,
    /// When WhatsApp says that it was written.
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    New(MessageId),
    /// It was stored before.
    Duplicate,
}

const COLUMNS: &str = "id, tenant_id, session_id, direction, from_me, chat, sender, push_name, \
                       wa_id, content, state, version, priority, attempts, at_ms, sent_ms, updated_ms";
const ARITY: usize = 17;

/// Stores messages, one answer for each in order; those that are there already are duplicates.
///
/// What the owner wrote on the phone becomes an outbound message in state `Sent`, so that its receipts
/// move it. Emits `message.received` for each new one.
pub fn insert_inbound(
    tx: &mut Tx<'_>,
    lease: &Lease,
    messages: Vec<NewInbound>,
    now: Timestamp,
) -> Result<Vec<Inserted>, StoreError> {
    let name = tx.fence(lease)?;
    let ids: Vec<MessageId> = messages.iter().map(|_| MessageId::generate()).collect();
    let mut rows = Vec::with_capacity(messages.len());
    for (id, message) in ids.iter().zip(&messages) {
        rows.push(row(lease, id, message, now)?);
    }
    let stored = store(tx, &ids, &rows)?;
    drop(rows);
    let mut counts = Counts::default();
    let mut answers = Vec::with_capacity(messages.len());
    for (id, message) in ids.into_iter().zip(messages) {
        if !stored.contains(&id) {
            answers.push(Inserted::Duplicate);
            continue;
        }
        counts.received += i64::from(!message.from_me);
        let event = received(&name, id.clone(), message);
        outbox::append(tx, &lease.tenant, Some(&lease.session), &event, now)?;
        answers.push(Inserted::New(id));
    }
    counts.write(tx, &lease.session);
    Ok(answers)
}

/// Writes the rows that are not there yet, and gives their ids.
fn store(
    tx: &mut Tx<'_>,
    ids: &[MessageId],
    rows: &[Vec<Value<'_>>],
) -> Result<HashSet<MessageId>, StoreError> {
    let mut stored = HashSet::with_capacity(rows.len());
    if tx.dialect() == Dialect::Sqlite {
        // It would keep what it returns in a table made for it; what it changed it says anyway.
        for (id, row) in ids.iter().zip(rows) {
            let head = format!("INSERT INTO messages ({COLUMNS})");
            if tx.insert_rows(
                &head,
                ARITY,
                "ON CONFLICT DO NOTHING",
                std::slice::from_ref(row),
            )? > 0
            {
                stored.insert(id.clone());
            }
        }
        return Ok(stored);
    }
    let template = format!("({})", ["?"; ARITY].join(", "));
    for step in steps(rows) {
        let sql = format!(
            "INSERT INTO messages ({COLUMNS}) VALUES {} ON CONFLICT DO NOTHING RETURNING id",
            values(&template, step.len(), 1)
        );
        let flat: Vec<Value<'_>> = step.iter().flatten().cloned().collect();
        stored.extend(tx.query(&sql, &flat, |row| row.parse(0))?);
    }
    Ok(stored)
}

/// Whether a message that somebody wrote is stored, under any of these addresses of chat and writer.
pub fn has_inbound(
    tx: &mut Tx<'_>,
    session: &SessionId,
    chats: &[Jid],
    senders: &[Jid],
    wa_id: &WaMessageId,
) -> Result<bool, StoreError> {
    for (chat, sender) in chats
        .iter()
        .flat_map(|chat| senders.iter().map(move |sender| (chat, sender)))
    {
        let found = tx.query_opt(
            "SELECT 1 FROM messages WHERE session_id = $1 AND chat = $2 AND sender = $3 \
             AND wa_id = $4 AND direction = 'inbound'",
            params![session, chat, &sender.to_bare(), wa_id],
            |_| Ok(()),
        )?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn row<'a>(
    lease: &'a Lease,
    id: &'a MessageId,
    message: &'a NewInbound,
    now: Timestamp,
) -> Result<Vec<Value<'a>>, StoreError> {
    let (direction, state) = if message.from_me {
        ("outbound", "sent")
    } else {
        ("inbound", "received")
    };
    let sent = message.from_me.then_some(message.at);
    Ok(vec![
        id.into(),
        (&lease.tenant).into(),
        (&lease.session).into(),
        direction.into(),
        message.from_me.into(),
        (&message.chat).into(),
        (&message.sender.to_bare()).into(),
        message.push_name.as_deref().map(storable).into(),
        if plant::is("inbound_not_deduped") {
            Value::Text(Cow::Owned(format!("{}-{id}", message.wa_id)))
        } else {
            storable(message.wa_id.as_str())
        },
        to_json(&message.content)?.into(),
        state.into(),
        0_i64.into(),
        1_i64.into(),
        0_i64.into(),
        message.at.into(),
        sent.into(),
        now.into(),
    ])
}

/// PostgreSQL stores no NUL in a text, and a stranger may send one: a message that cannot be stored
/// would be delivered again for ever. JSON escapes them by itself.
fn storable(text: &str) -> Value<'_> {
    if text.contains('\0') {
        Value::Text(Cow::Owned(text.replace('\0', "\u{fffd}")))
    } else {
        Value::Text(Cow::Borrowed(text))
    }
}

fn received(session: &SessionName, id: MessageId, message: NewInbound) -> Event {
    Event::MessageReceived(Box::new(MessageReceived {
        session: session.clone(),
        message: id,
        wa_message_id: message.wa_id,
        chat: message.chat,
        sender: message.sender,
        from_me: message.from_me,
        push_name: message.push_name,
        content: message.content,
        at: message.at,
    }))
}
