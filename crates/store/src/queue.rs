//! The queue: what still has to be sent, in which order (MP-4).
//!
//! What steps 3 and 4 of the message path take from. A *lane* is the messages of one chat with one
//! priority, in order of acceptance. Only a lane's head may be sent, and only one message per chat is in
//! flight; other chats go on in parallel. A message that waits for another attempt stays the head of its
//! lane, so nothing overtakes it there. A claim reads ready heads from the front of an index, so that it
//! costs the same however deep the queue is.
//!
//! The states of a row and the indexes are explained in the migration. Rows are changed only under the
//! session's lease, except by `accept` and `cancel`, which the locks below keep apart from the rest.

mod admin;
mod claim;
pub(crate) mod dead_letters;
mod expiry;
mod jobs;
mod settings;
mod stats;
mod strangers;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use wagate_domain::message::{Content, Failure, MessageInput, Step};
use wagate_domain::{
    Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId, WorkerId, plant,
};

pub use admin::{Holding, clear, clear_dead, delete_dead, holders, revive, revive_some};
pub use claim::{Claims, claim, claim_within};
pub use dead_letters::{DeadFilter, DeadLetter, dead};
pub use expiry::{Overdue, expire, overdue};
pub use jobs::{Job, JobFilter, JobState, jobs};
pub use settings::{QueueSettings, SettingsChange, configure, settings};
pub use stats::{SessionQueue, TenantQueue, session_stats, tenant_stats};
pub use strangers::{next_chats, put_off_strangers, to_strangers};

use crate::db::{Dialect, Lock, Row, Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::messages::{Counts, Message, Owner, Priority, Tracked, tracked, write_moves};

/// A message taken for one attempt.
///
/// Only [`claim`] makes one; [`retry`] and [`fail`] use it up. When the server acknowledged the message,
/// [`crate::messages::apply`] finishes it and the claim is just dropped. A copy is for one purpose only:
/// to repeat a transaction that the database lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub message: MessageId,
    pub wa_id: WaMessageId,
    pub chat: Jid,
    pub content: Content,
    pub priority: Priority,
    /// This attempt's number, from 1; attempts that did not count are left out.
    pub attempt: u32,
    pub accepted_at: Timestamp,
    /// Not to be written from then on.
    pub expires_at: Option<Timestamp>,
    seq: i64,
}

impl Claimed {
    /// Uses the claim up: nobody can retry or fail a message twice.
    fn give_up(self) -> i64 {
        self.seq
    }
}

/// When the next attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub due: Timestamp,
    /// False: the attempt is not held against the message (the session was away).
    pub counts: bool,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Due, or behind another message of its chat.
    pub waiting: u64,
    /// Being sent.
    pub active: u64,
    /// Waiting for a time: a retry, or sending later.
    pub delayed: u64,
}

/// A state that is another message's already (a lane's head) makes it change nothing.
const ENQUEUE: &str = "INSERT INTO queue (message_seq, tenant_id, session_id, chat, priority, state, \
     due_ms, attempts, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8) ON CONFLICT DO NOTHING";
/// Ready where the lane has no head, else as it is told.
static ENQUEUE_BEHIND: LazyLock<String> = LazyLock::new(|| {
    let state = "CASE WHEN EXISTS (SELECT 1 FROM queue h WHERE h.session_id = $3 AND h.chat = $4 \
                 AND h.priority = $5 AND h.state <= 2) THEN $6 ELSE 0 END";
    ENQUEUE
        .replace("$6", state)
        .replace(" ON CONFLICT DO NOTHING", "")
});

/// Queues an accepted message; it is the head of its lane if nothing else is.
pub(crate) fn enqueue(
    tx: &mut Tx<'_>,
    message: &Message,
    seq: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let chat = &message.chat.to_string();
    let due = match message.not_before {
        Some(at) if !plant::is("schedule_ignored") => at,
        _ => now,
    };
    let values = |state: i64| {
        [
            Value::from(seq),
            (&message.tenant).into(),
            (&message.session).into(),
            chat.into(),
            message.priority.rank().into(),
            state.into(),
            due.into(),
            message.expires_at.into(),
        ]
    };
    if due > now {
        return tx.execute(ENQUEUE, &values(SCHEDULED)).map(drop);
    }
    if tx.dialect() == Dialect::Sqlite {
        // Nobody else writes, so the lane is as it is looked at.
        return tx.execute(&ENQUEUE_BEHIND, &values(BLOCKED)).map(drop);
    }
    let insert = |tx: &mut Tx<'_>, state: i64| tx.execute(ENQUEUE, &values(state));
    // The head may vanish between the two statements on PostgreSQL, and then this message is the head.
    // Once its row is locked it cannot: whoever deletes it waits, and then sees this message behind it.
    for _ in 0..HEAD_RACES_MAX {
        if insert(tx, READY)? > 0 {
            return Ok(());
        }
        let head = tx.locked(
            "SELECT message_seq FROM queue \
             WHERE session_id = $1 AND chat = $2 AND priority = $3 AND state <= 2",
            Lock::KeyShare,
        );
        let lane = params![&message.session, chat, message.priority.rank()];
        if tx.query_opt(&head, lane, |row| row.int(0))?.is_some() {
            return insert(tx, BLOCKED).map(drop);
        }
    }
    Err(StoreError::Busy)
}

