use wagate_domain::{message::*, Jid, MessageId, SessionId, SessionName, TenantId, Timestamp, WaMessageId};
use crate::{db::Tx, error::StoreError, idempotency::IdempotencyKey, leases::Lease, page::{Page, PageRequest}};

/// The order in which messages of a session go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority { High, #[default] Normal, Low }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId, pub tenant: TenantId, pub session: SessionId, pub session_name: SessionName,
    pub direction: Direction, pub from_me: bool, pub chat: Jid,
    /// Who wrote it; none for what we send.
    pub sender: Option<Jid>, pub push_name: Option<String>,
    pub wa_id: WaMessageId, pub content: Content, pub state: MessageState, pub priority: Priority,
    pub failure: Option<Failure>, pub attempts: u32,
    /// When it was accepted, or when WhatsApp says that it was written.
    pub at: Timestamp,
    pub sent_at: Option<Timestamp>, pub delivered_at: Option<Timestamp>, pub read_at: Option<Timestamp>, pub updated_at: Timestamp,
}
/// One step of a message's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry { pub state: MessageState, pub at: Timestamp, pub failure: Option<Failure> }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageWithHistory { pub message: Message, pub history: Vec<HistoryEntry> }

#[derive(Clone, Debug)]
pub struct NewOutbound { pub session: SessionId, pub chat: Jid, pub content: Content, pub priority: Priority, pub not_before: Option<Timestamp>, pub idempotency: Option<IdempotencyKey> }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted { pub message: Message, /// The key was used before; this is the first message.
    pub replayed: bool }

/// Message, queue row, history and event in one call (MP-1, MP-2). Conflict: the idempotency key was used with another body. Limit: QUEUE_PER_SESSION_MAX.
pub fn accept(_tx: &mut Tx<'_>, _tenant: &TenantId, _new: NewOutbound, _now: Timestamp) -> Result<Accepted, StoreError> { todo!() }
pub fn get(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &MessageId) -> Result<MessageWithHistory, StoreError> { todo!() }
#[derive(Clone, Debug, Default)]
pub struct MessageFilter { pub chat: Option<Jid>, pub direction: Option<Direction>, pub state: Option<MessageState> }
/// Newest first.
pub fn list(_tx: &mut Tx<'_>, _tenant: &TenantId, _session: &SessionId, _filter: &MessageFilter, _page: &PageRequest) -> Result<Page<Message>, StoreError> { todo!() }
pub fn count(_tx: &mut Tx<'_>, _tenant: &TenantId, _session: &SessionId, _filter: &MessageFilter) -> Result<u64, StoreError> { todo!() }
/// Withdraws what is still queued; Conflict when it is being sent or was. The canceled message comes back (again, if it was canceled before).
pub fn cancel(_tx: &mut Tx<'_>, _tenant: &TenantId, _id: &MessageId, _now: Timestamp) -> Result<Message, StoreError> { todo!() }

/// News about an outbound message, by its WhatsApp id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update { pub wa_id: WaMessageId, pub input: MessageInput, pub at: Timestamp, pub failure: Option<Failure> }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied { pub message: MessageId, pub step: Step }
/// Fenced. One answer per update, in order; None: no such outbound message in the session. Moves by rank (MP-3), writes history and events, finishes the queue row once the server has it.
pub fn apply_many(_tx: &mut Tx<'_>, _lease: &Lease, _updates: &[Update], _now: Timestamp) -> Result<Vec<Option<Applied>>, StoreError> { todo!() }
pub fn apply(_tx: &mut Tx<'_>, _lease: &Lease, _update: Update, _now: Timestamp) -> Result<Option<Applied>, StoreError> { todo!() }

/// A message that came from WhatsApp, or was written on the owner's own phone (`from_me`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInbound { pub wa_id: WaMessageId, pub chat: Jid, pub sender: Jid, pub from_me: bool, pub push_name: Option<String>, pub content: Content, pub at: Timestamp }
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted { New(MessageId), Duplicate }
/// Fenced. One answer per message, in order (IN-1: unique by session, chat, sender and WhatsApp id). What is `from_me` becomes an outbound message in state Sent. Emits message.received.
pub fn insert_inbound(_tx: &mut Tx<'_>, _lease: &Lease, _messages: &[NewInbound], _now: Timestamp) -> Result<Vec<Inserted>, StoreError> { todo!() }
