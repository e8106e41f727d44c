//! `message`: one ciphertext per device comes in, one stanza per device goes out.
//!
//! The server acknowledges (or refuses) first and delivers then. A message to a person carries the
//! ciphertexts of the peer's devices and of the sender's own; each is delivered in the family of
//! addresses (number or LID) that its `to` was written in. Messages to groups will branch off in
//! [`handle`] by the server of `to`.

use crate::jid::{Jid, Server};
use crate::node::{Content, Node};
use crate::stanza::{Ack, server_ack};
use crate::transcript::{Note, Target};
use crate::world::devices::device_hash;
use crate::world::turn::{Origin, Turn};
use crate::world::{AccountId, DeviceId};

/// Attributes that reach the receiver as the sender wrote them.
const KEPT: [&str; 4] = ["id", "type", "category", "edit"];

/// Children that are for the server only, or are placed anew for each receiver.
const STRIPPED: [&str; 5] = [
    "participants",
    "tctoken",
    "cstoken",
    "enc",
    "device-identity",
];

/// Why a message is not accepted: the code in its acknowledgement.
mod refusal {
    /// The peer is not on WhatsApp (or the group is unknown).
    pub(super) const UNKNOWN: u16 = 404;
    /// A restricted account writes to somebody who never wrote to it, without a valid token.
    pub(super) const RESTRICTED: u16 = 463;
    /// Too many chats begun without an answer.
    pub(super) const NEW_CHATS: u16 = 475;
    /// The stanza is malformed.
    pub(super) const MALFORMED: u16 = 479;
}

/// One ciphertext with the device that it is for.
struct Copy {
    to: Jid,
    account: AccountId,
    device: DeviceId,
    enc: Vec<Node>,
}

/// A message that is being routed.
struct Routing {
    sender: AccountId,
    device: DeviceId,
    peer: AccountId,
    to: Jid,
    /// Addressed to the devices of a chat, not (as a retry or a peer message) to one device.
    fan_out: bool,
}

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: Node, ack: Ack) {
    turn.world.counters.messages_in += 1;
    match route(turn, origin, node, ack) {
        Ok(()) => turn.world.counters.messages_accepted += 1,
        Err((node, code)) => {
            turn.world.counters.messages_refused += 1;
            if code == refusal::MALFORMED {
                turn.protocol_error(origin, "malformed message");
            }
            let nack = server_ack("message", &node)
                .attr("t", turn.seconds())
                .attr("error", code);
            acknowledge(turn, origin, nack, ack);
        }
    }
}

fn route(turn: &mut Turn<'_>, origin: Origin, node: Node, ack: Ack) -> Result<(), (Node, u16)> {
    let (Some((sender, device)), Some(to)) = (origin.who(), node.jid("to")) else {
        return Err((node, refusal::MALFORMED));
    };
    if node.get("id").is_none_or(|id| id.is_empty()) || !has_ciphertext(&node) {
        return Err((node, refusal::MALFORMED));
    }
    let Some(peer) = turn.world.owner(&to) else {
        return Err((node, refusal::UNKNOWN));
    };
    let fan_out = node.find("participants").is_some() && to.device == 0;
    let routing = Routing {
        sender,
        device,
        peer,
        to,
        fan_out,
    };
    if let Err(code) = routing.check_permission(turn, &node) {
        return Err((node, code));
    }
    routing.accept(turn, origin, node, ack);
    Ok(())
}

fn has_ciphertext(node: &Node) -> bool {
    node.find("enc").is_some()
        || node
            .find("participants")
            .is_some_and(|list| list.all("to").any(|to| to.find("enc").is_some()))
}

fn acknowledge(turn: &mut Turn<'_>, origin: Origin, node: Node, ack: Ack) {
    match ack {
        Ack::Now => turn.emit(origin, node),
        Ack::At(until) => turn.emit_at(until, origin, node),
        Ack::Never => {}
    }
}