const READY: i64 = 0;
const SENDING: i64 = 1;
const DELAYED: i64 = 2;
const SCHEDULED: i64 = 3;
const BLOCKED: i64 = 4;

/// No retry waits longer: what is held back is looked at again after a quarter of an hour.
const DELAY_MAX: Duration = Duration::from_secs(16 * 60);

/// How often an accepted message may find the head of its lane just gone.
const HEAD_RACES_MAX: usize = 8;

/// Gives a claimed message back for another attempt, as the head of its lane. False: it was finished
/// meanwhile, by a late acknowledgement.
pub fn retry(
    tx: &mut Tx<'_>,
    lease: &Lease,
    claimed: Claimed,
    retry: Retry,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    let seq = claimed.give_up();
    let state = if retry.due <= now { READY } else { DELAYED };
    let held = tx.execute(
        "UPDATE queue SET state = $4, due_ms = $5, token = NULL, attempts = attempts - $6 \
         WHERE message_seq = $1 AND session_id = $2 AND state = 1 AND token = $3",
        params![
            seq,
            &lease.session,
            lease.token,
            state,
            retry.due,
            !retry.counts
        ],
    )?;
    if held == 0 {
        return Ok(false);
    }
    step(tx, &owner, &[seq], MessageInput::Requeued, None, now)?;
    Ok(true)
}

/// Ends a claimed message as failed; its chat's next message becomes due. False: it was finished
/// meanwhile, by a late acknowledgement.
pub fn fail(
    tx: &mut Tx<'_>,
    lease: &Lease,
    claimed: Claimed,
    failure: &Failure,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    let seq = claimed.give_up();
    let held = tx.query_opt(
        "SELECT 1 FROM queue WHERE message_seq = $1 AND session_id = $2 AND state = 1 AND token = $3",
        params![seq, &lease.session, lease.token],
        |_| Ok(()),
    )?;
    if held.is_none() {
        return Ok(false);
    }
    let silent = Failure {
        code: String::new(),
        reason: String::new(),
    };
    let failure = if plant::is("failed_without_reason") {
        &silent
    } else {
        failure
    };
    let mut counts = step(tx, &owner, &[seq], MessageInput::Failed, Some(failure), now)?;
    counts.queued -= finish(tx, &lease.session, &[seq])?;
    counts.write(tx, &lease.session);
    Ok(true)
}

/// Makes due again what earlier holders of the lease had in flight. Called once when an actor starts.
///
/// The messages keep their WhatsApp ids, so that a recipient that has one already drops the repeat
/// (MP-2). The lost attempt counts: a message that was in flight `attempts_max` times when its worker
/// was lost may be what ends the workers, and has failed. Gives how many messages were in flight.
pub fn release_stale(
    tx: &mut Tx<'_>,
    lease: &Lease,
    attempts_max: u32,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    if plant::is("never_released") {
        return Ok(0);
    }
    // Whoever wrote it had a clock that was ahead, and nobody saw it put back. Both conditions, for the
    // index of what is due.
    tx.execute(
        "UPDATE queue SET due_ms = $2 WHERE session_id = $1 AND state IN (2, 3) AND state = 2 \
         AND due_ms > $3",
        params![&lease.session, now, now.plus(DELAY_MAX)],
    )?;
    let stale = tx.query(
        "UPDATE queue SET state = 0, token = NULL \
         WHERE session_id = $1 AND state = 1 AND token < $2 RETURNING message_seq, attempts",
        params![&lease.session, lease.token],
        |row| Ok((row.int(0)?, row.small(1)?)),
    )?;
    let released = u64::try_from(stale.len()).unwrap_or(u64::MAX);
    let (spent, due): (Vec<_>, Vec<_>) = stale
        .into_iter()
        .partition(|(_, attempts)| *attempts >= attempts_max);
    let seqs = |rows: Vec<(i64, u32)>| rows.into_iter().map(|row| row.0).collect::<Vec<i64>>();
    step(tx, &owner, &seqs(due), MessageInput::Requeued, None, now)?;
    let spent = seqs(spent);
    if !spent.is_empty() {
        let failure = Failure {
            code: "worker_lost".to_owned(),
            reason:
                "the process ended in each attempt to send this message, which may have arrived"
                    .to_owned(),
        };
        let mut counts = step(
            tx,
            &owner,
            &spent,
            MessageInput::Failed,
            Some(&failure),
            now,
        )?;
        counts.queued -= finish(tx, &lease.session, &spent)?;
        counts.write(tx, &lease.session);
    }
    if plant::is("queue_row_lost") {
        let sql = "DELETE FROM queue WHERE session_id = $1";
        tx.execute(sql, params![&lease.session])?;
    }
    Ok(released)
}

