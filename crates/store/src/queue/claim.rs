//! Taking due messages for an attempt.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use wagate_domain::message::{Content, MessageInput, Step};
use wagate_domain::{SessionId, Timestamp, WaMessageId, plant};

use super::{BLOCKED, Claimed, Lane, READY, SCHEDULED, SENDING, promote};
use crate::db::{Dialect, Lock, Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::messages::{Counts, Owner, Priority, TRACKED, Tracked, tracked, write_moves};

/// Every so many claims one goes to the oldest ready message, so that low ones are not starved.
const FAIR_TURN: i64 = 8;
/// Delayed and scheduled messages that one claim makes ready at most.
const DUE_MAX: i64 = 256;
/// Stands where a candidate's priority does.
const DUE_SIGN: i64 = -1;

/// What a claim took, and how many the session may have on their way.
#[derive(Debug)]
pub struct Claims {
    pub claimed: Vec<Claimed>,
    /// In force now; none when there was nothing to take.
    pub concurrency: Option<u32>,
}

/// As [`claim_within`], with nothing on the way beyond `max` where no settings say less.
pub fn claim(
    tx: &mut Tx<'_>,
    lease: &Lease,
    max: u32,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    Ok(claim_within(tx, lease, max, u32::MAX, now)?.claimed)
}

/// Takes up to `max` due messages for an attempt: Queued → Sending.
///
/// Never more than the session's concurrency allows to be on their way, which is `concurrency` where
/// neither session nor tenant has a setting; none while the queue is paused. What is past its validity
/// is left for [`super::expire`]. At most one message per chat is in flight, in each chat and priority the oldest comes first (MP-4);
/// between chats higher priorities go first, with every eighth turn for the oldest of all. The claim is
/// bound to the lease: a new holder makes it due again with [`super::release_stale`].
pub fn claim_within(
    tx: &mut Tx<'_>,
    lease: &Lease,
    max: u32,
    concurrency: u32,
    now: Timestamp,
) -> Result<Claims, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    let mut ready = candidates(tx, &lease.session, max, now)?;
    if ready.iter().any(Candidate::is_sign_of_due) {
        make_due(tx, &lease.session, now)?;
        ready = candidates(tx, &lease.session, max, now)?;
        // More than one bite may be due.
        ready.retain(|candidate| !candidate.is_sign_of_due());
    }
    if ready.is_empty() {
        return Ok(Claims {
            claimed: Vec::new(),
            concurrency: None,
        });
    }
    let room = room(tx, lease, concurrency)?;
    let max = max.min(room.free);
    let picked = pick(
        &ready,
        room.turns,
        usize::try_from(max).unwrap_or(usize::MAX),
    );
    let attempts = take(tx, lease, &picked)?;
    let (claimed, counts) = start(tx, &owner, &picked, &attempts, now)?;
    counts.write(tx, &lease.session);
    Ok(Claims {
        claimed,
        concurrency: Some(room.concurrency),
    })
}

/// What bounds a claim.
struct Room {
    /// Claims so far.
    turns: i64,
    concurrency: u32,
    /// Messages that may still be taken.
    free: u32,
}

/// Reads the settings in force: here, so that a change counts from the next claim on, whoever makes it.
fn room(tx: &mut Tx<'_>, lease: &Lease, default: u32) -> Result<Room, StoreError> {
    let (turns, concurrency, paused, flying) = tx.query_one(
        "SELECT c.turns, COALESCE(q.concurrency, t.concurrency), COALESCE(q.paused, 0), \
         (SELECT COUNT(*) FROM queue f WHERE f.session_id = c.session_id AND f.state = 1) \
         FROM session_counters c LEFT JOIN session_queues q ON q.session_id = c.session_id \
         LEFT JOIN tenant_queues t ON t.tenant_id = c.tenant_id WHERE c.session_id = $1",
        params![&lease.session],
        |row| {
            let set = row.opt_int(1)?.map(|set| u32::try_from(set).unwrap_or(1));
            Ok((row.int(0)?, set, row.flag(2)?, row.small(3)?))
        },
    )?;
    let concurrency = concurrency.unwrap_or(default);
    let free = if paused {
        0
    } else {
        concurrency.saturating_sub(flying)
    };
    let pending = tx.counts.get(&lease.session);
    Ok(Room {
        turns: turns + pending.map_or(0, |counts| counts.turns),
        concurrency,
        free,
    })
}

/// Makes ready what waited for a time that has come.
pub(super) fn make_due(
    tx: &mut Tx<'_>,
    session: &SessionId,
    now: Timestamp,
) -> Result<(), StoreError> {
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
    /// Made so far.
    attempts: u32,
}

impl Candidate {
    /// It is no message: some wait for a time that has come.
    fn is_sign_of_due(&self) -> bool {
        self.priority == DUE_SIGN
    }
}

