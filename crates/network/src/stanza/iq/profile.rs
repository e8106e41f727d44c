//! Profile picture and about text.

use bytes::Bytes;

use super::Outcome;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::AccountId;
use crate::world::turn::{Origin, Turn};

/// The largest picture that is kept.
const PICTURE_MAX: usize = 1 << 20;

pub(super) fn picture(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some((account, _)) = origin.who() else {
        return Outcome::Unknown;
    };
    let target = node.jid("target");
    if node.get("type").as_deref() == Some("get") {
        get_picture(
            turn,
            origin,
            node,
            target.as_ref().or(node.jid("to").as_ref()),
        );
        return Outcome::Answered;
    }
    if target.is_some_and(|jid| turn.world.owner(&jid) != Some(account)) {
        turn.reply_error(origin, node, 403, "forbidden");
        return Outcome::Answered;
    }
    let bytes = node
        .find("picture")
        .and_then(Node::data)
        .filter(|bytes| !bytes.is_empty());
    if bytes
        .as_ref()
        .is_some_and(|bytes| bytes.len() > PICTURE_MAX)
    {
        turn.reply_error(origin, node, 406, "not-acceptable");
        return Outcome::Answered;
    }
    set_picture(turn, origin, node, account, bytes);
    Outcome::Answered
}

fn get_picture(turn: &mut Turn<'_>, origin: Origin, node: &Node, target: Option<&Jid>) {
    let asked = node.find("picture");
    let kind = asked.and_then(|p| p.get("type")).map_or("preview", |kind| {
        if kind == "image" { "image" } else { "preview" }
    });
    let viewer = origin.who().map(|(account, _)| account);
    let owner = target.and_then(|jid| turn.world.find(jid));
    let hidden = owner.is_some_and(|owner| {
        viewer != Some(owner.id)
            && (owner
                .privacy
                .get("profile")
                .is_some_and(|value| value == "none")
                || viewer.is_some_and(|viewer| owner.has_blocked(viewer)))
    });
    let picture = Node::new("picture");
    let answer = match owner.and_then(|owner| Some((owner, owner.picture.as_ref()?.0))) {
        Some(_) if hidden => picture.child(Node::new("error").attr("code", 401_u16)),
        Some((owner, id)) => {
            let path = format!("/pictures/{}/{id}", owner.phone);
            picture
                .attr("id", id)
                .attr("type", kind)
                .attr("url", format!("https://{}{path}", turn.world.media_host))
                .attr("direct_path", path)
        }
        None => picture.child(Node::new("error").attr("code", 404_u16)),
    };
    turn.reply(origin, node, Some(answer));
}

fn set_picture(
    turn: &mut Turn<'_>,
    origin: Origin,
    node: &Node,
    account: AccountId,
    bytes: Option<Bytes>,
) {
    let id = u64::try_from(turn.now).unwrap_or_default();
    let (seconds, Some(owner)) = (turn.seconds(), turn.world.account_mut(account)) else {
        return;
    };
    // A new picture has a new id even within one millisecond.
    let id = owner
        .picture
        .as_ref()
        .map_or(id, |(old, _)| id.max(old + 1));
    let pn = owner.pn();
    let removed = bytes.is_none();
    owner.picture = bytes.map(|bytes| (id, bytes));
    let answer = (!removed).then(|| Node::new("picture").attr("id", id));
    turn.reply(origin, node, answer);
    let change = if removed {
        Node::new("delete").attr("jid", pn)
    } else {
        Node::new("set").attr("jid", pn).attr("id", id)
    };
    tell_acquaintances(turn, account, "picture", &change.attr("t", seconds));
}

pub(super) fn about(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some((account, _)) = origin.who() else {
        return Outcome::Unknown;
    };
    let Some(status) = node.find("status") else {
        return Outcome::Unknown;
    };
    if node.get("type").as_deref() != Some("set") {
        return Outcome::Unknown;
    }
    let text = status.text().unwrap_or_default();
    let now = turn.now;
    if let Some(owner) = turn.world.account_mut(account) {
        owner.about.clone_from(&text);
        owner.about_set_at = now;
    }
    turn.reply(origin, node, None);
    tell_acquaintances(
        turn,
        account,
        "status",
        &Node::new("set").bytes(text.into_bytes()),
    );
    Outcome::Answered
}

/// Tells an account's own devices and those of everybody who wrote to it.
fn tell_acquaintances(turn: &mut Turn<'_>, account: AccountId, kind: &'static str, change: &Node) {
    let Some(owner) = turn.world.account(account) else {
        return;
    };
    let pn = owner.pn();
    let everybody: Vec<_> = std::iter::once(account)
        .chain(owner.wrote_here.iter().copied())
        .collect();
    for other in everybody {
        for number in turn.world.device_numbers(other) {
            let notice = turn.notification(kind, &pn).child(change.clone());
            turn.deliver(other, number, notice);
        }
    }
}