/// Brings retries of a worker's sessions forward by what the clock was put back: they wait for a delay,
/// not for a time of day. What is to be sent at a time stays. Gives how many there were.
pub fn clock_put_back(tx: &mut Tx<'_>, worker: &WorkerId, by: Duration) -> Result<u64, StoreError> {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    tx.execute(
        "UPDATE queue SET due_ms = due_ms - $2 WHERE state = 2 AND session_id IN \
         (SELECT l.session_id FROM leases l WHERE l.worker_id = $1)",
        params![worker, millis],
    )
}

/// The earliest time at which there is something to claim: the epoch when there is now, nothing when the
/// queue is empty or everything waits for an answer.
pub fn next_due(tx: &mut Tx<'_>, lease: &Lease) -> Result<Option<Timestamp>, StoreError> {
    let ready = tx.query_opt(
        "SELECT 1 FROM queue q WHERE q.session_id = $1 AND q.state = 0 AND NOT EXISTS \
         (SELECT 1 FROM queue f WHERE f.session_id = q.session_id AND f.chat = q.chat \
         AND f.state = 1) LIMIT 1",
        params![&lease.session],
        |_| Ok(()),
    )?;
    if ready.is_some() {
        return Ok(Some(Timestamp::EPOCH));
    }
    tx.query_one(
        "SELECT MIN(due_ms) FROM queue WHERE session_id = $1 AND state IN (2, 3)",
        params![&lease.session],
        |row| row.opt_time(0),
    )
}

/// How much waits for a tenant, or for one of its sessions. Does not count row by row what waits.
pub fn stats(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: Option<&SessionId>,
) -> Result<QueueStats, StoreError> {
    let (all, active, delayed) = tx.query_one(
        "SELECT CAST(COALESCE(SUM(c.queued), 0) AS BIGINT), \
         CAST(COALESCE(SUM((SELECT COUNT(*) FROM queue q \
         WHERE q.session_id = c.session_id AND q.state = 1)), 0) AS BIGINT), \
         CAST(COALESCE(SUM((SELECT COUNT(*) FROM queue q \
         WHERE q.session_id = c.session_id AND q.state IN (2, 3))), 0) AS BIGINT) \
         FROM session_counters c JOIN sessions s ON s.id = c.session_id \
         WHERE s.tenant_id = $1 AND s.desired <> 'deleted' \
         AND (CAST($2 AS TEXT) IS NULL OR s.id = $2)",
        params![tenant, session],
        |row| Ok((row.count(0)?, row.count(1)?, row.count(2)?)),
    )?;
    Ok(QueueStats {
        waiting: all.saturating_sub(active + delayed),
        active,
        delayed,
    })
}

/// The sessions of a worker that have something due: what its tick wakes when a wake-up was lost.
pub fn due_sessions(
    tx: &mut Tx<'_>,
    worker: &WorkerId,
    now: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    tx.query(
        "SELECT l.session_id FROM leases l WHERE l.worker_id = $1 AND NOT EXISTS \
         (SELECT 1 FROM session_queues p WHERE p.session_id = l.session_id AND p.paused = 1) AND (\
         EXISTS (SELECT 1 FROM queue q WHERE q.session_id = l.session_id AND q.state = 0) OR \
         EXISTS (SELECT 1 FROM queue q WHERE q.session_id = l.session_id \
         AND q.state IN (2, 3) AND q.due_ms <= $2))",
        params![worker, now],
        |row| row.parse(0),
    )
}

/// Removes the rows of messages that need no attempt any more, and makes the next of their lanes due.
/// Gives how many there were.
pub(crate) fn finish(
    tx: &mut Tx<'_>,
    session: &SessionId,
    seqs: &[i64],
) -> Result<i64, StoreError> {
    let keys: Vec<Value<'_>> = seqs.iter().map(|seq| Value::from(*seq)).collect();
    let removed = remove(tx, session, &keys)?;
    let count = i64::try_from(removed.len()).unwrap_or(i64::MAX);
    let lanes: Vec<Lane> = removed
        .into_iter()
        .filter(|(_, state)| *state <= DELAYED)
        .map(|(lane, _)| lane)
        .collect();
    promote(tx, session, &lanes)?;
    Ok(count)
}

