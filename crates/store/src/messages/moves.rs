//! Writing moves of state: the message, its history, the session's counters and the events, for many
//! messages in a few statements.

use wagate_domain::limits::QUEUE_PER_SESSION_MAX;
use wagate_domain::message::{Failure, MessageState};
use wagate_domain::{
    Event, Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId,
};

use super::to_json;
use crate::db::{Dialect, Row, Tx, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::outbox;
use crate::queue::dead_letters;

/// The session whose messages move.
pub(crate) struct Owner<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) session: &'a SessionId,
    pub(crate) name: SessionName,
}

impl<'a> Owner<'a> {
    pub(crate) fn of(lease: &'a Lease, name: SessionName) -> Self {
        Self {
            tenant: &lease.tenant,
            session: &lease.session,
            name,
        }
    }
}

/// An outbound message as far as its moves concern it.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) seq: i64,
    pub(crate) id: MessageId,
    pub(crate) wa_id: WaMessageId,
    pub(crate) chat: Jid,
    pub(crate) state: MessageState,
    version: i64,
    sent: Option<Timestamp>,
    delivered: Option<Timestamp>,
    read: Option<Timestamp>,
    failure: Option<Failure>,
    /// Attempts to add.
    pub(crate) tries: i64,
    /// The version that is stored.
    stored: i64,
    /// It had a queue row when it was read.
    pub(crate) was_open: bool,
    /// It was among the dead letters when it was read.
    pub(crate) was_dead: bool,
}

/// One move, for the history and the event.
pub(crate) struct Move {
    seq: i64,
    version: i64,
    id: MessageId,
    chat: Jid,
    to: MessageState,
    at: Timestamp,
    failure: Option<Failure>,
}

/// What moves add to the session's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) queued: i64,
    pub(crate) sent: i64,
    pub(crate) delivered: i64,
    pub(crate) read: i64,
    pub(crate) failed: i64,
    pub(crate) received: i64,
    pub(crate) turns: i64,
}

/// Messages that the session may have sent, here or from the owner's phone: the condition of the index that
/// finds them by their WhatsApp ids. Word for word, since a planner knows it by its words.
pub(crate) const WENT_OUT: &str = "direction = 'outbound' AND (attempts > 0 OR sender <> '')";

/// The columns that [`tracked`] reads.
pub(crate) const TRACKED: &str = "seq, id, wa_id, chat, state, version, sent_ms, delivered_ms, \
                                  read_ms, failure";

pub(crate) fn tracked(row: Row<'_>) -> Result<Tracked, StoreError> {
    let version = row.int(5)?;
    let state: MessageState = row.parse(4)?;
    Ok(Tracked {
        seq: row.int(0)?,
        id: row.parse(1)?,
        wa_id: row.wa_id(2)?,
        chat: row.parse(3)?,
        state,
        version,
        sent: row.opt_time(6)?,
        delivered: row.opt_time(7)?,
        read: row.opt_time(8)?,
        failure: row.opt_json(9)?,
        tries: 0,
        stored: version,
        was_open: !state.is_final(),
        was_dead: is_dead(state),
    })
}

impl Tracked {
    /// There is something to write.
    pub(crate) fn is_moved(&self) -> bool {
        self.version != self.stored
    }

    /// Why it is a dead letter, if it is one.
    pub(crate) fn dead_code(&self) -> Option<&str> {
        let failure = self.failure.as_ref();
        is_dead(self.state).then(|| failure.map_or("expired", |failure| failure.code.as_str()))
    }

    /// Moves the message and says what was done, for [`write_moves`].
    pub(crate) fn advance(
        &mut self,
        to: MessageState,
        at: Timestamp,
        failure: Option<Failure>,
        counts: &mut Counts,
    ) -> Move {
        counts.sent += i64::from(fill(&mut self.sent, to.is_sent(), at));
        let delivered = to.is_sent() && to != MessageState::Sent;
        counts.delivered += i64::from(fill(&mut self.delivered, delivered, at));
        let read = matches!(to, MessageState::Read | MessageState::Played);
        counts.read += i64::from(fill(&mut self.read, read, at));
        counts.failed += i64::from(to == MessageState::Failed);
        // The verdict was wrong and is taken back.
        counts.failed -= i64::from(self.state == MessageState::Failed);
        self.state = to;
        self.version += 1;
        self.failure.clone_from(&failure);
        Move {
            seq: self.seq,
            version: self.version,
            id: self.id.clone(),
            chat: self.chat.clone(),
            to,
            at,
            failure,
        }
    }
}

/// Ended without being sent, in a way that allows to try it again.
fn is_dead(state: MessageState) -> bool {
    matches!(state, MessageState::Failed | MessageState::Expired)
}

fn fill(field: &mut Option<Timestamp>, reached: bool, at: Timestamp) -> bool {
    let first = reached && field.is_none();
    if first {
        *field = Some(at);
    }
    first
}

/// A move names the version that it starts from.
const MOVE: &str = "UPDATE messages SET state = $4, version = $5, failure = $6, sent_ms = $7, \
     delivered_ms = $8, read_ms = $9, updated_ms = $1 WHERE seq = $2 AND version = $3";
