//! News about outbound messages: acknowledgements, receipts, failures; and withdrawal by the caller.

use std::collections::HashMap;

use wagate_domain::message::{Failure, MessageInput, MessageState, Step};
use wagate_domain::{MessageId, TenantId, Timestamp, WaMessageId, plant};

use super::{Counts, Message, Owner, TRACKED, Tracked, WENT_OUT, find, tracked, write_moves};
use crate::db::{Lock, Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::queue;

/// News about an outbound message, by the WhatsApp id that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub wa_id: WaMessageId,
    pub input: MessageInput,
    /// When it happened.
    pub at: Timestamp,
    /// Why, for [`MessageInput::Failed`].
    pub failure: Option<Failure>,
}

/// What an update did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub message: MessageId,
    pub step: Step,
}

/// Applies many updates in order, one answer for each; none where the session sent no such message.
///
/// Moves each message by rank (MP-3), writes history and one `message.status` event per move (EV-1), and
/// finishes the queue row of a message that needs no further attempt, so that its chat goes on.
pub fn apply_many(
    tx: &mut Tx<'_>,
    lease: &Lease,
    updates: &[Update],
    now: Timestamp,
) -> Result<Vec<Option<Applied>>, StoreError> {
    let owner = Owner::of(lease, tx.fence(lease)?);
    let mut messages = load(tx, lease, updates)?;
    let mut counts = Counts::default();
    let mut moves = Vec::new();
    let mut answers = Vec::with_capacity(updates.len());
    for update in updates {
        let Some(message) = messages.get_mut(&update.wa_id) else {
            answers.push(None);
            continue;
        };
        let receipt = matches!(update.input, MessageInput::Receipt(_));
        if receipt && plant::nth("receipt_dropped", 2) {
            answers.push(None);
            continue;
        }
        // A receipt proves that the server took the message, though its acknowledgement may come
        // later: `sent` is recorded with it, so that nobody sees a step left out.
        let proves_sent =
            matches!(update.input, MessageInput::Receipt(_)) && !message.state.is_sent();
        let proof = proves_sent.then_some(MessageInput::ServerAck);
        let mut step = Step::Ignored;
        for input in proof.into_iter().chain([update.input]) {
            step = match input {
                // These belong to the queue, whose row moves with them.
                MessageInput::Claimed | MessageInput::Requeued | MessageInput::Revived => {
                    Step::Refused
                }
                input => message.state.apply(input),
            };
            if let Step::Moved(to) = step {
                let failure = failure_of(to, update.failure.as_ref());
                moves.push(message.advance(to, update.at, failure, &mut counts));
            }
        }
        if receipt && matches!(step, Step::Moved(_)) && plant::nth("status_backwards", 5) {
            moves.push(message.advance(MessageState::Sent, update.at, None, &mut counts));
        }
        answers.push(Some(Applied {
            message: message.id.clone(),
            step,
        }));
    }
    if moves.is_empty() {
        return Ok(answers);
    }
    let moved: Vec<&Tracked> = messages
        .values()
        .filter(|message| message.is_moved())
        .collect();
    write_moves(tx, &owner, &moved, moves, now)?;
    let finished: Vec<i64> = moved
        .iter()
        .filter(|message| message.was_open && message.state.is_final())
        .map(|message| message.seq)
        .collect();
    counts.queued -= queue::finish(tx, &lease.session, &finished)?;
    counts.write(tx, &lease.session);
    Ok(answers)
}

/// Applies one update; see [`apply_many`].
pub fn apply(
    tx: &mut Tx<'_>,
    lease: &Lease,
    update: Update,
    now: Timestamp,
) -> Result<Option<Applied>, StoreError> {
    Ok(apply_many(tx, lease, &[update], now)?.pop().flatten())
}

/// Withdraws a message that is still queued, and gives it as it is now; withdrawing it again changes
/// nothing. [`StoreError::Conflict`] when it is being sent, was sent, or failed.
pub fn cancel(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &MessageId,
    now: Timestamp,
) -> Result<Message, StoreError> {
    let (before, seq) = find(tx, tenant, id)?;
    if plant::is("cancel_forgotten") && before.state == MessageState::Queued {
        return Ok(Message {
            state: MessageState::Canceled,
            ..before
        });
    }
    let name = queue::hold(tx, tenant, &before.session)?;
    let sql = format!("SELECT {TRACKED} FROM messages WHERE seq = $1 AND direction = 'outbound'");
    let sql = tx.locked(&sql, Lock::Update);
    let mut message: Tracked = tx
        .query_opt(&sql, params![seq], tracked)?
        .ok_or(StoreError::NotFound { what: "message" })?;
    match message.state.apply(MessageInput::Canceled) {
        Step::Ignored => {}
        Step::Refused => {
            let what = format!("the message is {} already", message.state);
            return Err(StoreError::Conflict { what });
        }
        Step::Moved(to) => {
            let mut counts = Counts::default();
            let step = message.advance(to, now, None, &mut counts);
            let owner = Owner {
                tenant,
                session: &before.session,
                name,
            };
            write_moves(tx, &owner, &[&message], vec![step], now)?;
            counts.queued -= queue::finish(tx, &before.session, &[message.seq])?;
            counts.write(tx, &before.session);
        }
    }
    Ok(find(tx, tenant, id)?.0)
}

/// The messages that the updates are about, locked against anybody else's move.
fn load(
    tx: &mut Tx<'_>,
    lease: &Lease,
    updates: &[Update],
) -> Result<HashMap<WaMessageId, Tracked>, StoreError> {
    let ids: Vec<Value<'_>> = updates
        .iter()
        .map(|update| Value::from(&update.wa_id))
        .collect();
    let sql = format!(
        "SELECT {TRACKED} FROM messages \
         WHERE session_id = $1 AND {WENT_OUT} AND wa_id IN ({{}})"
    );
    let sql = tx.locked(&sql, Lock::Update);
    let rows = tx.query_keys(&sql, params![&lease.session], &ids, tracked)?;
    Ok(rows
        .into_iter()
        .map(|message| (message.wa_id.clone(), message))
        .collect())
}

/// A failed message always has a reason to show.
fn failure_of(to: MessageState, given: Option<&Failure>) -> Option<Failure> {
    (to == MessageState::Failed).then(|| {
        given.cloned().unwrap_or_else(|| Failure {
            code: "unknown".to_owned(),
            reason: "The message could not be sent.".to_owned(),
        })
    })
}
