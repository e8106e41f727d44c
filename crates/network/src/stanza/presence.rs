//! `presence` of a device: available or not, a new push name, or a wish to know another's presence.

use crate::node::Node;
use crate::world::turn::{Origin, Turn};

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let Some((account, device)) = origin.who() else {
        return;
    };
    let kind = node.get("type");
    let target = node.jid("to");
    let owner = target.as_ref().and_then(|jid| turn.world.owner(jid));
    match kind.as_deref() {
        Some("subscribe") => {
            if let (Some(owner), Some(target)) = (owner, target) {
                turn.subscribe(origin, owner, target.server);
            }
        }
        Some("unsubscribe") => {
            if let Some(owner) = owner {
                turn.unsubscribe(origin, owner);
            }
        }
        None | Some("available" | "unavailable") => {
            if let Some(name) = node.get("name").filter(|name| !name.is_empty())
                && let Some(account) = turn.world.account_mut(account)
            {
                account.push_name = name.into_owned();
            }
            // A name alone changes the name and nothing else.
            if kind.is_some() {
                turn.set_available(account, device, kind.as_deref() == Some("available"));
            }
        }
        Some(_) => tracing::warn!("a client sent a presence of an unknown type"),
    }
}
