//! Inbound messages on their way out of the engine.
//!
//! The library calls our durability hook with decrypted messages and acknowledges them to WhatsApp only
//! after it returned `Ok`; the hook converts them and calls the sink (IN-1). What the sink refuses stays
//! unacknowledged, and WhatsApp delivers it again.

use wagate_domain::{Content, Jid, Timestamp, WaMessageId};

/// One decrypted message, from somebody else or from another device of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundMessage {
    pub wa_id: WaMessageId,
    /// The conversation: a person (by number where that is known) or a group.
    pub chat: Jid,
    /// The other address of the person, when WhatsApp told it.
    pub chat_alt: Option<Jid>,
    /// Who wrote it, without a device; in a direct chat the same as `chat`, or the owner.
    pub sender: Jid,
    /// The writer's other address, when WhatsApp told it.
    pub sender_alt: Option<Jid>,
    /// Written by the owner, on the phone or on another linked device.
    pub from_me: bool,
    /// The name that the writer chose for himself.
    pub push_name: Option<String>,
    /// When WhatsApp's server took it.
    pub sent_at: Timestamp,
    pub content: Content,
    /// Delivered from WhatsApp's queue after we were away.
    pub offline: bool,
}

/// The messages were not committed; WhatsApp will deliver them again.
#[derive(Debug, thiserror::Error)]
#[error("inbound messages were not committed")]
pub struct SinkError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where inbound messages are committed.
#[async_trait::async_trait]
pub trait InboundSink: Send + Sync + 'static {
    /// Commits all of `messages` in one transaction, in order, and returns only after the commit.
    ///
    /// The same message can come again (session, chat, sender, id): that is not an error. Must not wait
    /// for anything that this device sends: it runs inside the device's receive path.
    async fn commit(&self, messages: Vec<InboundMessage>) -> Result<(), SinkError>;
}
