//! Messages that ended failed or expired and can be tried again, with the reason.
//!
//! A row comes and goes with the move of its message, in the same transaction: see [`note`].

use wagate_domain::{SessionId, TenantId, Timestamp};

use crate::db::{Tx, Value, params};
use crate::error::StoreError;
use crate::messages::{Message, Owner, Tracked, by_seqs};
use crate::page::{Page, PageRequest};

/// A message that was not sent, and will not be unless somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub message: Message,
    /// The failure's code, or `expired`.
    pub code: String,
    /// When it ended.
    pub at: Timestamp,
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    pub session: Option<SessionId>,
    pub code: Option<String>,
}

/// Keeps the table in step with moves that were just written.
pub(crate) fn note(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    messages: &[&Tracked],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut ended = Vec::new();
    let mut gone = Vec::new();
    for message in messages {
        match (message.was_dead, message.dead_code()) {
            (false, Some(code)) => {
                let row = params![message.seq, owner.tenant, owner.session, code, now];
                ended.push(row.to_vec());
            }
            (true, None) => gone.push(Value::from(message.seq)),
            (true, Some(_)) | (false, None) => {}
        }
    }
    if !ended.is_empty() {
        let head = "INSERT INTO dead_letters (message_seq, tenant_id, session_id, code, at_ms)";
        tx.insert_rows(head, 5, "ON CONFLICT DO NOTHING", &ended)?;
    }
    if !gone.is_empty() {
        let sql = "DELETE FROM dead_letters WHERE message_seq IN ({})";
        tx.execute_rows(sql, params![], ("?", 1), &gone)?;
    }
    Ok(())
}

/// A tenant's dead letters, the last accepted first.
pub fn dead(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    filter: &DeadFilter,
    page: &PageRequest,
) -> Result<Page<DeadLetter>, StoreError> {
    let before = match &page.after {
        Some(cursor) => cursor.parse().unwrap_or(0),
        None => i64::MAX,
    };
    let rows = find(tx, tenant, filter, (before, "<", "DESC"), page.sql_limit())?;
    let page = Page::of(rows, page, |row| row.0.to_string());
    let seqs: Vec<i64> = page.items.iter().map(|row| row.0).collect();
    let mut messages = by_seqs(tx, &seqs)?;
    let items = page.items.into_iter().filter_map(|(seq, _, code, at)| {
        let message = messages.remove(&seq)?;
        Some(DeadLetter { message, code, at })
    });
    Ok(Page {
        items: items.collect(),
        next: page.next,
    })
}

/// Where the message stands, its session, why it is here, and since when.
type Row = (i64, SessionId, String, Timestamp);

/// Dead letters behind a place, in the direction that the operator and the word say.
pub(super) fn find(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    filter: &DeadFilter,
    (from, behind, order): (i64, &str, &str),
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let mut values = params![tenant, from, limit].to_vec();
    let mut conditions = String::new();
    for (column, value) in [
        ("session_id", filter.session.as_ref().map(Value::from)),
        ("code", filter.code.as_ref().map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            conditions.push_str(&format!(" AND d.{column} = ${}", values.len()));
        }
    }
    tx.query(
        &format!(
            "SELECT d.message_seq, d.session_id, d.code, d.at_ms FROM dead_letters d \
             JOIN sessions s ON s.id = d.session_id \
             WHERE d.tenant_id = $1 AND d.message_seq {behind} $2 AND s.desired <> 'deleted'\
             {conditions} ORDER BY d.message_seq {order} LIMIT $3"
        ),
        &values,
        |row| Ok((row.int(0)?, row.parse(1)?, row.string(2)?, row.time(3)?)),
    )
}