/// Deletes rows of the queue, and gives each one's lane and state.
fn remove(
    tx: &mut Tx<'_>,
    session: &SessionId,
    keys: &[Value<'_>],
) -> Result<Vec<(Lane, i64)>, StoreError> {
    let delete = "DELETE FROM queue WHERE session_id = $1 AND message_seq IN ({})";
    let read = |row: Row<'_>| Ok(((row.string(0)?, row.int(1)?), row.int(2)?));
    if tx.dialect() == Dialect::Postgres {
        let sql = format!("{delete} RETURNING chat, priority, state");
        return tx.query_keys(&sql, params![session], keys, read);
    }
    // SQLite would keep what it returns in a table made for it, which costs more than asking before.
    let rows = "SELECT chat, priority, state FROM queue \
                WHERE session_id = $1 AND message_seq IN ({})";
    let removed = tx.query_keys(rows, params![session], keys, read)?;
    tx.execute_rows(delete, params![session], ("?", 1), keys)?;
    Ok(removed)
}

/// A chat and the rank of a priority.
type Lane = (String, i64);

const PROMOTE: &str = "UPDATE queue SET state = 0 WHERE state = 4 AND message_seq = \
     (SELECT MIN(b.message_seq) FROM queue b WHERE b.session_id = $1 AND b.chat = $2 \
     AND b.priority = $3 AND b.state = 4) AND NOT EXISTS (SELECT 1 FROM queue h \
     WHERE h.session_id = $1 AND h.chat = $2 AND h.priority = $3 AND h.state <= 2)";
/// The same for several lanes in one round trip.
const PROMOTE_MANY: &str = "UPDATE queue SET state = 0 WHERE state = 4 AND message_seq IN (SELECT \
     (SELECT MIN(b.message_seq) FROM queue b WHERE b.session_id = $1 AND b.chat = v.column1 \
     AND b.priority = v.column2 AND b.state = 4) FROM (VALUES {}) AS v) \
     AND NOT EXISTS (SELECT 1 FROM queue h WHERE h.session_id = queue.session_id \
     AND h.chat = queue.chat AND h.priority = queue.priority AND h.state <= 2)";

/// Makes the oldest blocked message of each lane its head, where the lane has none.
fn promote(tx: &mut Tx<'_>, session: &SessionId, lanes: &[Lane]) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(lanes.len() * 2);
    for (chat, priority) in lanes {
        values.extend_from_slice(params![chat, *priority]);
    }
    let (sql, lane) = match tx.dialect() {
        Dialect::Sqlite => (PROMOTE, ""),
        Dialect::Postgres => (PROMOTE_MANY, "(CAST(? AS TEXT), CAST(? AS BIGINT))"),
    };
    let sql = if plant::is("newest_first") {
        Cow::Owned(sql.replace("MIN(", "MAX("))
    } else {
        Cow::Borrowed(sql)
    };
    tx.execute_rows(&sql, params![session], (lane, 2), &values)?;
    Ok(())
}

/// Locks the session's lease row and gives the session's name: what changes a queue for a request does
/// this first, as the session's worker does; two who lock in different orders would wait for each other.
/// A session that is being deleted is not found.
pub(crate) fn hold(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<SessionName, StoreError> {
    let held = tx.locked(
        "SELECT s.name FROM leases l JOIN sessions s ON s.id = l.session_id \
         WHERE l.session_id = $1 AND l.tenant_id = $2 AND s.desired <> 'deleted'",
        Lock::UpdateOf("l"),
    );
    tx.query_opt(&held, params![session, tenant], |row| row.parse(0))?
        .ok_or(StoreError::NotFound { what: "session" })
}

/// The queue's own moves of messages, by their place in the order of acceptance.
fn step(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    seqs: &[i64],
    input: MessageInput,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Result<Counts, StoreError> {
    let mut messages = load(tx, seqs)?;
    let mut counts = Counts::default();
    let mut moves = Vec::with_capacity(messages.len());
    for message in &mut messages {
        if let Step::Moved(to) = message.state.apply(input) {
            moves.push(message.advance(to, now, failure.cloned(), &mut counts));
        }
    }
    let moved: Vec<&Tracked> = messages
        .iter()
        .filter(|message| message.is_moved())
        .collect();
    write_moves(tx, owner, &moved, moves, now)?;
    Ok(counts)
}

fn load(tx: &mut Tx<'_>, seqs: &[i64]) -> Result<Vec<Tracked>, StoreError> {
    let keys: Vec<Value<'_>> = seqs.iter().map(|seq| Value::from(*seq)).collect();
    let sql = format!(
        "SELECT {} FROM messages WHERE seq IN ({{}})",
        crate::messages::TRACKED
    );
    let sql = tx.locked(&sql, Lock::Update);
    tx.query_keys(&sql, params![], &keys, tracked)
}
