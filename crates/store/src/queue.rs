use wagate_domain::{message::*, Jid, MessageId, SessionId, TenantId, Timestamp, WaMessageId};
use crate::{db::Tx, error::StoreError, leases::Lease, messages::Priority};

/// A message taken for one attempt. Made by `claim` only; used up by `retry` or `fail`, or dropped once the server's acknowledgement went through `messages::apply`.
#[derive(Debug, PartialEq, Eq)]
pub struct Claimed { pub message: MessageId, pub wa_id: WaMessageId, pub chat: Jid, pub content: Content, pub priority: Priority, /// From 1.
    pub attempt: u32, pub accepted_at: Timestamp, pub(crate) seq: i64 }
/// Fenced. Up to `max` due messages, at most one in flight per chat, oldest per chat and priority first (MP-4); Queued → Sending.
pub fn claim(_tx: &mut Tx<'_>, _lease: &Lease, _max: u32, _now: Timestamp) -> Result<Vec<Claimed>, StoreError> { todo!() }
/// When the next attempt may be made, and whether this one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry { pub due: Timestamp, pub counts: bool }
/// Fenced. Back to Queued, at the head of its chat. False: it was finished meanwhile (a late acknowledgement).
pub fn retry(_tx: &mut Tx<'_>, _lease: &Lease, _claimed: Claimed, _retry: Retry, _now: Timestamp) -> Result<bool, StoreError> { todo!() }
/// Fenced. Failed for good; the chat's next message becomes due. False: it was finished meanwhile.
pub fn fail(_tx: &mut Tx<'_>, _lease: &Lease, _claimed: Claimed, _failure: &Failure, _now: Timestamp) -> Result<bool, StoreError> { todo!() }
/// Fenced; call once when an actor starts. What an earlier holder had in flight is due again, with the same WhatsApp id (MP-2).
pub fn release_stale(_tx: &mut Tx<'_>, _lease: &Lease, _now: Timestamp) -> Result<u64, StoreError> { todo!() }
/// Fenced. The earliest time at which something waiting becomes due; None: nothing waits. `now` or earlier: claim.
pub fn next_due(_tx: &mut Tx<'_>, _lease: &Lease) -> Result<Option<Timestamp>, StoreError> { todo!() }
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats { /// Due, or behind another of its chat.
    pub waiting: u64, /// Being sent.
    pub active: u64, /// Waiting for a time (retry or sendAt).
    pub delayed: u64 }
pub fn stats(_tx: &mut Tx<'_>, _tenant: &TenantId, _session: Option<&SessionId>) -> Result<QueueStats, StoreError> { todo!() }
/// Sessions of this worker that have something due: for the tick.
pub fn due_sessions(_tx: &mut Tx<'_>, _worker: &wagate_domain::WorkerId, _now: Timestamp) -> Result<Vec<SessionId>, StoreError> { todo!() }
