//! `abt` and `w`: the server's properties, which switch features of a client.

use super::Outcome;
use crate::node::Node;
use crate::world::turn::{Origin, Turn};

/// Seconds after which a client asks again.
const REFRESH: u32 = 86_400;

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    if node.find("props").is_none() {
        return Outcome::Unknown;
    }
    let legacy = node.get("xmlns").as_deref() == Some("w");
    let props = turn.world.options().ab_props.iter().map(|(code, value)| {
        let (name, content) = if legacy {
            ("name", "value")
        } else {
            ("config_code", "config_value")
        };
        Node::new("prop")
            .attr(name, *code)
            .attr(content, value.clone())
    });
    let answer = Node::new("props")
        .attr("protocol", if legacy { 2_u32 } else { 1 })
        .attr("hash", "sandbox")
        .attr("refresh", REFRESH)
        .attr("refresh_id", 1_u32)
        .attr("ab_key", "sandbox")
        .children(props);
    turn.reply(origin, node, Some(answer));
    Outcome::Answered
}
