//! `w:sync:app:state`: a device reads or extends its account's collections; the siblings hear of it.

use super::Outcome;
use crate::node::Node;
use crate::world::app_state::PatchError;
use crate::world::turn::{Origin, Turn};
use crate::world::{AccountId, DeviceId};

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let (Some((account, device)), Some(sync)) = (origin.who(), node.find("sync")) else {
        return Outcome::Unknown;
    };
    let mut answer = Node::new("sync");
    let mut changed = Vec::new();
    for request in sync.all("collection") {
        let Some(name) = request.get("name") else {
            continue;
        };
        let patch = request.find("patch").and_then(Node::data);
        answer.push(match patch {
            Some(patch) => {
                let (collection, version) = write(turn, account, &name, request, &patch);
                if let Some(version) = version {
                    changed.push((name.clone().into_owned(), version));
                }
                collection
            }
            None => read(turn, account, &name, request),
        });
    }
    turn.reply(origin, node, Some(answer));
    tell_siblings(turn, account, device, &changed);
    Outcome::Answered
}

fn read(turn: &Turn<'_>, account: AccountId, name: &str, request: &Node) -> Node {
    let since = request.number("version").unwrap_or_default();
    let Some(owner) = turn.world.account(account) else {
        return collection(name, 0);
    };
    let (patches, more) = owner.collections.after(name, since);
    let patches: Vec<_> = patches
        .iter()
        .map(|b| Node::new("patch").bytes(b.clone()))
        .collect();
    let mut answer = collection(name, owner.collections.version(name));
    if more {
        answer.set("has_more_patches", "true");
    }
    if !patches.is_empty() {
        answer.push(Node::new("patches").children(patches));
    }
    answer
}

/// The answer, and the new version where the patch was taken.
fn write(
    turn: &mut Turn<'_>,
    account: AccountId,
    name: &str,
    request: &Node,
    patch: &[u8],
) -> (Node, Option<u64>) {
    let version = request.number("version").unwrap_or_default();
    let Some(owner) = turn.world.account_mut(account) else {
        return (collection(name, 0), None);
    };
    match owner.collections.append(name, version, patch) {
        Ok(version) => (collection(name, version), Some(version)),
        Err(error) => {
            let code: u16 = if error == PatchError::Conflict {
                409
            } else {
                400
            };
            // The client merges what it missed and tries again, so the answer brings it.
            let missed = read(turn, account, name, request)
                .attr("type", "error")
                .child(Node::new("error").attr("code", code));
            (missed, None)
        }
    }
}

fn collection(name: &str, version: u64) -> Node {
    Node::new("collection")
        .attr("name", name.to_owned())
        .attr("version", version)
}

fn tell_siblings(
    turn: &mut Turn<'_>,
    account: AccountId,
    device: DeviceId,
    changed: &[(String, u64)],
) {
    let (false, Some(owner)) = (changed.is_empty(), turn.world.account(account)) else {
        return;
    };
    let pn = owner.pn();
    for number in turn.world.device_numbers(account) {
        if number != device {
            let collections = changed
                .iter()
                .map(|(name, version)| collection(name, *version));
            let notice = turn.notification("server_sync", &pn).children(collections);
            turn.deliver(account, number, notice);
        }
    }
}
