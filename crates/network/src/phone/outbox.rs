//! What a phone sends as its owner: to every device of the peer and to the owner's companions.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use rand::RngExt as _;
use waproto::buffa::MessageField;
use waproto::whatsapp as wa;

use super::content::{Outgoing, StanzaKind, device_sent, pad};
use super::jobs::AUTO_PREFIX;
use super::port::{Peer, PhonePort};
use super::screen::ScreenMessage;
use super::signal::{DeviceKey, Sealed};
use super::{Phone, PhoneError, PhoneEvent};
use crate::jid::Jid;
use crate::node::{Node, Value};
use crate::world::Millis;
use crate::world::mailbox::MAILBOX_MAX;

/// How many sent messages a phone can resend: as many as the server keeps for a device that is away, which
/// may ask for each of them once it is back. A real phone has all that it shows.
const SENT_MAX: usize = MAILBOX_MAX;

/// What a peer shows while somebody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatState {
    Composing,
    Recording,
    Paused,
}

/// A device and the address under which to write to it.
pub(super) type Target = (DeviceKey, Jid);

/// A message that may have to be sent again.
#[derive(Clone, Debug)]
pub(super) struct SentMessage {
    /// The chat's address; `None` for what goes between devices of one account.
    pub(super) chat: Option<Jid>,
    pub(super) message: Bytes,
    pub(super) kind: &'static str,
    pub(super) edit: Option<&'static str>,
}

/// The newest sent messages by id.
#[derive(Debug, Default)]
pub(super) struct Sent {
    order: VecDeque<String>,
    by_id: HashMap<String, SentMessage>,
    /// Who has the phone's sender key of a group.
    pub(super) sender_key_known: HashMap<Jid, HashSet<DeviceKey>>,
}

impl Sent {
    pub(super) fn get(&self, id: &str) -> Option<&SentMessage> {
        self.by_id.get(id)
    }

    pub(super) fn remember_peer(&mut self, id: &str, message: Vec<u8>) {
        let message = SentMessage {
            chat: None,
            message: message.into(),
            kind: "text",
            edit: None,
        };
        self.remember(id, message);
    }

    fn remember(&mut self, id: &str, message: SentMessage) {
        if self.order.len() >= SENT_MAX
            && let Some(old) = self.order.pop_front()
        {
            self.by_id.remove(&old);
        }
        self.order.push_back(id.to_owned());
        self.by_id.insert(id.to_owned(), message);
    }
}

impl Phone {
    /// Sends a text. Answers the message's id.
    ///
    /// # Errors
    /// When the address is not on WhatsApp.
    pub fn send_text(
        &mut self,
        now: Millis,
        to: &Jid,
        text: &str,
        port: &mut dyn PhonePort,
    ) -> Result<String, PhoneError> {
        self.send(
            now,
            to,
            &Outgoing::Text {
                text: text.to_owned(),
            },
            port,
        )
    }

    /// Sends as the owner. Answers the message's id.
    ///
    /// # Errors
    /// When the address is not on WhatsApp.
    pub fn send(
        &mut self,
        now: Millis,
        to: &Jid,
        what: &Outgoing,
        port: &mut dyn PhonePort,
    ) -> Result<String, PhoneError> {
        let id = self.message_id(false);
        self.send_as(now, &id, to, what, port)?;
        Ok(id)
    }

    /// Shows the peer that the owner writes, records or stopped.
    pub fn chat_state(&mut self, to: &Jid, state: ChatState, port: &mut dyn PhonePort) {
        let to = match port.peer(to) {
            Some(peer) => self.wire_address(&peer, port),
            None => to.bare(),
        };
        let child = match state {
            ChatState::Composing => Node::new("composing"),
            ChatState::Recording => Node::new("composing").attr("media", "audio"),
            ChatState::Paused => Node::new("paused"),
        };
        port.send(Node::new("chatstate").attr("to", to).child(child));
    }

    /// Opens or closes the app, as others see it.
    pub fn presence(&mut self, available: bool, port: &mut dyn PhonePort) {
        let kind = if available {
            "available"
        } else {
            "unavailable"
        };
        port.send(
            Node::new("presence")
                .attr("type", kind)
                .attr_opt("name", self.me.push_name.clone()),
        );
    }

    /// Asks to be told when a peer comes and goes.
    pub fn subscribe(&mut self, to: &Jid, port: &mut dyn PhonePort) {
        port.send(
            Node::new("presence")
                .attr("type", "subscribe")
                .attr("to", to.bare()),
        );
    }

