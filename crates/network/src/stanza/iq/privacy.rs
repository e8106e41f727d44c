//! `privacy` and `blocklist`: settings, blocked people, and tokens by which a person may be reached.

use base64::Engine as _;
use bytes::Bytes;
use rand::Rng as _;
use sha2::Digest as _;

use super::Outcome;
use crate::node::{Node, Str};
use crate::world::AccountId;
use crate::world::turn::{Origin, Turn};

pub(super) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some((account, _)) = origin.who() else {
        return Outcome::Unknown;
    };
    if let Some(tokens) = node.find("tokens") {
        give_tokens(turn, account, tokens);
        turn.reply(origin, node, None);
        return Outcome::Answered;
    }
    let Some(settings) = node.find("privacy") else {
        return Outcome::Unknown;
    };
    if node.get("type").as_deref() == Some("set") {
        let Some(owner) = turn.world.account_mut(account) else {
            return Outcome::Unknown;
        };
        for category in settings.all("category") {
            if let (Some(name), Some(value)) = (category.get("name"), category.get("value")) {
                owner.privacy.insert(
                    Str::Owned(name.into_owned()),
                    Str::Owned(value.into_owned()),
                );
            }
        }
    }
    let categories: Vec<Node> = turn
        .world
        .account(account)
        .map(|owner| {
            let category = |(name, value): (&Str, &Str)| {
                Node::new("category")
                    .attr("name", name.clone())
                    .attr("value", value.clone())
            };
            owner.privacy.iter().map(category).collect()
        })
        .unwrap_or_default();
    turn.reply(
        origin,
        node,
        Some(Node::new("privacy").children(categories)),
    );
    Outcome::Answered
}

/// Gives a token to each person named and tells their devices.
fn give_tokens(turn: &mut Turn<'_>, account: AccountId, tokens: &Node) {
    for token in tokens.all("token") {
        let Some(jid) = token.jid("jid") else {
            continue;
        };
        let Some(target) = turn.world.owner(&jid) else {
            continue;
        };
        let given_at = token
            .get("t")
            .and_then(|t| t.parse().ok())
            .unwrap_or_else(|| turn.seconds());
        let mut bytes = [0_u8; 16];
        turn.world.rng.fill_bytes(&mut bytes);
        let bytes = Bytes::copy_from_slice(&bytes);
        let Some(giver) = turn.world.account_mut(account) else {
            return;
        };
        giver.tokens_given.insert(target, (bytes.clone(), given_at));
        let (pn, lid) = (giver.pn(), giver.lid_jid());
        let content = Node::new("tokens").child(
            Node::new("token")
                .attr("t", given_at)
                .attr("type", "trusted_contact")
                .bytes(bytes),
        );
        for number in turn.world.device_numbers(target) {
            let notice = turn
                .notification("privacy_token", &pn)
                .attr("sender_lid", &lid)
                .child(content.clone());
            turn.deliver(target, number, notice);
        }
    }
}

pub(super) fn blocklist(turn: &mut Turn<'_>, origin: Origin, node: &Node) -> Outcome {
    let Some((account, device)) = origin.who() else {
        return Outcome::Unknown;
    };
    let change = node
        .find("item")
        .filter(|_| node.get("type").as_deref() == Some("set"));
    if let Some(item) = change {
        let target = item.jid("jid").and_then(|jid| turn.world.owner(&jid));
        let (Some(target), Some(owner)) = (target, turn.world.account_mut(account)) else {
            turn.reply_error(origin, node, 404, "item-not-found");
            return Outcome::Answered;
        };
        if item.get("action").as_deref() == Some("unblock") {
            owner.blocked.remove(&target);
        } else {
            owner.blocked.insert(target);
        }
        tell_siblings(turn, account, device, item);
    }
    let list = list(turn, account);
    turn.reply(origin, node, Some(list));
    Outcome::Answered
}

fn list(turn: &Turn<'_>, account: AccountId) -> Node {
    let blocked: Vec<_> = turn
        .world
        .account(account)
        .into_iter()
        .flat_map(|owner| owner.blocked.iter())
        .filter_map(|id| turn.world.account(*id))
        .collect();
    let mut hash = sha2::Sha256::new();
    for other in &blocked {
        hash.update(other.phone.as_bytes());
    }
    let dhash = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&hash.finalize()[..6]);
    let items = blocked.iter().map(|other| {
        // Accounts that were migrated list people by LID.
        let lid = turn
            .world
            .account(account)
            .is_some_and(|owner| owner.migrated_to_lid);
        let item = Node::new("item");
        if lid {
            item.attr("jid", other.lid_jid()).attr("pn_jid", other.pn())
        } else {
            item.attr("jid", other.pn())
        }
    });
    Node::new("list").attr("dhash", dhash).children(items)
}

fn tell_siblings(turn: &mut Turn<'_>, account: AccountId, device: u16, item: &Node) {
    let Some(owner) = turn.world.account(account) else {
        return;
    };
    let pn = owner.pn();
    for number in turn.world.device_numbers(account) {
        if number != device {
            let notice = turn.notification("account_sync", &pn).child(
                Node::new("blocklist")
                    .attr("action", "modify")
                    .child(item.clone()),
            );
            turn.deliver(account, number, notice);
        }
    }
}
