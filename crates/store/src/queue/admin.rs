//! What a tenant changes in its queues: clearing, trying again what failed, deleting it.
//!
//! Everything here locks the session's lease row first ([`held`]), so that it meets the session's
//! worker nowhere half-way. Nothing that is being sent is touched. The WhatsApp id stays in whatever is
//! tried again: it may have arrived (MP-2).

use wagate_domain::message::{MessageInput, MessageState, Step};
use wagate_domain::{Event, MessageId, SessionId, TenantId, Timestamp};

use super::dead_letters::{self, DeadFilter};
use super::{JobState, enqueue, finish, hold, load};
use crate::db::{Tx, Value, params};
use crate::error::StoreError;
use crate::messages::{Counts, Message, Owner, Tracked, by_seqs, find, write_moves};
use crate::outbox;

/// Locks a session's lease row, and gives whose it is. [`StoreError::NotFound`] when the tenant has no such
/// session.
pub(super) fn held<'a>(
    tx: &mut Tx<'_>,
    tenant: &'a TenantId,
    session: &'a SessionId,
) -> Result<Owner<'a>, StoreError> {
    Ok(Owner {
        tenant,
        session,
        name: hold(tx, tenant, session)?,
    })
}

/// Withdraws what waits in a session's queue in one of the states, at most `limit` messages; they end
/// canceled. [`JobState::Active`] is never withdrawn. Fewer than `limit`: nothing is left.
pub fn clear(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    states: &[JobState],
    limit: u32,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let owner = held(tx, tenant, session)?;
    let mut seqs = Vec::new();
    // From behind, so that no message becomes the head of its lane only to be withdrawn too.
    for (state, condition) in [
        (JobState::Waiting, "state = 4"),
        (JobState::Scheduled, "state IN (2, 3) AND state = 3"),
        (JobState::Delayed, "state IN (2, 3) AND state = 2"),
        (JobState::Waiting, "state = 0"),
    ] {
        let room = i64::from(limit) - i64::try_from(seqs.len()).unwrap_or(i64::MAX);
        if !states.contains(&state) || room <= 0 {
            continue;
        }
        let sql =
            format!("SELECT message_seq FROM queue WHERE session_id = $1 AND {condition} LIMIT $2");
        seqs.extend(tx.query(&sql, params![session, room], |row| row.int(0))?);
    }
    end(tx, &owner, &seqs, MessageInput::Canceled, now)
}

/// Ends queued messages in one way, and gives those that it ended; the next of their chats become due.
pub(super) fn end(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    seqs: &[i64],
    input: MessageInput,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let messages = load(tx, seqs)?;
    let (messages, mut counts) = moved(tx, owner, messages, input, now)?;
    let ended: Vec<i64> = messages.iter().map(|message| message.seq).collect();
    counts.queued -= finish(tx, owner.session, &ended)?;
    counts.write(tx, owner.session);
    Ok(messages.into_iter().map(|message| message.id).collect())
}

/// Applies the input to messages that were loaded, and gives those that moved by it.
fn moved(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    mut messages: Vec<Tracked>,
    input: MessageInput,
    now: Timestamp,
) -> Result<(Vec<Tracked>, Counts), StoreError> {
    let mut counts = Counts::default();
    let mut moves = Vec::with_capacity(messages.len());
    for message in &mut messages {
        if let Step::Moved(to) = message.state.apply(input) {
            moves.push(message.advance(to, now, None, &mut counts));
        }
    }
    messages.retain(Tracked::is_moved);
    let moved: Vec<_> = messages.iter().collect();
    write_moves(tx, owner, &moved, moves, now)?;
    Ok((messages, counts))
}

