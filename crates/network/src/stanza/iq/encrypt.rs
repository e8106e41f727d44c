//! `encrypt`: prekeys are uploaded, counted, digested and fetched.

use super::Outcome;
use crate::node::Node;
use crate::world::prekeys::{Upload, bundle_node, read_number, read_prekey, read_signed_prekey};
use crate::world::turn::{Origin, Turn};

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let set = node.get("type").as_deref() == Some("set");
    let Some(first) = node.first() else {
        return Outcome::Unknown;
    };
    match (set, first.tag.as_ref()) {
        (false, "count") => count(turn, origin, node),
        (false, "digest") => digest(turn, origin, node),
        (false, "key") => fetch(turn, origin, node, first),
        (true, _) => upload(turn, origin, node),
        (false, _) => return Outcome::Unknown,
    }
    Outcome::Answered
}

fn count(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let left = origin
        .who()
        .and_then(|(account, device)| turn.world.device(account, device))
        .map_or(0, |device| device.keys.one_time_count());
    turn.reply(origin, node, Some(Node::new("count").attr("value", left)));
}

fn digest(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let digest = origin
        .who()
        .and_then(|(account, device)| turn.world.device(account, device))
        .filter(|device| device.greeted)
        .map(|device| device.keys.digest());
    match digest {
        Some(digest) => turn.reply(origin, node, Some(digest)),
        // Nothing was uploaded yet.
        None => turn.reply_error(origin, node, 404, "item-not-found"),
    }
}

/// A whole upload, a rotation of the signed key, or both.
fn upload(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let Some((account, number)) = origin.who() else {
        return;
    };
    let upload = read_upload(node);
    let Some(device) = turn.world.device_mut(account, number) else {
        return;
    };
    let foreign = upload
        .identity
        .as_ref()
        .is_some_and(|identity| identity[..] != device.keys.identity);
    if foreign {
        turn.protocol_error(origin, "upload of prekeys under another identity");
        turn.reply_error(origin, node, 406, "not-acceptable");
        return;
    }
    let added = device.take_upload(&upload);
    turn.world.counters.prekeys_uploaded += added;
    turn.reply(origin, node, None);
    if !upload.keys.is_empty() {
        turn.greet_once(account, number);
    }
}

fn read_upload(node: &Node) -> Upload {
    let data = |tag: &str| node.find(tag).and_then(Node::data);
    let rotation = node.find("rotate").unwrap_or(node);
    Upload {
        registration_id: data("registration").and_then(|bytes| read_number(&bytes)),
        identity: data("identity"),
        signed: rotation.find("skey").and_then(read_signed_prekey),
        keys: node
            .find("list")
            .map(|list| list.all("key").filter_map(read_prekey).collect())
            .unwrap_or_default(),
    }
}

/// Hands out one bundle per address asked for, each in the form in which it was asked.
fn fetch(turn: &mut Turn<'_>, origin: Origin, node: &Node, key: &Node) {
    let mut list = Node::new("list");
    for user in key.all("user") {
        let Some(jid) = user.jid("jid") else { continue };
        let seconds = turn.seconds();
        let bundle = match turn.world.owner(&jid) {
            Some(account) => turn.give_bundle(origin, account, jid.device),
            None => None,
        };
        list.push(match bundle {
            Some(bundle) => bundle_node(jid, &bundle, seconds),
            None => Node::new("user").attr("jid", jid).child(
                Node::new("error")
                    .attr("code", 404_u16)
                    .attr("text", "item-not-found"),
            ),
        });
    }
    turn.reply(origin, node, Some(list));
}
