//! `md`: linking by code on an unlinked connection, and a companion's own logout.

use super::Outcome;
use crate::node::Node;
use crate::world::turn::{Origin, Turn};

/// Requests of a connection that is not linked yet.
pub(super) fn unlinked(turn: &mut Turn<'_>, origin: Origin, node: &Node, xmlns: &str) -> Outcome {
    match (origin, xmlns) {
        (Origin::Unlinked(conn), "md") if node.find("link_code_companion_reg").is_some() => {
            turn.link_code(conn, node);
            Outcome::Answered
        }
        (_, "w:p" | "urn:xmpp:ping") => super::empty(turn, origin, node),
        _ => Outcome::Unknown,
    }
}

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some(request) = node.find("remove-companion-device") else {
        return Outcome::Unknown;
    };
    let Some((account, device)) = origin.who() else {
        return Outcome::Unknown;
    };
    let target = request.jid("jid");
    let number = target.as_ref().map_or(device, |jid| jid.device);
    let own = target.is_none_or(|jid| turn.world.owner(&jid) == Some(account));
    // A companion removes itself only; the phone removes any.
    if !own || number == 0 || (device != 0 && number != device) {
        turn.protocol_error(origin, "remove-companion-device for another device");
        turn.reply_error(origin, node, 403, "forbidden");
        return Outcome::Answered;
    }
    turn.reply(origin, node, None);
    turn.remove_device(account, number, device == 0);
    Outcome::Answered
}