/// For an attempt. In a statement of its own, since SQLite writes an index anew whose condition names a
/// column that is set ([`WENT_OUT`]).
const MOVE_AND_TRY: &str = "UPDATE messages SET state = $4, version = $5, failure = $6, sent_ms = $7, \
     delivered_ms = $8, read_ms = $9, attempts = attempts + $10, updated_ms = $1 \
     WHERE seq = $2 AND version = $3";
/// The same for several in one round trip.
const MOVE_MANY: &str = "UPDATE messages SET state = v.column3, version = v.column4, \
     failure = v.column5, sent_ms = v.column6, delivered_ms = v.column7, read_ms = v.column8, \
     attempts = attempts + v.column9, updated_ms = $1 FROM (VALUES {}) AS v \
     WHERE messages.seq = v.column1 AND messages.version = v.column2";
const MOVE_ROW: &str = "(CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS TEXT), CAST(? AS BIGINT), \
     CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT))";

/// Values of a row without its attempts.
const PLAIN: usize = 8;

/// Writes what [`Tracked::advance`] did to `messages`.
pub(crate) fn write_moves(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    messages: &[&Tracked],
    moves: Vec<Move>,
    now: Timestamp,
) -> Result<(), StoreError> {
    if update(tx, messages, now)? != messages.len() {
        // Somebody moved one of them since it was read: nothing of this is kept.
        return Err(StoreError::Busy);
    }
    dead_letters::note(tx, owner, messages, now)?;
    let mut rows = Vec::with_capacity(moves.len());
    for step in &moves {
        let failure = step.failure.as_ref().map(to_json).transpose()?;
        let row = params![step.seq, step.version, step.to.as_str(), step.at, failure];
        rows.push(row.to_vec());
    }
    let head = "INSERT INTO message_history (message_seq, version, state, at_ms, failure)";
    tx.insert_rows(head, 5, "", &rows)?;
    for step in moves {
        let event = Event::MessageStatus {
            session: owner.name.clone(),
            message: step.id,
            chat: step.chat,
            status: step.to,
            at: step.at,
            failure: step.failure,
        };
        outbox::append(tx, owner.tenant, Some(owner.session), &event, now)?;
    }
    Ok(())
}

/// Writes the rows, and gives how many there were.
fn update(tx: &mut Tx<'_>, messages: &[&Tracked], now: Timestamp) -> Result<usize, StoreError> {
    let (mut plain, mut tried) = (Vec::new(), Vec::new());
    let sqlite = tx.dialect() == Dialect::Sqlite;
    for message in messages {
        let failure = message.failure.as_ref().map(to_json).transpose()?;
        let row = params![
            message.seq,
            message.stored,
            message.state.as_str(),
            message.version,
            failure,
            message.sent,
            message.delivered,
            message.read,
            message.tries
        ];
        if sqlite && message.tries == 0 {
            plain.extend_from_slice(&row[..PLAIN]);
        } else {
            tried.extend_from_slice(row);
        }
    }
    let (sql, template) = match sqlite {
        true => (MOVE_AND_TRY, ""),
        false => (MOVE_MANY, MOVE_ROW),
    };
    let changed = tx.execute_rows(MOVE, params![now], ("", PLAIN), &plain)?
        + tx.execute_rows(sql, params![now], (template, PLAIN + 1), &tried)?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}

impl Counts {
    /// Adds to the session's counters when the closure ends: whoever accepts for the session meets at
    /// that row, and must not wait behind a transaction that waits for others.
    pub(crate) fn write(self, tx: &mut Tx<'_>, session: &SessionId) {
        if self == Self::default() {
            return;
        }
        let counts = tx.counts.entry(session.clone()).or_default();
        counts.queued += self.queued;
        counts.sent += self.sent;
        counts.delivered += self.delivered;
        counts.read += self.read;
        counts.failed += self.failed;
        counts.received += self.received;
        counts.turns += self.turns;
    }
}

/// Writes what [`Counts::write`] collected, session by session in one order.
///
/// [`StoreError::Limit`] when more was accepted than a queue may hold (BD-1).
pub(crate) fn flush_counts(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    for (session, counts) in std::mem::take(&mut tx.counts) {
        let room = tx.execute(
            "UPDATE session_counters SET queued = queued + $2, sent = sent + $3, \
             delivered = delivered + $4, seen = seen + $5, failed = failed + $6, \
             received = received + $7, turns = turns + $8 \
             WHERE session_id = $1 AND (queued + $2 <= $9 OR $2 <= 0)",
            params![
                &session,
                counts.queued,
                counts.sent,
                counts.delivered,
                counts.read,
                counts.failed,
                counts.received,
                counts.turns,
                QUEUE_PER_SESSION_MAX
            ],
        )?;
        if room == 0 && counts.queued > 0 {
            return Err(StoreError::Limit {
                what: "queued messages of the session",
            });
        }
    }
    Ok(())
}
