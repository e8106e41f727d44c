//! What a stanza means: its tag chooses the handler.
//!
//! Handlers read a stanza from a device and change the world through [`Turn`]. They never look at the
//! fault plan; that was asked before, and is asked again for each stanza that goes out.

pub(crate) mod ack;
pub(crate) mod chatstate;
pub(crate) mod ib;
pub(crate) mod iq;
pub(crate) mod message;
pub(crate) mod presence;
pub(crate) mod receipt;

use crate::jid::Jid;
use crate::node::{Node, Value};
use crate::world::Millis;
use crate::world::turn::{Origin, Turn};

/// When the server acknowledges a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Now,
    /// A fault delays it.
    At(Millis),
    /// A fault keeps it back.
    Never,
}

type Handler = fn(&mut Turn<'_>, Origin, Node);

/// Stanzas of a linked device, by tag. Groups and calls get their own lines here.
const HANDLERS: [(&str, Handler); 7] = [
    ("message", |turn, origin, node| {
        message::handle(turn, origin, node, Ack::Now);
    }),
    ("receipt", |turn, origin, node| {
        receipt::handle(turn, origin, &node);
    }),
    ("ack", |turn, origin, node| ack::handle(turn, origin, &node)),
    ("iq", |turn, origin, node| iq::handle(turn, origin, &node)),
    ("presence", |turn, origin, node| {
        presence::handle(turn, origin, &node);
    }),
    ("chatstate", |turn, origin, node| {
        chatstate::handle(turn, origin, &node);
    }),
    ("ib", |turn, origin, node| ib::handle(turn, origin, &node)),
];

/// Hands a stanza to whoever knows its tag.
pub(crate) fn dispatch(turn: &mut Turn<'_>, origin: Origin, node: Node) {
    match HANDLERS.iter().find(|(tag, _)| node.is(tag)) {
        Some((_, handler)) => handler(turn, origin, node),
        None => {
            tracing::warn!(tag = %node.tag, "a client sent a stanza that the network does not know");
        }
    }
}

impl Turn<'_> {
    /// Answers a request with a result, `child` being its significant content.
    pub(crate) fn reply(&mut self, origin: Origin, request: &Node, child: Option<Node>) {
        let answer = answer(request, "result").children(child);
        self.emit(origin, answer);
    }

    /// Answers a request with an error.
    pub(crate) fn reply_error(
        &mut self,
        origin: Origin,
        request: &Node,
        code: u16,
        text: &'static str,
    ) {
        let error = Node::new("error").attr("code", code).attr("text", text);
        self.emit(origin, answer(request, "error").child(error));
    }
}

fn answer(request: &Node, kind: &'static str) -> Node {
    let from = request
        .value("to")
        .cloned()
        .unwrap_or(Value::Jid(Jid::SERVER));
    Node::new("iq")
        .attr("from", from)
        .attr_opt("id", request.value("id").cloned())
        .attr("type", kind)
}

/// `ack` of the server for a stanza that came from a device.
pub(crate) fn server_ack(class: &'static str, node: &Node) -> Node {
    Node::new("ack")
        .attr("class", class)
        .attr_opt("id", node.value("id").cloned())
        .attr_opt("from", node.value("to").cloned())
        .attr_opt("participant", node.value("participant").cloned())
}
