//! Messages that a device of the recipient could not decrypt, and asked for again (a retry receipt).
//!
//! The protocol library answers such a request at once, and acknowledges it before. Its answer may be
//! refused by WhatsApp or lost, and a process that dies in between gives none; then the message would stay
//! `sent` and be shown to nobody. So a request is noted, and as long as no device has confirmed the
//! message it is sent again, under the same WhatsApp id (MP-2), a few times with growing waits.

use std::time::Duration;

use wagate_domain::message::{Content, MessageState};
use wagate_domain::{Jid, MessageId, SessionId, Timestamp, WaMessageId, WorkerId};

use super::WENT_OUT;
use crate::db::{Tx, params};
use crate::error::StoreError;
use crate::leases::Lease;

/// How often a message is sent again before it is given up.
pub const RESENDS_MAX: u32 = 5;
/// Messages of a session that one look sends again.
const LOOK_MAX: u32 = 20;

/// A message to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resend {
    pub wa_id: WaMessageId,
    pub chat: Jid,
    pub content: Content,
    /// The how-manieth time this is, from 1.
    pub time: u32,
}

/// What a look at the due requests found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueResends {
    pub resends: Vec<Resend>,
    /// Messages that were sent again [`RESENDS_MAX`] times, and that no device has confirmed.
    pub given_up: Vec<MessageId>,
}

/// To whom the session sent or is sending this message, and its content, for a device that asks for it
/// again; none where the session wrote no such message. Whoever asks must belong to that chat.
pub fn sent(
    tx: &mut Tx<'_>,
    session: &SessionId,
    wa_id: &WaMessageId,
) -> Result<Option<(Jid, Content)>, StoreError> {
    let sql = format!(
        "SELECT chat, content FROM messages \
         WHERE session_id = $1 AND wa_id = $2 AND sender = '' AND {WENT_OUT}"
    );
    tx.query_opt(&sql, params![session, wa_id], |row| {
        Ok((row.parse(0)?, row.json(1)?))
    })
}

/// When WhatsApp took the message with this id, or when it was accepted, if no word came yet; none where
/// the session wrote no such message.
pub fn sent_at(
    tx: &mut Tx<'_>,
    session: &SessionId,
    wa_id: &WaMessageId,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = format!(
        "SELECT COALESCE(sent_ms, at_ms) FROM messages \
         WHERE session_id = $1 AND wa_id = $2 AND sender = '' AND {WENT_OUT}"
    );
    tx.query_opt(&sql, params![session, wa_id], |row| row.time(0))
}

/// Notes that a device asked for a message again. At `due` the first look is taken at what became of it.
///
/// Whether there is something to watch now that was not before: nothing changes for a message that a
/// device has confirmed, that failed, or that is watched already.
pub fn note_asked_again(
    tx: &mut Tx<'_>,
    lease: &Lease,
    wa_id: &WaMessageId,
    due: Timestamp,
) -> Result<bool, StoreError> {
    tx.fence(lease)?;
    let sql = format!(
        "INSERT INTO resends (message_seq, tenant_id, session_id, times, due_ms) \
         SELECT seq, tenant_id, session_id, 0, CAST($3 AS BIGINT) FROM messages \
         WHERE session_id = $1 AND wa_id = $2 AND sender = '' AND {WENT_OUT} \
         AND (state = 'queued' OR state = 'sending' OR state = 'sent') \
         ON CONFLICT (message_seq) DO NOTHING"
    );
    let noted = tx.execute(&sql, params![&lease.session, wa_id, due])?;
    Ok(noted > 0)
}

/// The sessions of a worker that have a request to look after.
///
/// No wait is longer than `longest`: what is due later was written by a clock that was ahead, and is due.
pub fn sessions_to_resend(
    tx: &mut Tx<'_>,
    worker: &WorkerId,
    now: Timestamp,
    longest: Duration,
) -> Result<Vec<SessionId>, StoreError> {
    tx.query(
        "SELECT DISTINCT r.session_id FROM resends r JOIN leases l ON l.session_id = r.session_id \
         WHERE (r.due_ms <= $2 OR r.due_ms > $3) AND l.worker_id = $1",
        params![worker, now, now.plus(longest)],
        |row| row.parse(0),
    )
}

/// Takes the messages of a session that are to be sent again now. `wait` says how long after its n-th
/// time, from 0, a message is looked at again; the wait after the last is the longest.
///
/// A message that was confirmed meanwhile is watched no longer; one that the queue is still sending is
/// looked at later.
pub fn take_due_resends(
    tx: &mut Tx<'_>,
    lease: &Lease,
    now: Timestamp,
    wait: impl Fn(u32) -> Duration,
) -> Result<DueResends, StoreError> {
    tx.fence(lease)?;
    let rows: Vec<(i64, u32, MessageState, MessageId, WaMessageId, Jid, Content)> = tx.query(
        "SELECT r.message_seq, r.times, m.state, m.id, m.wa_id, m.chat, m.content \
         FROM resends r JOIN messages m ON m.seq = r.message_seq \
         WHERE (r.due_ms <= $2 OR r.due_ms > $3) AND r.session_id = $1 \
         ORDER BY r.due_ms LIMIT $4",
        params![&lease.session, now, now.plus(wait(RESENDS_MAX)), LOOK_MAX],
        |row| {
            Ok((
                row.int(0)?,
                row.small(1)?,
                row.parse(2)?,
                row.parse(3)?,
                row.wa_id(4)?,
                row.parse(5)?,
                row.json(6)?,
            ))
        },
    )?;
    let mut due = DueResends::default();
    for (seq, times, state, id, wa_id, chat, content) in rows {
        let next = match state {
            MessageState::Queued | MessageState::Sending => Some((times, Some(now.plus(wait(0))))),
            MessageState::Sent if times >= RESENDS_MAX => {
                due.given_up.push(id);
                Some((times, None))
            }
            MessageState::Sent => {
                let time = times + 1;
                due.resends.push(Resend {
                    wa_id,
                    chat,
                    content,
                    time,
                });
                Some((time, Some(now.plus(wait(time)))))
            }
            _ => None,
        };
        match next {
            Some((times, at)) => tx.execute(
                "UPDATE resends SET times = $2, due_ms = $3 WHERE message_seq = $1",
                params![seq, times, at],
            )?,
            None => tx.execute("DELETE FROM resends WHERE message_seq = $1", params![seq])?,
        };
    }
    Ok(due)
}