    pub(super) fn send_as(
        &mut self,
        now: Millis,
        id: &str,
        to: &Jid,
        what: &Outgoing,
        port: &mut dyn PhonePort,
    ) -> Result<(), PhoneError> {
        let (chat, wire, node, message) = if to.is_group() {
            self.compose_group(now, id, to, what, port)?
        } else {
            self.compose_direct(now, id, to, what, port)?
        };
        let StanzaKind { kind, edit } = what.stanza_kind();
        let bytes = waproto::codec::message_to_vec(&message).into();
        self.sent.remember(
            id,
            SentMessage {
                chat: Some(wire),
                message: bytes,
                kind,
                edit,
            },
        );
        self.show_own(now, id, &chat, what, port);
        port.send(node);
        Ok(())
    }

    /// A new message id: automatic answers are told apart by its form.
    pub(super) fn message_id(&mut self, automatic: bool) -> String {
        if automatic {
            let bytes: [u8; 9] = self.rng.random();
            return format!("{AUTO_PREFIX}{}", hex::encode_upper(bytes));
        }
        let bytes: [u8; 15] = self.rng.random();
        format!("AC{}", hex::encode_upper(bytes))
    }

    /// Encrypts for one device and wraps it as `enc`. `None` when the server has no keys for it.
    pub(super) fn seal(
        &mut self,
        (device, address): &Target,
        message: &wa::Message,
        port: &mut dyn PhonePort,
    ) -> Result<Option<Node>, PhoneError> {
        if !self.signal.has_session(*device) {
            let Some(bundle) = port.bundle(device.0, device.1) else {
                tracing::warn!(%address, "the server has no keys of a device");
                return Ok(None);
            };
            self.signal.establish(*device, &bundle, &mut self.rng)?;
        }
        let plaintext = pad(message, &mut self.rng);
        let Sealed { kind, bytes } = self.signal.encrypt(*device, &plaintext)?;
        Ok(Some(
            Node::new("enc")
                .attr("v", "2")
                .attr("type", kind)
                .bytes(bytes),
        ))
    }

    fn compose_direct(
        &mut self,
        now: Millis,
        id: &str,
        to: &Jid,
        what: &Outgoing,
        port: &mut dyn PhonePort,
    ) -> Result<(String, Jid, Node, wa::Message), PhoneError> {
        let peer = port
            .peer(to)
            .ok_or_else(|| PhoneError::NotOnWhatsApp(to.to_string()))?;
        let wire = if to.is_lid() {
            to.bare()
        } else {
            self.wire_address(&peer, port)
        };
        let message = what.message(&wire.to_string(), now);
        let mut participants = Node::new("participants");
        if peer.account != self.me.account {
            for device in &peer.devices {
                let target = ((peer.account, *device), wire.with_device(*device));
                self.push_participant(&mut participants, &target, &message, port)?;
            }
        }
        let copy = device_sent(&wire.to_string(), message.clone());
        for target in self.own_companions(&wire, port) {
            self.push_participant(&mut participants, &target, &copy, port)?;
        }
        let node = envelope(id, wire.clone(), what.stanza_kind()).child(participants);
        Ok((peer.pn.bare().to_string(), wire, node, message))
    }

    fn compose_group(
        &mut self,
        now: Millis,
        id: &str,
        group: &Jid,
        what: &Outgoing,
        port: &mut dyn PhonePort,
    ) -> Result<(String, Jid, Node, wa::Message), PhoneError> {
        let members = port.group_members(group);
        if members.is_empty() {
            return Err(PhoneError::NotOnWhatsApp(group.to_string()));
        }
        let message = what.message(&group.to_string(), now);
        let me = self.me.device();
        let distribution = self.signal.distribution(group, me, &mut self.rng)?;
        let key_message = wa::Message {
            sender_key_distribution_message: MessageField::some(
                wa::message::SenderKeyDistributionMessage {
                    group_id: Some(group.to_string()),
                    axolotl_sender_key_distribution_message: Some(distribution.to_vec()),
                },
            ),
            ..Default::default()
        };
        let mut participants = Node::new("participants");
        for member in members {
            let Some(peer) = port.peer(&member) else {
                continue;
            };
            for target in devices_at(&peer, &member) {
                let known = self.sent.sender_key_known.entry(group.clone()).or_default();
                if target.0 != me && known.insert(target.0) {
                    self.push_participant(&mut participants, &target, &key_message, port)?;
                }
            }
        }
        let plaintext = pad(&message, &mut self.rng);
        let sealed = self
            .signal
            .group_encrypt(group, me, &plaintext, &mut self.rng)?;
        let mut node = envelope(id, group.clone(), what.stanza_kind());
        if !participants.nodes().is_empty() {
            node.push(participants);
        }
        node.push(
            Node::new("enc")
                .attr("v", "2")
                .attr("type", sealed.kind)
                .bytes(sealed.bytes),
        );
        Ok((group.to_string(), group.clone(), node, message))
    }

