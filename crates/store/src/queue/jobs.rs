//! The queue as a list: what waits, is being sent, or waits for a time.
//!
//! In the order of acceptance within a session, session by session, so that a page never looks at
//! sessions before its cursor. Finding what waits deep in one session costs what waits there.

use wagate_domain::{SessionId, TenantId, Timestamp};

use crate::db::{Tx, params};
use crate::error::StoreError;
use crate::messages::{Message, by_seqs};
use crate::page::{Page, PageRequest};

/// Where a message stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Due, or behind another message of its chat.
    Waiting,
    /// Being sent.
    Active,
    /// Waits for another attempt.
    Delayed,
    /// Waits for the time for which it was scheduled.
    Scheduled,
}

impl JobState {
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Active, Self::Delayed, Self::Scheduled];

    /// The word for it in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Delayed => "delayed",
            Self::Scheduled => "scheduled",
        }
    }

    /// The conditions on rows, each in the words of an index.
    fn conditions(self) -> &'static [&'static str] {
        match self {
            Self::Waiting => &["q.state = 0", "q.state = 4"],
            Self::Active => &["q.state = 1"],
            Self::Delayed => &["q.state IN (2, 3) AND q.state = 2"],
            Self::Scheduled => &["q.state IN (2, 3) AND q.state = 3"],
        }
    }

    fn of(state: i64) -> Result<Self, StoreError> {
        match state {
            super::READY | super::BLOCKED => Ok(Self::Waiting),
            super::SENDING => Ok(Self::Active),
            super::DELAYED => Ok(Self::Delayed),
            super::SCHEDULED => Ok(Self::Scheduled),
            _ => Err(StoreError::corrupt("a state of the queue")),
        }
    }
}

/// A message in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub message: Message,
    pub state: JobState,
    /// When it may go out, for what waits for a time.
    pub due: Timestamp,
    /// Attempts that count against the bound.
    pub attempts: u32,
}

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub session: Option<SessionId>,
    /// None: any.
    pub state: Option<JobState>,
}

const NO_CURSOR: StoreError = StoreError::NotFound { what: "cursor" };

/// A row of the queue: its message's place, state, due time and attempts.
struct Found {
    session: SessionId,
    seq: i64,
    state: JobState,
    due: Timestamp,
    attempts: u32,
}

/// A tenant's jobs. [`StoreError::NotFound`] for a cursor that is not one of this list.
pub fn jobs(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    filter: &JobFilter,
    page: &PageRequest,
) -> Result<Page<Job>, StoreError> {
    let conditions: Vec<&str> = JobState::ALL
        .into_iter()
        .filter(|state| filter.state.is_none_or(|wanted| wanted == *state))
        .flat_map(|state| state.conditions().iter().copied())
        .collect();
    let cursor = page.after.as_deref().map(read_cursor).transpose()?;
    let (mut session, mut seq) = match (cursor, &filter.session) {
        (Some((session, _)), Some(only)) if session != *only => return Err(NO_CURSOR),
        (Some((session, seq)), _) => (Some(session), seq),
        (None, Some(session)) => (Some(session.clone()), 0),
        (None, None) => (next_session(tx, tenant, "", &conditions)?, 0),
    };
    let mut rows: Vec<Found> = Vec::new();
    while let Some(current) = session.take() {
        let room = page.sql_limit() - i64::try_from(rows.len()).unwrap_or(i64::MAX);
        if room <= 0 {
            break;
        }
        rows.extend(in_session(tx, tenant, &current, &conditions, seq, room)?);
        if filter.session.is_none() {
            session = next_session(tx, tenant, current.as_str(), &conditions)?;
        }
        seq = 0;
    }
    let page = Page::of(rows, page, |row| format!("{}.{}", row.session, row.seq));
    let seqs: Vec<i64> = page.items.iter().map(|row| row.seq).collect();
    let mut messages = by_seqs(tx, &seqs)?;
    let items = page.items.into_iter().filter_map(|row| {
        Some(Job {
            message: messages.remove(&row.seq)?,
            state: row.state,
            due: row.due,
            attempts: row.attempts,
        })
    });
    Ok(Page {
        items: items.collect(),
        next: page.next,
    })
}

fn read_cursor(text: &str) -> Result<(SessionId, i64), StoreError> {
    let read = text.split_once('.').and_then(|(session, seq)| {
        Some((SessionId::parse(session).ok()?, seq.parse::<i64>().ok()?))
    });
    read.ok_or(NO_CURSOR)
}

/// The tenant's next session that has such rows.
fn next_session(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: &str,
    conditions: &[&str],
) -> Result<Option<SessionId>, StoreError> {
    let any: Vec<String> = conditions
        .iter()
        .map(|condition| {
            format!("EXISTS (SELECT 1 FROM queue q WHERE q.session_id = s.id AND {condition})")
        })
        .collect();
    let sql = format!(
        "SELECT s.id FROM sessions s WHERE s.tenant_id = $1 AND s.id > $2 \
         AND s.desired <> 'deleted' AND ({}) ORDER BY s.id LIMIT 1",
        any.join(" OR ")
    );
    tx.query_opt(&sql, params![tenant, after], |row| row.parse(0))
}

/// Rows of one session behind a place, in the order of acceptance.
fn in_session(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    conditions: &[&str],
    after: i64,
    limit: i64,
) -> Result<Vec<Found>, StoreError> {
    // `+ 0` keeps planners from walking through everybody's rows in the order of the primary key.
    let parts: Vec<String> = conditions
        .iter()
        .enumerate()
        .map(|(number, condition)| {
            format!(
                "SELECT * FROM (SELECT q.message_seq, q.state, q.due_ms, q.attempts FROM queue q \
                 WHERE q.session_id = $1 AND q.tenant_id = $2 AND {condition} \
                 AND q.message_seq + 0 > $3 ORDER BY q.message_seq + 0 LIMIT $4) AS p{number}"
            )
        })
        .collect();
    let values = params![session, tenant, after, limit];
    let mut rows = tx.query(&parts.join(" UNION ALL "), values, |row| {
        Ok(Found {
            session: session.clone(),
            seq: row.int(0)?,
            state: JobState::of(row.int(1)?)?,
            due: row.time(2)?,
            attempts: row.small(3)?,
        })
    })?;
    rows.sort_by_key(|row| row.seq);
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(rows)
}
