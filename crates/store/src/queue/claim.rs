//! Taking due messages for an attempt.

use std::collections::{HashMap, HashSet};

use wagate_domain::message::{Content, MessageInput, Step};
use wagate_domain::{SessionId, Timestamp};

use super::{BLOCKED, Claimed, Lane, READY, SCHEDULED, SENDING, promote};
use crate::db::{Lock, Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::messages::{Counts, Owner, Priority, TRACKED, Tracked, tracked, write_moves};

/// Every so many claims one goes to the oldest ready message, so that low ones are not starved.
const FAIR_TURN: i64 = 8;
/// Delayed and scheduled messages that one claim makes ready at most.
const DUE_MAX: i64 = 256;

/// Takes up to `max` due messages for an attempt: Queued → Sending.
///
/// At most one message per chat is in flight, in each chat and priority the oldest comes first (MP-4);
/// between chats higher priorities go first, with every eighth turn for the oldest of all. The claim is
/// bound to the lease: a new holder makes it due again with [`super::release_stale`].
pub fn claim(
    tx: &mut Tx<'_>,
    lease: &Lease,
    max: u32,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    make_due(tx, &lease.session, now)?;
    let ready = candidates(tx, &lease.session, max)?;
    if ready.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT turns FROM session_counters WHERE session_id = $1";
    let turns = tx.query_one(sql, params![&lease.session], |row| row.int(0))?;
    let turns = turns
        + tx.counts
            .get(&lease.session)
            .map_or(0, |counts| counts.turns);
    let picked = pick(&ready, turns, usize::try_from(max).unwrap_or(usize::MAX));
    let attempts = take(tx, lease, &picked)?;
    let (claimed, counts) = start(tx, &owner, &picked, &attempts, now)?;
    counts.write(tx, &lease.session);
    Ok(claimed)
}

/// Makes ready what waited for a time that has come.
fn make_due(tx: &mut Tx<'_>, session: &SessionId, now: Timestamp) -> Result<(), StoreError> {
    let due = tx.query(
        "SELECT message_seq, chat, priority, state FROM queue \
         WHERE session_id = $1 AND state IN (2, 3) AND due_ms <= $2 ORDER BY due_ms LIMIT $3",
        params![session, now, DUE_MAX],
        |row| Ok((row.int(0)?, (row.string(1)?, row.int(2)?), row.int(3)?)),
    )?;
    let (scheduled, delayed): (Vec<_>, Vec<_>) = due
        .into_iter()
        .partition(|(_, _, state)| *state == SCHEDULED);
    // A delayed message is the head of its lane; a scheduled one takes its place there now.
    for (rows, state) in [(&delayed, READY), (&scheduled, BLOCKED)] {
        let keys: Vec<Value<'_>> = rows.iter().map(|(seq, _, _)| Value::from(*seq)).collect();
        let sql = "UPDATE queue SET state = $1 WHERE message_seq IN ({}) AND state IN (2, 3)";
        tx.execute_rows(sql, params![state], ("?", 1), &keys)?;
    }
    let lanes: Vec<Lane> = scheduled.into_iter().map(|(_, lane, _)| lane).collect();
    promote(tx, session, &lanes)
}

/// A ready message at the head of its lane, of a chat with nothing in flight.
#[derive(Debug)]
struct Candidate {
    seq: i64,
    chat: String,
    priority: i64,
}

/// The first candidates of each priority. Two for each place are enough, since a chat that was picked
/// from another priority can rule out one of them at most.
fn candidates(
    tx: &mut Tx<'_>,
    session: &SessionId,
    max: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let front = |rank: i64| {
        format!(
            "SELECT * FROM (SELECT q.message_seq, q.chat, q.priority FROM queue q \
             WHERE q.session_id = $1 AND q.priority = {rank} AND q.state = 0 AND NOT EXISTS \
             (SELECT 1 FROM queue f WHERE f.session_id = q.session_id AND f.chat = q.chat \
             AND f.state = 1) ORDER BY q.message_seq LIMIT $2) AS p{rank}"
        )
    };
    let sql = Priority::ALL
        .map(|priority| front(priority.rank()))
        .join(" UNION ALL ");
    tx.query(&sql, params![session, max.saturating_mul(2)], |row| {
        Ok(Candidate {
            seq: row.int(0)?,
            chat: row.string(1)?,
            priority: row.int(2)?,
        })
    })
}

/// Chooses among the candidates: highest priority first, every eighth turn the oldest, a chat once.
fn pick(ready: &[Candidate], turns: i64, max: usize) -> Vec<&Candidate> {
    let mut left: Vec<&Candidate> = ready.iter().collect();
    left.sort_by_key(|candidate| (candidate.priority, candidate.seq));
    let mut chats = HashSet::new();
    let mut picked = Vec::new();
    while picked.len() < max {
        left.retain(|candidate| !chats.contains(candidate.chat.as_str()));
        let turn = turns + i64::try_from(picked.len()).unwrap_or(0);
        let next = if turn % FAIR_TURN == FAIR_TURN - 1 {
            left.iter().copied().min_by_key(|candidate| candidate.seq)
        } else {
            left.first().copied()
        };
        let Some(next) = next else { break };
        chats.insert(next.chat.as_str());
        picked.push(next);
    }
    picked
}

/// Marks the picked rows as in flight; gives each one's number of attempts.
fn take(
    tx: &mut Tx<'_>,
    lease: &Lease,
    picked: &[&Candidate],
) -> Result<HashMap<i64, u32>, StoreError> {
    let keys: Vec<Value<'_>> = picked
        .iter()
        .map(|candidate| candidate.seq.into())
        .collect();
    // `< 1` and not `= 0`, which SQLite's planner would take for the index of all that is ready.
    let rows = tx.query_keys(
        "UPDATE queue SET state = $2, token = $3, attempts = attempts + 1 \
         WHERE session_id = $1 AND state < 1 AND message_seq IN ({}) \
         RETURNING message_seq, attempts",
        params![&lease.session, SENDING, lease.token],
        &keys,
        |row| Ok((row.int(0)?, row.small(1)?)),
    )?;
    // On PostgreSQL a message may have been withdrawn since the candidates were read.
    Ok(rows.into_iter().collect())
}

/// Moves the taken messages to Sending and reads what has to be sent.
fn start(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    picked: &[&Candidate],
    attempts: &HashMap<i64, u32>,
    now: Timestamp,
) -> Result<(Vec<Claimed>, Counts), StoreError> {
    let keys: Vec<Value<'_>> = attempts.keys().map(|seq| Value::from(*seq)).collect();
    let sql = format!("SELECT {TRACKED}, content, at_ms FROM messages WHERE seq IN ({{}})");
    let sql = tx.locked(&sql, Lock::Update);
    let rows: Vec<(Tracked, Content, Timestamp)> =
        tx.query_keys(&sql, params![], &keys, |row| {
            Ok((tracked(row)?, row.json(10)?, row.time(11)?))
        })?;
    let mut rows: HashMap<i64, (Tracked, Content, Timestamp)> =
        rows.into_iter().map(|row| (row.0.seq, row)).collect();
    let mut counts = Counts::default();
    let mut moves = Vec::new();
    for candidate in picked {
        let Some((message, _, _)) = rows.get_mut(&candidate.seq) else {
            continue;
        };
        let Step::Moved(to) = message.state.apply(MessageInput::Claimed) else {
            return Err(StoreError::corrupt(format!(
                "message {} is not queued",
                message.id
            )));
        };
        message.tries = 1;
        moves.push(message.advance(to, now, None, &mut counts));
        counts.turns += 1;
    }
    let moved: Vec<&Tracked> = rows.values().map(|(message, _, _)| message).collect();
    write_moves(tx, owner, &moved, moves, now)?;
    let mut claimed = Vec::with_capacity(rows.len());
    for candidate in picked {
        let Some((message, content, accepted_at)) = rows.remove(&candidate.seq) else {
            continue;
        };
        claimed.push(Claimed {
            message: message.id,
            wa_id: message.wa_id,
            chat: message.chat,
            content,
            priority: Priority::of_rank(candidate.priority)?,
            attempt: attempts.get(&candidate.seq).copied().unwrap_or(1),
            accepted_at,
            seq: candidate.seq,
        });
    }
    Ok((claimed, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(seq: i64, chat: &str, priority: i64) -> Candidate {
        Candidate {
            seq,
            chat: chat.to_owned(),
            priority,
        }
    }

    fn seqs(ready: &[Candidate], turns: i64, max: usize) -> Vec<i64> {
        pick(ready, turns, max)
            .iter()
            .map(|candidate| candidate.seq)
            .collect()
    }

    #[test]
    fn high_goes_first_and_a_chat_goes_once() {
        let ready = [
            candidate(1, "a", 1),
            candidate(2, "b", 2),
            candidate(3, "a", 0),
            candidate(4, "c", 0),
        ];
        assert_eq!(seqs(&ready, 0, 9), [3, 4, 2]);
        assert_eq!(seqs(&ready, 0, 1), [3]);
    }

    #[test]
    fn every_eighth_turn_is_for_the_oldest() {
        let ready = [
            candidate(1, "old", 2),
            candidate(5, "a", 0),
            candidate(6, "b", 0),
        ];
        assert_eq!(seqs(&ready, 6, 2), [5, 1]);
        assert_eq!(seqs(&ready, 7, 1), [1]);
    }
}