    /// Who is in a group changed: the next message brings everybody a new sender key.
    pub(super) fn on_group_change(&mut self, node: &Node) {
        if let Some(group) = node.jid("from") {
            self.sent.sender_key_known.remove(&group);
        }
    }

    fn push_participant(
        &mut self,
        participants: &mut Node,
        target: &Target,
        message: &wa::Message,
        port: &mut dyn PhonePort,
    ) -> Result<(), PhoneError> {
        if let Some(sealed) = self.seal(target, message, port)? {
            participants.push(Node::new("to").attr("jid", target.1.clone()).child(sealed));
        }
        Ok(())
    }

    /// The owner's companions, addressed in the family of `like`.
    fn own_companions(&self, like: &Jid, port: &mut dyn PhonePort) -> Vec<Target> {
        let address = match &self.me.lid {
            Some(lid) if like.is_lid() => lid,
            _ => &self.me.pn,
        };
        port.peer(&self.me.pn)
            .map(|own| {
                devices_at(&own, address)
                    .filter(|(key, _)| key.1 != 0)
                    .collect()
            })
            .unwrap_or_default()
    }

    fn show_own(
        &mut self,
        now: Millis,
        id: &str,
        chat: &str,
        what: &Outgoing,
        port: &mut dyn PhonePort,
    ) {
        let account = self.me.account;
        let from = self.me.pn_text();
        let (kind, text, quoted) = match what {
            Outgoing::Text { text } => ("text", Some(text.clone()), None),
            Outgoing::Reply { text, quoted } => {
                ("text", Some(text.clone()), Some(quoted.id.clone()))
            }
            Outgoing::Reaction { emoji, target } => {
                ("reaction", Some(emoji.clone()), Some(target.id.clone()))
            }
            Outgoing::Location { name, .. } => ("location", name.clone(), None),
            Outgoing::Contact { name, .. } => ("contact", Some(name.clone()), None),
            Outgoing::Edit { id, text } => {
                return self.edit_shown(chat, &from, id, Some(text.clone()), port);
            }
            Outgoing::Delete { id } => return self.delete_shown(chat, &from, id, port),
        };
        let message = ScreenMessage {
            position: 0,
            id: id.to_owned(),
            chat: chat.to_owned(),
            from,
            from_device: 0,
            from_me: true,
            kind: kind.to_owned(),
            text,
            quoted,
            edited: false,
            deleted: false,
            push_name: self.me.push_name.clone(),
            sent_at_ms: now,
            shown_at_ms: now,
            wire_copies: 0,
            read: false,
            played: false,
            status: Some("pending".to_owned()),
        };
        let (message, _) = self.screen.show(message);
        port.event(PhoneEvent::Shown {
            account,
            message: message.clone(),
        });
    }
}

/// The stanza without its ciphertexts.
fn envelope(id: &str, to: Jid, StanzaKind { kind, edit }: StanzaKind) -> Node {
    Node::new("message")
        .attr("to", to)
        .attr("id", id.to_owned())
        .attr("type", kind)
        .attr_opt("edit", edit.map(Value::from))
}

/// A peer's devices at one of its addresses.
fn devices_at(peer: &Peer, address: &Jid) -> impl Iterator<Item = Target> {
    let account = peer.account;
    peer.devices
        .iter()
        .map(move |device| ((account, *device), address.with_device(*device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_mailbox_holds_can_be_sent_again() {
        let mut sent = Sent::default();
        for n in 0..MAILBOX_MAX {
            sent.remember_peer(&n.to_string(), Vec::new());
        }
        assert!(sent.get("0").is_some());
        sent.remember_peer("one more", Vec::new());
        assert!(sent.get("0").is_none());
        assert!(sent.get("1").is_some() && sent.get("one more").is_some());
        assert_eq!(sent.order.len(), sent.by_id.len());
    }
}
