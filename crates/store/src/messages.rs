//! Message path, step 6 of 7: messages of both directions, and how their state moves.
//!
//! An outbound message is written together with its queue row, its history and its event (MP-1, EV-1),
//! with its WhatsApp id already chosen (MP-2): that is step 2. News about it is applied by rank (MP-3)
//! and only the server's word makes it `Sent` (MP-5): that is step 6. An inbound message is stored once,
//! however often it is delivered (IN-1).

mod accept;
mod apply;
mod inbound;
mod moves;
mod resend;

use std::collections::HashMap;

use wagate_domain::message::{Content, Direction, Failure, MessageState};
use wagate_domain::{Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId};

pub use accept::{Accepted, NewOutbound, accept};
pub use apply::{Applied, Update, apply, apply_many, cancel};
pub use inbound::{Inserted, NewInbound, has_inbound, insert_inbound};
pub use resend::{
    DueResends, RESENDS_MAX, Resend, note_asked_again, sent, sent_at, sessions_to_resend,
    take_due_resends,
};
pub use wagate_domain::message::Priority;

pub(crate) use moves::{
    Counts, Owner, TRACKED, Tracked, WENT_OUT, flush_counts, tracked, write_moves,
};

use crate::db::{Row, Tx, Value, params};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// Messages of a session that are looked at for [`undelivered`], the newest.
const UNDELIVERED_LOOKED_AT: i64 = 1_000;

/// One message to or from a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub tenant: TenantId,
    pub session: SessionId,
    pub session_name: SessionName,
    pub direction: Direction,
    /// The account's owner wrote it: through us, or on the phone.
    pub from_me: bool,
    pub chat: Jid,
    /// Who wrote it; none for what we send.
    pub sender: Option<Jid>,
    pub push_name: Option<String>,
    pub wa_id: WaMessageId,
    pub content: Content,
    pub state: MessageState,
    pub priority: Priority,
    pub failure: Option<Failure>,
    /// Attempts made, all of them.
    pub attempts: u32,
    /// When it was accepted, or when WhatsApp says that it was written.
    pub at: Timestamp,
    /// Not to be sent earlier.
    pub not_before: Option<Timestamp>,
    /// Not to be sent from then on.
    pub expires_at: Option<Timestamp>,
    pub sent_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// One step of an outbound message's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub state: MessageState,
    pub at: Timestamp,
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageWithHistory {
    pub message: Message,
    /// Oldest first; empty for inbound messages.
    pub history: Vec<HistoryEntry>,
}

/// Which messages of a session a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    pub chat: Option<Jid>,
    pub direction: Option<Direction>,
    pub state: Option<MessageState>,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "message" };
const SELECT: &str = "SELECT m.id, m.tenant_id, m.session_id, s.name, m.direction, m.from_me, \
    m.chat, m.sender, m.push_name, m.wa_id, m.content, m.state, m.priority, m.failure, m.attempts, \
    m.at_ms, m.sent_ms, m.delivered_ms, m.read_ms, m.updated_ms, m.not_before_ms, m.expires_ms, m.seq \
    FROM messages m JOIN sessions s ON s.id = m.session_id";

/// A tenant's message with the history of its state.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
) -> Result<MessageWithHistory, StoreError> {
    let (message, seq) = find(tx, tenant, id)?;
    let mut history: Vec<HistoryEntry> = first_entry(&message).into_iter().collect();
    history.extend(tx.query(
        "SELECT state, at_ms, failure FROM message_history \
         WHERE message_seq = $1 ORDER BY version",
        params![seq],
        |row| {
            Ok(HistoryEntry {
                state: row.parse(0)?,
                at: row.time(1)?,
                failure: row.opt_json(2)?,
            })
        },
    )?);
    Ok(MessageWithHistory { message, history })
}

/// A tenant's message without its history.
pub fn get_alone(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
) -> Result<Message, StoreError> {
    Ok(find(tx, tenant, id)?.0)
}

/// How an outbound message's life began; that is in its own row, the history has the moves.
fn first_entry(message: &Message) -> Option<HistoryEntry> {
    let state = match (message.direction, &message.sender) {
        (Direction::Inbound, _) => return None,
        (Direction::Outbound, None) => MessageState::Queued,
        // Written on the owner's phone.
        (Direction::Outbound, Some(_)) => MessageState::Sent,
    };
    Some(HistoryEntry {
        state,
        at: message.at,
        failure: None,
    })
}

/// The message and its place in the order of acceptance.
pub(crate) fn find(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
) -> Result<(Message, i64), StoreError> {
    let sql = format!("{SELECT} WHERE m.id = $1 AND m.tenant_id = $2");
    tx.query_opt(&sql, params![id, tenant], message)?
        .ok_or(NOT_FOUND)
}