/// Queues a failed or expired message again, with all attempts and under the same WhatsApp id.
///
/// It takes its old place in its chat, at once. `expires_at` is its new validity; without one the old
/// one stays, unless it is over. [`StoreError::Conflict`] names the state of any other message.
pub fn revive(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Message, StoreError> {
    let (before, seq) = find(tx, tenant, id)?;
    let owner = held(tx, tenant, &before.session)?;
    let revived = bring_back(tx, &owner, &[seq], expires_at, now)?;
    let (message, _) = find(tx, tenant, id)?;
    if revived.is_empty() {
        return Err(not_dead(&message));
    }
    Ok(message)
}

/// Revives a session's dead letters, the oldest first, at most `limit`. Fewer: nothing is left.
pub fn revive_some(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    code: Option<&str>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let owner = held(tx, tenant, session)?;
    let seqs = oldest_dead(tx, tenant, session, code, limit)?;
    bring_back(tx, &owner, &seqs, None, now)
}

fn oldest_dead(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    code: Option<&str>,
    limit: u32,
) -> Result<Vec<i64>, StoreError> {
    let filter = DeadFilter {
        session: Some(session.clone()),
        code: code.map(str::to_owned),
    };
    let rows = dead_letters::find(tx, tenant, &filter, (0, ">", "ASC"), i64::from(limit))?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

fn bring_back(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    seqs: &[i64],
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let mut messages = load(tx, seqs)?;
    messages.sort_by_key(|message| message.seq);
    let (messages, mut counts) = moved(tx, owner, messages, MessageInput::Revived, now)?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<Value<'_>> = messages.iter().map(|message| message.seq.into()).collect();
    // Who asks for another attempt now means now, whatever time was wanted before.
    tx.execute_rows(
        "UPDATE messages SET not_before_ms = NULL, expires_ms = CASE \
         WHEN CAST($1 AS BIGINT) IS NOT NULL THEN CAST($1 AS BIGINT) \
         WHEN expires_ms > $2 THEN expires_ms ELSE NULL END WHERE seq IN ({})",
        params![expires_at, now],
        ("?", 1),
        &keys,
    )?;
    // Who was not on WhatsApp may be there by now: it is asked again.
    let chats: Vec<Value<'_>> = messages
        .iter()
        .map(|message| (&message.chat).into())
        .collect();
    tx.execute_rows(
        "DELETE FROM absent_numbers WHERE session_id = $1 AND chat IN ({})",
        params![owner.session],
        ("?", 1),
        &chats,
    )?;
    let seqs: Vec<i64> = messages.iter().map(|message| message.seq).collect();
    let rows = by_seqs(tx, &seqs)?;
    for seq in &seqs {
        if let Some(message) = rows.get(seq) {
            enqueue(tx, message, *seq, now)?;
            counts.queued += 1;
        }
    }
    counts.write(tx, owner.session);
    Ok(messages.into_iter().map(|message| message.id).collect())
}

/// Deletes a failed or expired message with its history, and gives it as it was. Emits
/// `message.deleted`. [`StoreError::Conflict`] names the state of any other message.
pub fn delete_dead(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
    now: Timestamp,
) -> Result<Message, StoreError> {
    let (before, seq) = find(tx, tenant, id)?;
    let owner = held(tx, tenant, &before.session)?;
    if remove(tx, &owner, &[seq], now)?.is_empty() {
        return Err(not_dead(&find(tx, tenant, id)?.0));
    }
    Ok(before)
}

/// Deletes a session's dead letters, the oldest first, at most `limit`. Fewer: nothing is left.
pub fn clear_dead(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let owner = held(tx, tenant, session)?;
    let seqs = oldest_dead(tx, tenant, session, None, limit)?;
    remove(tx, &owner, &seqs, now)
}

fn not_dead(message: &Message) -> StoreError {
    StoreError::Conflict {
        what: message.state.to_string(),
    }
}

fn remove(
    tx: &mut Tx<'_>,
    owner: &Owner<'_>,
    seqs: &[i64],
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    // Locked, and looked at again: an acknowledgement may have lifted the verdict.
    let mut messages = load(tx, seqs)?;
    messages.retain(|message| message.was_dead);
    let keys: Vec<Value<'_>> = messages.iter().map(|message| message.seq.into()).collect();
    // History and dead letter go with their message.
    let sql = "DELETE FROM messages WHERE seq IN ({})";
    tx.execute_rows(sql, params![], ("?", 1), &keys)?;
    let mut counts = Counts::default();
    for message in &messages {
        counts.failed -= i64::from(message.state == MessageState::Failed);
        let event = Event::MessageDeleted {
            session: owner.name.clone(),
            message: message.id.clone(),
            chat: message.chat.clone(),
        };
        outbox::append(tx, owner.tenant, Some(owner.session), &event, now)?;
    }
    counts.write(tx, owner.session);
    Ok(messages.into_iter().map(|message| message.id).collect())
}

/// What a session may hold that a tenant can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Messages that are not finished.
    Queued,
    /// Messages that failed or expired.
    Dead,
}

/// The tenant's next sessions that hold such messages, in order of creation.
pub fn holders(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    holding: Holding,
    after: Option<&SessionId>,
    limit: u32,
) -> Result<Vec<SessionId>, StoreError> {
    let condition = match holding {
        Holding::Queued => {
            "EXISTS (SELECT 1 FROM session_counters c WHERE c.session_id = s.id AND c.queued > 0)"
        }
        Holding::Dead => "EXISTS (SELECT 1 FROM dead_letters d WHERE d.session_id = s.id)",
    };
    let sql = format!(
        "SELECT s.id FROM sessions s WHERE s.tenant_id = $1 AND s.id > $2 \
         AND s.desired <> 'deleted' AND {condition} ORDER BY s.id LIMIT $3"
    );
    let after = after.map_or("", SessionId::as_str);
    tx.query(&sql, params![tenant, after, limit], |row| row.parse(0))
}
