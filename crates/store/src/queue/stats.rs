//! Figures of queues, for people who watch: per session, and over all of a tenant's.
//!
//! What waits and what ended is counted as it happens; what is being sent, delayed or scheduled is
//! counted here, through an index.

use std::collections::HashMap;

use wagate_domain::{LinkState, SessionId, SessionName, TenantId, Timestamp};

use super::QueueSettings;
use crate::db::{Row, Tx, Value, params};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// The figures of one or of several queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantQueue {
    /// Being sent.
    pub active: u64,
    /// Due, or behind another message of its chat.
    pub waiting: u64,
    /// Waiting for another attempt.
    pub delayed: u64,
    /// Waiting for the time for which they were scheduled.
    pub scheduled: u64,
    /// Ended failed, and neither retried nor deleted since.
    pub failed: u64,
    /// Acknowledged by WhatsApp.
    pub completed: u64,
    /// Since when the oldest one is due that waits, for its turn or for another attempt.
    pub oldest: Option<Timestamp>,
}

/// One session's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionQueue {
    pub session: SessionId,
    pub name: SessionName,
    pub link: LinkState,
    pub queue: TenantQueue,
    pub settings: QueueSettings,
}

const FIGURES: &str = "SELECT s.id, s.name, s.link, c.queued, c.sent, c.failed, \
    (SELECT COUNT(*) FROM queue q WHERE q.session_id = s.id AND q.state = 1) AS active, \
    (SELECT COUNT(*) FROM queue q WHERE q.session_id = s.id AND q.state IN (2, 3) \
    AND q.state = 2) AS delayed, \
    (SELECT COUNT(*) FROM queue q WHERE q.session_id = s.id AND q.state IN (2, 3) \
    AND q.state = 3) AS scheduled, \
    (SELECT MIN(q.message_seq) FROM queue q WHERE q.session_id = s.id AND q.priority = 0 \
    AND q.state = 0) AS high, \
    (SELECT MIN(q.message_seq) FROM queue q WHERE q.session_id = s.id AND q.priority = 1 \
    AND q.state = 0) AS normal, \
    (SELECT MIN(q.message_seq) FROM queue q WHERE q.session_id = s.id AND q.priority = 2 \
    AND q.state = 0) AS low, \
    (SELECT MIN(q.message_seq) FROM queue q WHERE q.session_id = s.id AND q.state IN (2, 3) \
    AND q.state = 2) AS again, \
    z.concurrency, COALESCE(z.paused, 0) AS paused \
    FROM sessions s JOIN session_counters c ON c.session_id = s.id \
    LEFT JOIN session_queues z ON z.session_id = s.id \
    WHERE s.tenant_id = $1 AND s.desired <> 'deleted'";

/// The figures of a tenant's sessions, in order of creation; of one of them when it is named.
pub fn session_stats(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: Option<&SessionId>,
    page: &PageRequest,
) -> Result<Page<SessionQueue>, StoreError> {
    let after = page.after.as_deref().unwrap_or("");
    let sql = format!(
        "{FIGURES} AND s.id > $2 AND (CAST($3 AS TEXT) IS NULL OR s.id = $3) \
         ORDER BY s.id LIMIT $4"
    );
    let values = params![tenant, after, session, page.sql_limit()];
    let rows = tx.query(&sql, values, session_queue)?;
    let mut page = Page::of(rows, page, |(row, _)| row.session.to_string());
    let seqs: Vec<i64> = page.items.iter().filter_map(|(_, seq)| *seq).collect();
    let since = due_since(tx, &seqs)?;
    for (row, seq) in &mut page.items {
        row.queue.oldest = seq.and_then(|seq| since.get(&seq).copied());
    }
    Ok(Page {
        items: page.items.into_iter().map(|(row, _)| row).collect(),
        next: page.next,
    })
}

/// The figures over all sessions of a tenant.
pub fn tenant_stats(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<TenantQueue, StoreError> {
    let sum = |column: &str| format!("CAST(COALESCE(SUM(f.{column}), 0) AS BIGINT)");
    let sql = format!(
        "SELECT {}, {}, {}, {}, {}, {}, MIN(f.high), MIN(f.normal), MIN(f.low), MIN(f.again) \
         FROM ({FIGURES}) AS f",
        sum("queued"),
        sum("sent"),
        sum("failed"),
        sum("active"),
        sum("delayed"),
        sum("scheduled"),
    );
    let (mut queue, oldest) = tx.query_one(&sql, params![tenant], |row| figures(row, 0))?;
    let since = due_since(tx, oldest.as_slice())?;
    queue.oldest = oldest.and_then(|seq| since.get(&seq).copied());
    Ok(queue)
}

fn session_queue(row: Row<'_>) -> Result<(SessionQueue, Option<i64>), StoreError> {
    let (queue, oldest) = figures(row, 3)?;
    let concurrency = row.opt_int(13)?;
    let found = SessionQueue {
        session: row.parse(0)?,
        name: row.parse(1)?,
        link: row.json(2)?,
        queue,
        settings: QueueSettings {
            concurrency: concurrency.and_then(|set| u32::try_from(set).ok()),
            paused: row.flag(14)?,
        },
    };
    Ok((found, oldest))
}

/// Ten columns from `at` on: the figures, and the place of the oldest message.
fn figures(row: Row<'_>, at: usize) -> Result<(TenantQueue, Option<i64>), StoreError> {
    let (queued, active) = (row.count(at)?, row.count(at + 3)?);
    let (delayed, scheduled) = (row.count(at + 4)?, row.count(at + 5)?);
    let mut oldest: Option<i64> = None;
    for column in at + 6..at + 10 {
        oldest = [oldest, row.opt_int(column)?].into_iter().flatten().min();
    }
    let queue = TenantQueue {
        active,
        waiting: queued.saturating_sub(active + delayed + scheduled),
        delayed,
        scheduled,
        failed: row.count(at + 2)?,
        completed: row.count(at + 1)?,
        oldest: None,
    };
    Ok((queue, oldest))
}

/// Since when messages are due: accepted, or scheduled for that time.
fn due_since(tx: &mut Tx<'_>, seqs: &[i64]) -> Result<HashMap<i64, Timestamp>, StoreError> {
    let keys: Vec<Value<'_>> = seqs.iter().map(|seq| Value::from(*seq)).collect();
    let rows = tx.query_keys(
        "SELECT seq, COALESCE(not_before_ms, at_ms) FROM messages WHERE seq IN ({})",
        params![],
        &keys,
        |row| Ok((row.int(0)?, row.time(1)?)),
    )?;
    Ok(rows.into_iter().collect())
}
