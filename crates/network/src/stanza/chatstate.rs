//! `chatstate`: typing, recording, or paused; passed on to the peer's devices.

use crate::node::Node;
use crate::world::turn::{Origin, Turn};

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let (Some((account, _)), Some(to)) = (origin.who(), node.jid("to")) else {
        return;
    };
    let Some(peer) = turn.world.owner(&to) else {
        return;
    };
    let (Some(sender), Some(receiver)) = (turn.world.account(account), turn.world.account(peer))
    else {
        return;
    };
    if receiver.has_blocked(account) {
        return;
    }
    let state = Node::new("chatstate")
        .attr("from", sender.address(to.server, 0))
        .children(node.nodes().iter().cloned());
    turn.typing(account, peer, &state);
}