/// Session, rows of each priority, and the time.
static CANDIDATES: LazyLock<String> = LazyLock::new(|| {
    let front = |rank: i64| {
        format!(
            "SELECT * FROM (SELECT q.message_seq, q.chat, q.priority, q.attempts FROM queue q \
             WHERE q.session_id = $1 AND q.priority = {rank} AND q.state = 0 \
             AND (q.expires_ms IS NULL OR q.expires_ms > $3) AND NOT EXISTS \
             (SELECT 1 FROM queue f WHERE f.session_id = q.session_id AND f.chat = q.chat \
             AND f.state = 1) ORDER BY q.message_seq LIMIT $2) AS p{rank}"
        )
    };
    let fronts = Priority::ALL
        .map(|priority| front(priority.rank()))
        .join(" UNION ALL ");
    format!(
        "{fronts} UNION ALL SELECT 0, '', {DUE_SIGN}, 0 WHERE EXISTS (SELECT 1 FROM queue d \
         WHERE d.session_id = $1 AND d.state IN (2, 3) AND d.due_ms <= $3)"
    )
});

/// The first candidates of each priority, and a sign when there is something to make due: one statement,
/// since most claims find nothing of the kind. Two for each place are enough, since a chat that was picked
/// from another priority can rule out one of them at most.
fn candidates(
    tx: &mut Tx<'_>,
    session: &SessionId,
    max: u32,
    now: Timestamp,
) -> Result<Vec<Candidate>, StoreError> {
    tx.query(
        &CANDIDATES,
        params![session, max.saturating_mul(2), now],
        |row| {
            Ok(Candidate {
                seq: row.int(0)?,
                chat: row.string(1)?,
                priority: row.int(2)?,
                attempts: row.small(3)?,
            })
        },
    )
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
    let take = "UPDATE queue SET state = $2, token = $3, attempts = attempts + 1 \
                WHERE session_id = $1 AND state < 1 AND message_seq IN ({})";
    let fixed = params![&lease.session, SENDING, lease.token];
    if tx.dialect() == Dialect::Sqlite {
        // Nobody else writes, so the candidates are as they were read.
        tx.execute_rows(take, fixed, ("?", 1), &keys)?;
        let taken = picked.iter().map(|one| (one.seq, one.attempts + 1));
        return Ok(taken.collect());
    }
    let sql = format!("{take} RETURNING message_seq, attempts");
    let rows = tx.query_keys(&sql, fixed, &keys, |row| Ok((row.int(0)?, row.small(1)?)))?;
    // A message may have been withdrawn since the candidates were read.
    Ok(rows.into_iter().collect())
}

/// A taken message: what moves, what is sent, when it was accepted, until when it is valid.
type Taken = (Tracked, Content, Timestamp, Option<Timestamp>);

/// Moves the taken messages to Sending and reads what has to be sent.
fn start(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    picked: &[&Candidate],
    attempts: &HashMap<i64, u32>,
    now: Timestamp,
) -> Result<(Vec<Claimed>, Counts), StoreError> {
    let keys: Vec<Value<'_>> = attempts.keys().map(|seq| Value::from(*seq)).collect();
    let sql =
        format!("SELECT {TRACKED}, content, at_ms, expires_ms FROM messages WHERE seq IN ({{}})");
    let sql = tx.locked(&sql, Lock::Update);
    let rows: Vec<Taken> = tx.query_keys(&sql, params![], &keys, |row| {
        Ok((
            tracked(row)?,
            row.json(10)?,
            row.time(11)?,
            row.opt_time(12)?,
        ))
    })?;
    let mut rows: HashMap<i64, Taken> = rows.into_iter().map(|row| (row.0.seq, row)).collect();
    let mut counts = Counts::default();
    let mut moves = Vec::new();
    for candidate in picked {
        let Some((message, ..)) = rows.get_mut(&candidate.seq) else {
            continue;
        };
        let Step::Moved(to) = message.state.apply(MessageInput::Claimed) else {
            return Err(StoreError::corrupt(format!(
                "message {} is not queued",
                message.id
            )));
        };
        message.tries = 1;
        if plant::is("new_id_on_retry") {
            message.wa_id = WaMessageId::generate();
            let sql = "UPDATE messages SET wa_id = $2 WHERE seq = $1";
            tx.execute(sql, params![message.seq, &message.wa_id])?;
        }
        moves.push(message.advance(to, now, None, &mut counts));
        counts.turns += 1;
    }
    let moved: Vec<&Tracked> = rows.values().map(|(message, ..)| message).collect();
    write_moves(tx, owner, &moved, moves, now)?;
    let mut claimed = Vec::with_capacity(rows.len());
    for candidate in picked {
        let Some((message, content, accepted_at, expires_at)) = rows.remove(&candidate.seq) else {
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
            expires_at,
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
            attempts: 0,
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