impl Routing {
    /// Restricted accounts and new-chat caps; who has been written to may always answer.
    fn check_permission(&self, turn: &mut Turn<'_>, node: &Node) -> Result<(), u16> {
        if self.peer == self.sender {
            return Ok(());
        }
        let token = node.find("tctoken").and_then(Node::data);
        let Some(sender) = turn.world.account(self.sender) else {
            return Err(refusal::UNKNOWN);
        };
        if sender.wrote_here.contains(&self.peer) {
            return Ok(());
        }
        let trusted = turn.world.account(self.peer).is_some_and(|peer| {
            peer.tokens_given
                .get(&self.sender)
                .is_some_and(|(bytes, _)| Some(bytes) == token.as_ref())
        });
        if sender.restricted && !trusted {
            return Err(refusal::RESTRICTED);
        }
        let new = !sender.unanswered.contains(&self.peer);
        let full = sender.new_chats_max.is_some_and(|max| {
            usize::try_from(max).is_ok_and(|max| sender.unanswered.len() >= max)
        });
        if new && full && !trusted {
            return Err(refusal::NEW_CHATS);
        }
        Ok(())
    }

    fn accept(&self, turn: &mut Turn<'_>, origin: Origin, mut node: Node, ack: Ack) {
        self.note_chat(turn);
        let copies = self.copies(turn, origin, &mut node);
        let mut answer = server_ack("message", &node).attr("t", turn.seconds());
        if let Some(hash) = self.missed_devices(turn, &copies) {
            answer.set("phash", hash);
        }
        self.note_accepted(turn, &node, &copies);
        acknowledge(turn, origin, answer, ack);
        let template = self.template(turn, &node);
        for copy in copies {
            let stanza = self.stanza(turn, &template, &node, &copy);
            turn.deliver(copy.account, copy.device, stanza.children(copy.enc));
        }
    }

    /// Remembers who wrote to whom, for restricted accounts.
    fn note_chat(&self, turn: &mut Turn<'_>) {
        if self.peer == self.sender || !self.fan_out {
            return;
        }
        if let Some(peer) = turn.world.account_mut(self.peer) {
            peer.wrote_here.insert(self.sender);
            peer.unanswered.remove(&self.sender);
        }
        if let Some(sender) = turn.world.account_mut(self.sender)
            && !sender.wrote_here.contains(&self.peer)
        {
            sender.unanswered.insert(self.peer);
        }
    }

    /// Takes the ciphertexts out of the stanza, each with its device.
    fn copies(&self, turn: &mut Turn<'_>, origin: Origin, node: &mut Node) -> Vec<Copy> {
        let mut copies: Vec<Copy> = Vec::new();
        let participants = node
            .nodes_mut()
            .iter_mut()
            .find(|child| child.is("participants"))
            .map(|list| std::mem::take(&mut list.content));
        if let Some(Content::Nodes(list)) = participants {
            for mut entry in list {
                let Some(to) = entry.jid("jid") else { continue };
                if let Content::Nodes(enc) = std::mem::take(&mut entry.content) {
                    self.add_copy(turn, origin, &mut copies, to, enc);
                }
            }
            return copies;
        }
        let enc = node.all("enc").cloned().collect();
        self.add_copy(turn, origin, &mut copies, self.to.clone(), enc);
        copies
    }

    fn add_copy(
        &self,
        turn: &mut Turn<'_>,
        origin: Origin,
        copies: &mut Vec<Copy>,
        to: Jid,
        enc: Vec<Node>,
    ) {
        let Some(account) = turn.world.owner(&to) else {
            return;
        };
        if account != self.peer && account != self.sender {
            turn.protocol_error(origin, "message with a ciphertext for somebody else");
            return;
        }
        let (own, device) = (account == self.sender, to.device);
        if own && device == self.device {
            return;
        }
        let Some(owner) = turn.world.account(account) else {
            return;
        };
        // A blocked sender is not told: accepted, and delivered to nobody but his own devices.
        if owner.device(device).is_none() || owner.has_blocked(self.sender) {
            return;
        }
        let known = copies
            .iter()
            .any(|copy| copy.account == account && copy.device == device);
        if known {
            turn.protocol_error(origin, "message with two ciphertexts for one device");
            return;
        }
        copies.push(Copy {
            to,
            account,
            device,
            enc,
        });
    }

