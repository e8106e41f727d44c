//! The outbox: every change that a tenant can see, written in the transaction of the change (EV-1).
//!
//! A tenant's events are numbered 1, 2, 3 … in order of commit. The number comes from the tenant's row
//! in `outbox_heads`, whose lock lasts until the commit: a reader that has seen a number has seen every
//! smaller one, also on PostgreSQL, where a sequence would let a later number commit first. Events are
//! kept in memory while the closure runs and written at its end, so that the lock is short.

use std::collections::BTreeMap;

use wagate_domain::{Event, EventSeq, SessionId, TenantId, Timestamp, plant};

use crate::db::{Dialect, Row, Tx, Value, params};
use crate::error::StoreError;

/// Event types that a filter may name; there are fewer.
const TYPES_MAX: usize = 64;

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub seq: EventSeq,
    pub session: Option<SessionId>,
    pub event: Event,
    pub at: Timestamp,
}

/// An event that waits for the end of its closure.
#[derive(Debug)]
pub(crate) struct Pending {
    tenant: TenantId,
    session: Option<SessionId>,
    name: &'static str,
    json: String,
    at: Timestamp,
}

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub session: Option<SessionId>,
    /// Names as [`Event::name`] gives them; empty means all.
    pub types: Vec<String>,
}

/// Adds an event; it is stored when the closure ends, with the changes made there or not at all.
pub fn append(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: Option<&SessionId>,
    event: &Event,
    now: Timestamp,
) -> Result<(), StoreError> {
    if plant::nth("event_skipped", 10) {
        return Ok(());
    }
    let json = serde_json::to_string(event).map_err(|error| StoreError::Sql(error.into()))?;
    tx.events.push(Pending {
        tenant: tenant.clone(),
        session: session.cloned(),
        name: event.name(),
        json,
        at: now,
    });
    Ok(())
}

/// Writes what [`append`] collected.
pub(crate) fn flush(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.events.is_empty() {
        return Ok(());
    }
    // By tenant, in one order, so that two transactions never wait for each other's heads.
    let mut tenants: BTreeMap<TenantId, Vec<Pending>> = BTreeMap::new();
    for pending in std::mem::take(&mut tx.events) {
        tenants
            .entry(pending.tenant.clone())
            .or_default()
            .push(pending);
    }
    for (tenant, events) in &tenants {
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let last = take_numbers(tx, tenant, count)?;
        let rows: Vec<Vec<Value<'_>>> = (last - count + 1..)
            .zip(events)
            .map(|(seq, event)| {
                let session = event.session.as_ref();
                params![tenant, seq, session, event.name, &event.json, event.at].to_vec()
            })
            .collect();
        let head = "INSERT INTO outbox (tenant_id, seq, session_id, type, event, at_ms)";
        tx.insert_rows(head, 6, "", &rows)?;
    }
    Ok(())
}

/// Takes a tenant's next `count` numbers, and gives the last of them.
fn take_numbers(tx: &mut Tx<'_>, tenant: &TenantId, count: i64) -> Result<i64, StoreError> {
    if tx.dialect() == Dialect::Postgres {
        return tx.query_one(
            "INSERT INTO outbox_heads (tenant_id, seq) VALUES ($1, $2) ON CONFLICT (tenant_id) \
             DO UPDATE SET seq = outbox_heads.seq + excluded.seq RETURNING seq",
            params![tenant, count],
            |row| row.int(0),
        );
    }
    // SQLite would keep what it returns in a table made for it, which costs more than asking before.
    let last = head(tx, tenant)?.0 + count;
    let sql = "UPDATE outbox_heads SET seq = $2 WHERE tenant_id = $1";
    if tx.execute(sql, params![tenant, last])? == 0 {
        let sql = "INSERT INTO outbox_heads (tenant_id, seq) VALUES ($1, $2)";
        tx.execute(sql, params![tenant, last])?;
    }
    Ok(last)
}

/// The next events behind `after`, oldest first, at most `limit`.
pub fn after(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: EventSeq,
    filter: &EventFilter,
    limit: u32,
) -> Result<Vec<StoredEvent>, StoreError> {
    if filter.types.len() > TYPES_MAX {
        return Err(StoreError::Limit {
            what: "event types of a filter",
        });
    }
    let mut sql = String::from(
        "SELECT seq, session_id, event, at_ms FROM outbox WHERE tenant_id = $1 AND seq > $2",
    );
    let mut values = params![tenant, after, limit].to_vec();
    if let Some(session) = &filter.session {
        values.push(session.into());
        sql.push_str(" AND session_id = $4");
    }
    if !filter.types.is_empty() {
        let first = values.len() + 1;
        let places: Vec<String> = (first..first + filter.types.len())
            .map(|place| format!("${place}"))
            .collect();
        sql.push_str(&format!(" AND type IN ({})", places.join(", ")));
        values.extend(filter.types.iter().map(Value::from));
    }
    sql.push_str(" ORDER BY seq LIMIT $3");
    tx.query(&sql, &values, stored)
}

/// The number of a tenant's newest event; 0 when there was none.
pub fn head(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<EventSeq, StoreError> {
    let sql = "SELECT seq FROM outbox_heads WHERE tenant_id = $1";
    let seq = tx.query_opt(sql, params![tenant], |row| row.int(0))?;
    Ok(EventSeq(seq.unwrap_or(0)))
}

/// Every tenant's newest number: what the relay's tick compares with what it has passed on.
pub fn heads(tx: &mut Tx<'_>) -> Result<Vec<(TenantId, EventSeq)>, StoreError> {
    tx.query(
        "SELECT tenant_id, seq FROM outbox_heads",
        params![],
        |row| Ok((row.parse(0)?, EventSeq(row.int(1)?))),
    )
}

/// Forgets events older than `before`, at most `limit` of them: of each tenant from its first one on, up
/// to one that is to be kept.
pub fn prune(tx: &mut Tx<'_>, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let due: Vec<TenantId> = tx.query(
        "SELECT h.tenant_id FROM outbox_heads h WHERE (SELECT o.at_ms FROM outbox o \
         WHERE o.tenant_id = h.tenant_id ORDER BY o.seq LIMIT 1) < $1 LIMIT $2",
        params![before, limit],
        |row| row.parse(0),
    )?;
    let limit = u64::from(limit);
    let mut pruned = 0;
    for tenant in due {
        if pruned >= limit {
            break;
        }
        let left = i64::try_from(limit - pruned).unwrap_or(i64::MAX);
        pruned += tx.execute(
            "DELETE FROM outbox WHERE tenant_id = $1 AND at_ms < $2 AND seq IN \
             (SELECT o.seq FROM outbox o WHERE o.tenant_id = $1 ORDER BY o.seq LIMIT $3)",
            params![&tenant, before, left],
        )?;
    }
    Ok(pruned)
}

fn stored(row: Row<'_>) -> Result<StoredEvent, StoreError> {
    Ok(StoredEvent {
        seq: EventSeq(row.int(0)?),
        session: row.opt_parse(1)?,
        event: row.json(2)?,
        at: row.time(3)?,
    })
}
