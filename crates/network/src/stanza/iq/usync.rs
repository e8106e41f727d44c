//! `usync`: who is on WhatsApp, under which LID, with which devices.
//!
//! One request asks several protocols about several users. A user whose devices are as the client's hint
//! says is left out of the answer, which clients read as "unchanged".

use super::Outcome;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::turn::{Origin, Turn};
use crate::world::{Account, World};

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some(request) = node.find("usync") else {
        return Outcome::Unknown;
    };
    let protocols: Vec<&str> = request
        .find("query")
        .map(|query| {
            query
                .nodes()
                .iter()
                .map(|protocol| protocol.tag.as_ref())
                .collect()
        })
        .unwrap_or_default();
    let users = request.find("list").map_or(&[][..], Node::nodes);
    let found = users
        .iter()
        .filter(|user| user.is("user"))
        .filter_map(|user| answer_user(turn.world, user, &protocols));
    let result = Node::new("result").children(protocols.iter().map(|p| Node::new((*p).to_owned())));
    let mut answer = Node::new("usync");
    for key in ["sid", "index", "last", "mode", "context"] {
        if let Some(value) = request.value(key) {
            answer.set(key, value.clone());
        }
    }
    let answer = answer
        .child(result)
        .child(Node::new("list").children(found));
    turn.reply(origin, node, Some(answer));
    Outcome::Answered
}

fn answer_user(world: &World, user: &Node, protocols: &[&str]) -> Option<Node> {
    let contact = user.find("contact").and_then(Node::text);
    let asked = match (user.jid("jid"), &contact) {
        (Some(jid), _) => jid.bare(),
        (None, Some(number)) => {
            let digits: String = number.chars().filter(char::is_ascii_digit).collect();
            Jid::pn(digits, 0)
        }
        (None, None) => return None,
    };
    let owner = world.find(&asked);
    let mut answer = Node::new("user").attr("jid", &asked);
    if let Some(owner) = owner.filter(|_| asked.is_lid()) {
        answer.set("pn_jid", owner.pn());
    }
    let unchanged =
        owner.is_some_and(|owner| protocols.contains(&"devices") && is_unchanged(owner, user));
    for protocol in protocols {
        match (*protocol, owner) {
            ("contact", _) => {
                let kind = if owner.is_some() { "in" } else { "out" };
                let echo = Node::new("contact").attr("type", kind);
                answer.push(match &contact {
                    Some(number) => echo.bytes(number.clone().into_bytes()),
                    None => echo,
                });
            }
            ("devices", Some(owner)) if !unchanged => answer.push(devices(owner)),
            ("lid", Some(owner)) => answer.push(Node::new("lid").attr("val", owner.lid_jid())),
            ("status", Some(owner)) => answer.push(
                Node::new("status")
                    .attr("t", owner.about_set_at.div_euclid(1_000))
                    .bytes(owner.about.clone().into_bytes()),
            ),
            ("picture", Some(owner)) => {
                if let Some((id, _)) = &owner.picture {
                    answer.push(Node::new("picture").attr("id", *id));
                }
            }
            ("business", Some(_)) => answer.push(Node::new("business")),
            ("disappearing_mode", Some(_)) => answer.push(
                Node::new("disappearing_mode")
                    .attr("duration", 0_u32)
                    .attr("t", 0_u32),
            ),
            _ => {}
        }
    }
    (!answer.nodes().is_empty()).then_some(answer)
}

/// Whether the client's hint names the devices as they are.
fn is_unchanged(owner: &Account, user: &Node) -> bool {
    let hint = user.find("devices");
    let hash = hint.and_then(|hint| hint.get("device_hash"));
    hash.is_some_and(|hash| hash == owner.device_hash())
}

fn devices(owner: &Account) -> Node {
    let list = owner.devices().map(|device| {
        let index = (device.number != 0).then_some(device.key_index);
        Node::new("device")
            .attr("id", device.number)
            .attr_opt("key-index", index)
    });
    Node::new("devices")
        .child(
            Node::new("device-list")
                .attr("hash", owner.device_hash())
                .children(list),
        )
        .children(owner.key_index_list_node())
}