/// The messages with these places in the order of acceptance.
pub(crate) fn by_seqs(tx: &mut Tx<'_>, seqs: &[i64]) -> Result<HashMap<i64, Message>, StoreError> {
    let keys: Vec<Value<'_>> = seqs.iter().map(|seq| Value::from(*seq)).collect();
    let sql = format!("{SELECT} WHERE m.seq IN ({{}})");
    let rows = tx.query_keys(&sql, params![], &keys, message)?;
    Ok(rows
        .into_iter()
        .map(|(message, seq)| (seq, message))
        .collect())
}

/// A session's messages, newest first.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    filter: &MessageFilter,
    page: &PageRequest,
) -> Result<Page<Message>, StoreError> {
    let before = match &page.after {
        Some(cursor) => cursor.parse().unwrap_or(0),
        None => i64::MAX,
    };
    let mut values = params![tenant, session, before, page.sql_limit(), page.offset].to_vec();
    let conditions = conditions(filter, &mut values);
    let rows = tx.query(
        &format!(
            "{SELECT} WHERE m.tenant_id = $1 AND m.session_id = $2 AND m.seq < $3{conditions} \
             ORDER BY m.seq DESC LIMIT $4 OFFSET $5"
        ),
        &values,
        message,
    )?;
    let page = Page::of(rows, page, |(_, seq)| seq.to_string());
    let items = page.items.into_iter().map(|(message, _)| message).collect();
    Ok(Page {
        items,
        next: page.next,
    })
}

/// How many messages [`list`] would show. Costs what it counts.
pub fn count(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    filter: &MessageFilter,
) -> Result<u64, StoreError> {
    let mut values = params![tenant, session].to_vec();
    let conditions = conditions(filter, &mut values);
    let sql = format!(
        "SELECT COUNT(*) FROM messages m WHERE m.tenant_id = $1 AND m.session_id = $2{conditions}"
    );
    tx.query_one(&sql, &values, |row| row.count(0))
}

fn conditions(filter: &MessageFilter, values: &mut Vec<Value<'_>>) -> String {
    let mut text = String::new();
    let wanted = [
        (
            "chat",
            filter
                .chat
                .as_ref()
                .map(|chat| Value::from(chat.to_string())),
        ),
        (
            "direction",
            filter
                .direction
                .map(|direction| Value::from(word(direction))),
        ),
        (
            "state",
            filter.state.map(|state| Value::from(state.as_str())),
        ),
    ];
    for (column, value) in wanted {
        if let Some(value) = value {
            values.push(value);
            text.push_str(&format!(" AND m.{column} = ${}", values.len()));
        }
    }
    text
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

fn message(row: Row<'_>) -> Result<(Message, i64), StoreError> {
    let direction = if row.text(4)? == "inbound" {
        Direction::Inbound
    } else {
        Direction::Outbound
    };
    let sender = match row.text(7)? {
        "" => None,
        _ => row.opt_parse(7)?,
    };
    let message = Message {
        id: row.parse(0)?,
        tenant: row.parse(1)?,
        session: row.parse(2)?,
        session_name: row.parse(3)?,
        direction,
        from_me: row.flag(5)?,
        chat: row.parse(6)?,
        sender,
        push_name: row.opt_string(8)?,
        wa_id: row.wa_id(9)?,
        content: row.json(10)?,
        state: row.parse(11)?,
        priority: Priority::of_rank(row.int(12)?)?,
        failure: row.opt_json(13)?,
        attempts: row.small(14)?,
        at: row.time(15)?,
        sent_at: row.opt_time(16)?,
        delivered_at: row.opt_time(17)?,
        read_at: row.opt_time(18)?,
        updated_at: row.time(19)?,
        not_before: row.opt_time(20)?,
        expires_at: row.opt_time(21)?,
    };
    Ok((message, row.int(22)?))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Sql(error.into()))
}

/// How many of a session's newest messages WhatsApp took before that time and no device has confirmed. A
/// bounded look, so that it costs the same however long the history is.
pub fn undelivered(
    tx: &mut Tx<'_>,
    session: &SessionId,
    before: Timestamp,
) -> Result<u64, StoreError> {
    tx.query_one(
        "SELECT COUNT(*) FROM (SELECT state, sent_ms, direction FROM messages \
         WHERE session_id = $1 ORDER BY seq DESC LIMIT $2) AS newest \
         WHERE state = 'sent' AND direction = 'outbound' AND sent_ms <= $3",
        params![session, UNDELIVERED_LOOKED_AT, before],
        |row| row.count(0),
    )
}
