//! `w:g2`: groups. No account is in a group yet, so lists are empty and no group is found.

use super::Outcome;
use crate::node::Node;
use crate::world::turn::{Origin, Turn};

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    if node.find("participating").is_some() {
        turn.reply(origin, node, Some(Node::new("groups")));
    } else {
        turn.reply_error(origin, node, 404, "item-not-found");
    }
    Outcome::Answered
}
