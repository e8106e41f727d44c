//! What arrives: opening the copies that are for the phone, showing them, confirming them.

use std::borrow::Cow;

use wacore_libsignal::protocol::SignalProtocolError;
use waproto::whatsapp as wa;

use super::Phone;
use super::content::{Meaning, Shown, meaning, unpad};
use super::port::{PhoneEvent, PhonePort};
use super::receipts::acknowledge;
use super::screen::ScreenMessage;
use super::signal::DeviceKey;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::Millis;

/// Who sent a message, in which chat, and how it came.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) id: String,
    /// The `from` attribute: where receipts go.
    pub(super) wire_from: Jid,
    pub(super) participant: Option<Jid>,
    /// For what a device of the same owner sent: the chat that it went to.
    pub(super) recipient: Option<Jid>,
    pub(super) sender: DeviceKey,
    /// The author by number.
    pub(super) author: String,
    pub(super) from_me: bool,
    /// Between devices of one account, not part of a chat.
    pub(super) is_peer: bool,
    /// The chat as the screen names it.
    pub(super) chat: String,
    push_name: Option<String>,
    pub(super) sent_at_ms: Millis,
}

/// What became of a stanza's ciphertexts.
#[derive(Debug, Default)]
struct Opened {
    messages: Vec<wa::Message>,
    duplicates: u32,
    failure: Option<String>,
}

impl Phone {
    pub(super) fn on_message(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort) {
        let Some(mut envelope) = self.envelope(now, node, port) else {
            tracing::warn!(%node, "a phone does not understand a message's address");
            port.send(acknowledge("message", node));
            return;
        };
        if !envelope.is_peer && !self.decrypts() {
            let shown = Shown {
                kind: "encrypted",
                text: None,
                quoted: None,
            };
            self.confirm_delivery(&envelope, node, port);
            self.show(now, &envelope, shown, port);
            return;
        }
        let opened = self.open_all(&mut envelope, node);
        if let Some(reason) = &opened.failure
            && opened
                .messages
                .iter()
                .all(|message| meaning(message) == Meaning::Silent)
        {
            self.ask_again(&envelope, reason, port);
            return;
        }
        self.confirm_delivery(&envelope, node, port);
        if opened.duplicates > 0 && opened.messages.is_empty() {
            self.count_copy(&envelope, port);
        }
        for message in opened.messages {
            self.take(now, &mut envelope, &message, port);
        }
    }

    fn envelope(&self, now: Millis, node: &Node, port: &mut dyn PhonePort) -> Option<Envelope> {
        let wire_from = node.jid("from")?;
        let participant = node.jid("participant");
        let recipient = node.jid("recipient");
        let sender = participant.as_ref().unwrap_or(&wire_from);
        let peer = port.peer(sender)?;
        let from_me = peer.account == self.me.account;
        let author = peer.pn.bare().to_string();
        let chat = match (&recipient, from_me) {
            _ if !wire_from.is_user() => wire_from.to_string(),
            (Some(chat), true) => Self::chat_name(chat, port),
            _ => author.clone(),
        };
        Some(Envelope {
            id: node.get("id")?.into_owned(),
            sender: (peer.account, sender.device),
            is_peer: from_me && node.get("category").as_deref() == Some("peer"),
            push_name: node.get("notify").map(Cow::into_owned),
            sent_at_ms: node
                .number("t")
                .and_then(|seconds| i64::try_from(seconds).ok())
                .map_or(now, |seconds| seconds.saturating_mul(1_000)),
            wire_from,
            participant,
            recipient,
            author,
            from_me,
            chat,
        })
    }

    fn open_all(&mut self, envelope: &mut Envelope, node: &Node) -> Opened {
        let mut opened = Opened::default();
        for enc in node.all("enc") {
            match self.open(envelope, enc) {
                Ok(message) => {
                    self.learn_sender_key(envelope, &message);
                    opened.messages.push(message);
                }
                Err(OpenError::Duplicate) => opened.duplicates += 1,
                Err(OpenError::Failed(reason)) => {
                    tracing::debug!(reason, id = envelope.id, "a phone cannot open a copy");
                    opened.failure = Some(reason);
                }
            }
        }
        opened
    }

    fn open(&mut self, envelope: &Envelope, enc: &Node) -> Result<wa::Message, OpenError> {
        let kind = enc.get("type").unwrap_or_default();
        let data = enc
            .data()
            .ok_or_else(|| OpenError::Failed("enc without content".to_owned()))?;
        let plaintext = if kind == "skmsg" {
            self.signal
                .group_decrypt(&envelope.wire_from, envelope.sender, &data)?
        } else {
            self.signal
                .decrypt(envelope.sender, &kind, &data, &mut self.rng)?
        };
        unpad(&plaintext).map_err(|reason| OpenError::Failed(reason.to_owned()))
    }

    fn learn_sender_key(&mut self, envelope: &Envelope, message: &wa::Message) {
        let message = message
            .device_sent_message
            .as_option()
            .and_then(|sent| sent.message.as_option())
            .unwrap_or(message);
        let Some(distribution) = message.sender_key_distribution_message.as_option() else {
            return;
        };
        let group: Option<Jid> = distribution
            .group_id
            .as_deref()
            .and_then(|group| group.parse().ok());
        let group = group.unwrap_or_else(|| envelope.wire_from.clone());
        if let Some(bytes) = &distribution.axolotl_sender_key_distribution_message
            && let Err(error) = self.signal.learn(&group, envelope.sender, bytes)
        {
            tracing::warn!(%error, %group, "a phone cannot use a sender key");
        }
    }

