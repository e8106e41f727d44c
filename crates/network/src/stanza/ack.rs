//! Acknowledgements of a device: what it names needs no second delivery.

use crate::node::Node;
use crate::world::turn::{Origin, Turn};

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let (Some(class), Some(id)) = (node.get("class"), node.get("id")) else {
        turn.protocol_error(origin, "ack without class or id");
        return;
    };
    turn.confirm(origin, &class, &id, node);
}
