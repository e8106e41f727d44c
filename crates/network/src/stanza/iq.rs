//! `iq`: requests of a device, each answered, by namespace.
//!
//! A request that the network does not know gets an empty result, which keeps every client alive, and a
//! warning in the log.

mod app_state;
mod encrypt;
mod groups;
mod md;
mod media;
mod privacy;
mod profile;
mod props;
mod usync;

use crate::node::Node;
use crate::world::turn::{Origin, Turn};

/// What a namespace's handler made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Unknown,
}

type Handler = fn(&mut Turn<'_>, Origin, &Node) -> Outcome;

/// Requests of a linked device by `xmlns`.
const HANDLERS: [(&str, Handler); 20] = [
    ("encrypt", encrypt::handle),
    ("usync", usync::handle),
    ("passive", passive),
    ("md", md::handle),
    ("abt", props::handle),
    ("w", props::handle),
    ("blocklist", privacy::blocklist),
    ("privacy", privacy::handle),
    ("w:sync:app:state", app_state::handle),
    ("w:m", media::handle),
    ("w:g2", groups::handle),
    ("w:profile:picture", profile::picture),
    ("status", profile::about),
    ("w:p", empty),
    ("urn:xmpp:ping", empty),
    ("urn:xmpp:whatsapp:dirty", empty),
    ("urn:xmpp:whatsapp:push", empty),
    ("w:stats", empty),
    ("w:biz", empty),
    ("tos", empty),
];

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    if !matches!(node.get("type").as_deref(), Some("get" | "set")) {
        // A client's answer to a request of the server.
        if let Origin::Unlinked(conn) = origin {
            turn.link_answer(conn, node);
        }
        return;
    }
    turn.world.counters.requests += 1;
    let xmlns = node.get("xmlns").unwrap_or_default();
    let outcome = match origin {
        Origin::Unlinked(_) => md::unlinked(turn, origin, node, &xmlns),
        Origin::Companion { .. } | Origin::Phone(_) => {
            match HANDLERS.iter().find(|(known, _)| *known == xmlns) {
                Some((_, handler)) => handler(turn, origin, node),
                None => Outcome::Unknown,
            }
        }
    };
    if outcome == Outcome::Unknown {
        turn.world.counters.requests_unknown += 1;
        let child = node
            .first()
            .map(|child| child.tag.to_string())
            .unwrap_or_default();
        tracing::warn!(%xmlns, %child, "a client made a request that the network does not know");
        turn.reply(origin, node, None);
    }
}

/// Requests that need nothing but a result: pings, statistics, confirmations.
fn empty(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    turn.reply(origin, node, None);
    Outcome::Answered
}

/// `passive`: a device that logged in passively takes its queue from `active` on.
fn passive(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    turn.reply(origin, node, None);
    if node.find("active").is_some()
        && let Origin::Companion { conn, .. } = origin
    {
        turn.begin_offline(conn);
    }
    Outcome::Answered
}