    /// Acts on an opened message.
    fn take(
        &mut self,
        now: Millis,
        envelope: &mut Envelope,
        message: &wa::Message,
        port: &mut dyn PhonePort,
    ) {
        let mut message = message;
        if let Some(sent) = message.device_sent_message.as_option() {
            if !envelope.from_me {
                tracing::warn!(
                    id = envelope.id,
                    "somebody else's device claims to be the owner's"
                );
                return;
            }
            if let Some(chat) = sent
                .destination_jid
                .as_deref()
                .and_then(|jid| jid.parse().ok())
            {
                envelope.chat = Self::chat_name(&chat, port);
            }
            let Some(inner) = sent.message.as_option() else {
                return;
            };
            message = inner;
        }
        match meaning(message) {
            Meaning::Show(shown) => self.show(now, envelope, shown, port),
            Meaning::Edit { id, text } => {
                self.edit_shown(&envelope.chat, &envelope.author, &id, text, port);
            }
            Meaning::Delete { id } => {
                self.delete_shown(&envelope.chat, &envelope.author, &id, port);
            }
            Meaning::KeyRequest(wanted) if envelope.from_me => {
                self.share_keys(now, envelope.sender.1, &wanted, port);
            }
            Meaning::KeyRequest(_) | Meaning::Silent => {}
        }
    }

    fn show(&mut self, now: Millis, envelope: &Envelope, shown: Shown, port: &mut dyn PhonePort) {
        if !envelope.from_me {
            self.remember_wire(&envelope.chat, &envelope.wire_from);
            if let Some(participant) = &envelope.participant {
                self.remember_wire(&envelope.author, participant);
            }
        }
        let account = self.me.account;
        let message = ScreenMessage {
            position: 0,
            id: envelope.id.clone(),
            chat: envelope.chat.clone(),
            from: envelope.author.clone(),
            from_device: envelope.sender.1,
            from_me: envelope.from_me,
            kind: shown.kind.to_owned(),
            text: shown.text,
            quoted: shown.quoted,
            edited: false,
            deleted: false,
            push_name: envelope.push_name.clone(),
            sent_at_ms: envelope.sent_at_ms,
            shown_at_ms: now,
            wire_copies: 1,
            read: envelope.from_me,
            played: false,
            status: envelope.from_me.then(|| "server".to_owned()),
        };
        let (message, new) = self.screen.show(message);
        let message = message.clone();
        if !new {
            port.event(PhoneEvent::ShownAgain { account, message });
            return;
        }
        if !message.from_me {
            self.plan(now, &message, port);
        }
        port.event(PhoneEvent::Shown { account, message });
    }

    fn count_copy(&mut self, envelope: &Envelope, port: &mut dyn PhonePort) {
        let account = self.me.account;
        let counted = self
            .screen
            .count_copy(&envelope.chat, &envelope.author, &envelope.id);
        if let Some(message) = counted {
            port.event(PhoneEvent::ShownAgain {
                account,
                message: message.clone(),
            });
        }
    }

    pub(super) fn edit_shown(
        &mut self,
        chat: &str,
        author: &str,
        id: &str,
        text: Option<String>,
        port: &mut dyn PhonePort,
    ) {
        let account = self.me.account;
        if let Some(message) = self.screen.find_mut(chat, author, id) {
            message.text = text;
            message.edited = true;
            port.event(PhoneEvent::Changed {
                account,
                message: message.clone(),
            });
        }
    }

    pub(super) fn delete_shown(
        &mut self,
        chat: &str,
        author: &str,
        id: &str,
        port: &mut dyn PhonePort,
    ) {
        let account = self.me.account;
        if let Some(message) = self.screen.find_mut(chat, author, id) {
            message.text = None;
            message.deleted = true;
            port.event(PhoneEvent::Changed {
                account,
                message: message.clone(),
            });
        }
    }

    /// Confirms a copy by a receipt, or only takes it off the server's queue.
    fn confirm_delivery(&self, envelope: &Envelope, node: &Node, port: &mut dyn PhonePort) {
        if !self.behaviour.deliver {
            port.send(acknowledge("message", node));
            return;
        }
        let kind = match (envelope.is_peer, envelope.from_me) {
            (true, _) => Some("peer_msg"),
            (_, true) => Some("sender"),
            _ => None,
        };
        let recipient = (kind == Some("sender"))
            .then(|| envelope.recipient.clone())
            .flatten();
        port.send(
            Node::new("receipt")
                .attr("to", envelope.wire_from.clone())
                .attr("id", envelope.id.clone())
                .attr_opt("type", kind)
                .attr_opt("participant", envelope.participant.clone())
                .attr_opt("recipient", recipient),
        );
    }
}

/// Why a ciphertext gave no message.
enum OpenError {
    /// It was opened before: the same stanza came twice.
    Duplicate,
    Failed(String),
}

impl From<SignalProtocolError> for OpenError {
    fn from(error: SignalProtocolError) -> Self {
        match error {
            SignalProtocolError::DuplicatedMessage(..) => Self::Duplicate,
            other => Self::Failed(other.to_string()),
        }
    }
}
