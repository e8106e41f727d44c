//! Confirmations, both ways: what the phone confirms, and what comes back for its own messages.

use std::borrow::Cow;

use super::port::{PhoneEvent, PhonePort, PhoneReceipt};
use super::{Phone, PhoneError};
use crate::jid::Jid;
use crate::node::{Node, Value};
use crate::world::Millis;

impl Phone {
    /// Reads messages of a chat: those named, or all that were not read. Answers how many.
    pub fn read(&mut self, chat: &Jid, ids: &[String], port: &mut dyn PhonePort) -> usize {
        let chat = Self::chat_name(chat, port);
        let mut by_author: Vec<(String, Vec<String>)> = Vec::new();
        for message in self.screen.messages(Some(&chat), 0) {
            let wanted = if ids.is_empty() {
                !message.read
            } else {
                ids.contains(&message.id)
            };
            if message.from_me || !wanted {
                continue;
            }
            match by_author.iter_mut().find(|(from, _)| *from == message.from) {
                Some((_, ids)) => ids.push(message.id.clone()),
                None => by_author.push((message.from.clone(), vec![message.id.clone()])),
            }
        }
        let count = by_author.iter().map(|(_, ids)| ids.len()).sum();
        for (from, ids) in by_author {
            self.confirm(&chat, &from, &ids, "read", port);
        }
        count
    }

    /// Plays a voice note or video.
    ///
    /// # Errors
    /// When the screen shows no such message of somebody else.
    pub fn play(&mut self, id: &str, port: &mut dyn PhonePort) -> Result<(), PhoneError> {
        let message = self
            .screen
            .by_id(id)
            .find(|message| !message.from_me)
            .ok_or_else(|| PhoneError::NoSuchMessage(id.to_owned()))?;
        let (chat, from) = (message.chat.clone(), message.from.clone());
        self.confirm(&chat, &from, &[id.to_owned()], "played", port);
        Ok(())
    }

    /// Sends one receipt for messages of one author, and notes it on the screen.
    pub(super) fn confirm(
        &mut self,
        chat: &str,
        from: &str,
        ids: &[String],
        receipt: &'static str,
        port: &mut dyn PhonePort,
    ) {
        let Some((first, rest)) = ids.split_first() else {
            return;
        };
        for id in ids {
            if let Some(message) = self.screen.find_mut(chat, from, id) {
                message.read = true;
                message.played |= receipt == "played";
            }
        }
        let wire = |text: &str| {
            self.wire
                .get(text)
                .cloned()
                .or_else(|| text.parse::<Jid>().ok())
        };
        let Some(to) = wire(chat) else { return };
        let participant = to.is_group().then(|| wire(from)).flatten();
        let mut node = Node::new("receipt")
            .attr("to", to)
            .attr("id", first.clone())
            .attr("type", receipt)
            .attr_opt("participant", participant);
        if !rest.is_empty() {
            let items = rest
                .iter()
                .map(|id| Node::new("item").attr("id", id.clone()));
            node.push(Node::new("list").children(items));
        }
        port.send(node);
    }

    pub(super) fn on_receipt(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort) {
        port.send(acknowledge("receipt", node));
        let Some(from) = node.jid("from") else { return };
        let receiver = node.jid("participant").unwrap_or_else(|| from.clone());
        let kind = node
            .get("type")
            .map_or_else(|| "delivered".to_owned(), Cow::into_owned);
        if kind == "retry" {
            self.on_retry(node, &receiver, port);
        }
        let items = node.find("list").into_iter().flat_map(Node::nodes);
        let ids: Vec<String> = std::iter::once(node)
            .chain(items)
            .filter_map(|item| item.get("id").map(Cow::into_owned))
            .collect();
        let status = match kind.as_str() {
            "delivered" | "inactive" => Some("delivered"),
            "read" => Some("read"),
            "played" => Some("played"),
            _ => None,
        };
        let me = self.me.pn_text();
        let peer = port.peer(&receiver);
        let from_me = peer
            .as_ref()
            .is_some_and(|peer| peer.account == self.me.account);
        if let (Some(status), false) = (status, from_me) {
            for id in &ids {
                self.screen.advance(id, &me, status);
            }
        }
        let name = peer.map_or_else(|| receiver.bare(), |peer| peer.pn.bare());
        port.event(PhoneEvent::Receipt(PhoneReceipt {
            account: self.me.account,
            from: name.to_string(),
            device: receiver.device,
            ids,
            receipt: kind,
            at_ms: node
                .number("t")
                .and_then(|t| i64::try_from(t).ok())
                .map_or(now, |t| t * 1_000),
        }));
    }

    /// The server took or refused what the phone sent.
    pub(super) fn on_ack(&mut self, node: &Node, port: &mut dyn PhonePort) {
        if node.get("class").as_deref() != Some("message") {
            return;
        }
        let Some(id) = node.get("id").map(Cow::into_owned) else {
            return;
        };
        let error = node
            .number("error")
            .and_then(|code| u16::try_from(code).ok());
        let status = if error.is_some() { "refused" } else { "server" };
        self.screen.advance(&id, &self.me.pn_text(), status);
        port.event(PhoneEvent::ServerAck {
            account: self.me.account,
            id,
            error,
        });
    }

    pub(super) fn on_chat_state(&mut self, node: &Node, port: &mut dyn PhonePort) {
        let (Some(from), Some(child)) = (node.jid("from"), node.first()) else {
            return;
        };
        let author = node.jid("participant").unwrap_or(from);
        let state = match child.get("media").as_deref() {
            Some("audio") => "recording".to_owned(),
            _ => child.tag.to_string(),
        };
        let from = Self::chat_name(&author, port);
        port.event(PhoneEvent::ChatState {
            account: self.me.account,
            from,
            state,
        });
    }

    pub(super) fn on_presence(&mut self, node: &Node, port: &mut dyn PhonePort) {
        let Some(from) = node.jid("from") else { return };
        let available = node.get("type").as_deref() != Some("unavailable");
        let from = Self::chat_name(&from, port);
        port.event(PhoneEvent::Presence {
            account: self.me.account,
            from,
            available,
        });
    }

    /// The name under which the screen keeps a chat.
    pub(super) fn chat_name(jid: &Jid, port: &mut dyn PhonePort) -> String {
        if jid.is_user()
            && let Some(peer) = port.peer(jid)
        {
            return peer.pn.bare().to_string();
        }
        jid.bare().to_string()
    }
}

/// `ack` for a stanza that needs no answer.
pub(super) fn acknowledge(class: &'static str, node: &Node) -> Node {
    let copy = |name: &str| -> Option<Value> { node.value(name).cloned() };
    Node::new("ack")
        .attr("class", class)
        .attr_opt("id", copy("id"))
        .attr_opt("to", copy("from"))
        .attr_opt("type", copy("type"))
        .attr_opt("participant", copy("participant"))
}
