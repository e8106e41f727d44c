//! `w:m`: where media is uploaded.

use super::Outcome;
use crate::node::Node;
use crate::world::turn::{Origin, Turn};

/// Seconds for which hosts and token hold.
const TTL: u32 = 21_600;

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    if node.find("media_conn").is_none() {
        return Outcome::Unknown;
    }
    let host = Node::new("host")
        .attr("hostname", turn.world.media_host.clone())
        .attr("type", "primary")
        .attr("class", "mms");
    let answer = Node::new("media_conn")
        .attr("auth", format!("sandbox-{}", turn.seconds()))
        .attr("ttl", TTL)
        .attr("auth_ttl", TTL)
        .attr("max_buckets", 12_u32)
        .child(host);
    turn.reply(origin, node, Some(answer));
    Outcome::Answered
}