    /// The server's hash over the chat's devices, where the sender did not know them all.
    fn missed_devices(&self, turn: &Turn<'_>, copies: &[Copy]) -> Option<String> {
        // Clients compute their own hash whether or not the message carries it.
        if !self.fan_out {
            return None;
        }
        let expected: Vec<_> = [self.peer, self.sender]
            .into_iter()
            .take(if self.peer == self.sender { 1 } else { 2 })
            .filter_map(|account| turn.world.account(account))
            .flat_map(|account| {
                account
                    .devices()
                    .map(move |device| (account, device.number))
            })
            .collect();
        let others = expected
            .iter()
            .filter(|(a, d)| (a.id, *d) != (self.sender, self.device))
            .count();
        let complete = others == copies.len();
        let family = self.to.server;
        (!complete).then(|| device_hash(expected.iter().map(|(a, d)| a.address(family, *d))))
    }

    fn note_accepted(&self, turn: &mut Turn<'_>, node: &Node, copies: &[Copy]) {
        let phone = |account: AccountId| turn.world.party(Origin::Phone(account)).phone;
        let targets = copies
            .iter()
            .map(|copy| Target {
                phone: phone(copy.account),
                device: copy.device,
            })
            .collect();
        let note = Note::Accepted {
            phone: phone(self.sender),
            device: self.device,
            id: node.get("id").unwrap_or_default().into_owned(),
            targets,
        };
        turn.world.transcript.note(turn.now, note);
    }

    /// What all copies share, without addresses and ciphertexts.
    fn template(&self, turn: &Turn<'_>, node: &Node) -> Node {
        let mut template = Node::new("message").attr("t", turn.seconds());
        for (key, value) in &node.attrs {
            if KEPT.contains(&key.as_ref()) {
                template.attrs.push((key.clone(), value.clone()));
            }
        }
        let name = turn
            .world
            .account(self.sender)
            .map(|sender| sender.push_name.clone());
        template
            .attr_opt("notify", name.filter(|name| !name.is_empty()))
            .children(
                node.nodes()
                    .iter()
                    .filter(|n| !STRIPPED.contains(&n.tag.as_ref()))
                    .cloned(),
            )
    }

    fn stanza(&self, turn: &Turn<'_>, template: &Node, node: &Node, copy: &Copy) -> Node {
        let mut stanza = template.clone();
        let Some(sender) = turn.world.account(self.sender) else {
            return stanza;
        };
        let family = if copy.to.server == Server::Lid {
            Server::Lid
        } else {
            Server::Pn
        };
        stanza.set("from", sender.address(family, self.device));
        let other = if family == Server::Lid {
            "sender_pn"
        } else {
            "sender_lid"
        };
        stanza.set(other, sender.other_address(family));
        // One's own devices learn which chat it belongs to; a peer message belongs to none.
        if copy.account == self.sender && node.value("category").is_none() {
            let chat = node.jid("recipient").unwrap_or_else(|| self.to.bare());
            if chat.is_lid()
                && let Some(peer) = turn.world.find(&chat)
            {
                stanza.set("peer_recipient_pn", peer.pn());
            }
            stanza.set("recipient", chat);
        }
        // Whoever opens a session must be told who vouches for the sender's device.
        if copy
            .enc
            .iter()
            .any(|enc| enc.get("type").as_deref() == Some("pkmsg"))
            && let Some(identity) = node.find("device-identity")
        {
            stanza.push(identity.clone());
        }
        stanza
    }
}
