//! Presence, typing, app state, blocking, picture and about.

use super::*;
use waproto::whatsapp::SyncdPatch;

fn pair() -> (Net, Companion, Companion) {
    let mut net = Net::new();
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.online(bob));
    (net, ann, bob)
}

fn presence(kind: &'static str) -> Node {
    Node::new("presence").attr("type", kind)
}

#[test]
fn a_subscriber_hears_at_once_and_on_change_also_after_reconnecting() {
    let (mut net, mut ann, bob) = pair();
    let subscribe = presence("subscribe").attr("to", bob.pn().bare());
    let now = net.ask(ann.conn, subscribe);
    assert_eq!(now.get("type").unwrap(), "unavailable");
    assert_eq!(now.get("last").unwrap(), "deny");
    net.say(bob.conn, presence("available").attr("name", "Bobby"));
    assert_eq!(net.take(ann.conn)[0].get("type").unwrap(), "available");
    assert_eq!(net.world.account(bob.account).unwrap().push_name, "Bobby");
    net.drop_connection(&ann);
    net.login(&mut ann);
    net.take(ann.conn);
    net.drop_connection(&bob);
    let gone = net.take(ann.conn).remove(0);
    assert_eq!(gone.get("type").unwrap(), "unavailable");
    assert_eq!(gone.get("last").unwrap(), (START / 1000).to_string());
}

#[test]
fn one_of_two_devices_leaving_changes_nothing() {
    let (mut net, ann, bob) = pair();
    net.say(
        ann.conn,
        presence("subscribe").attr("to", bob.lid(&net).bare()),
    );
    net.say(bob.conn, presence("available"));
    net.phone_says(bob.account, presence("available"));
    let heard = net.take(ann.conn);
    assert_eq!(heard.len(), 2);
    assert_eq!(
        heard[1].get("from").unwrap(),
        bob.lid(&net).bare().to_string()
    );
    net.say(bob.conn, presence("unavailable"));
    assert!(net.take(ann.conn).is_empty());
}

#[test]
fn typing_is_passed_on_and_waits_three_seconds() {
    let (mut net, ann, mut bob) = pair();
    let typing = Node::new("chatstate")
        .attr("to", bob.pn().bare())
        .child(Node::new("composing"));
    net.say(ann.conn, typing.clone());
    let state = net.take(bob.conn).remove(0);
    assert_eq!(state.get("from").unwrap(), ann.pn().bare().to_string());
    assert!(state.find("composing").is_some());
    net.drop_connection(&bob);
    net.say(ann.conn, typing.clone());
    net.advance(2_999);
    net.login(&mut bob);
    assert_eq!(tags(&net.take(bob.conn)).last().unwrap(), "chatstate");
    net.drop_connection(&bob);
    net.say(ann.conn, typing);
    net.advance(3_000);
    net.login(&mut bob);
    assert_eq!(tags(&net.take(bob.conn)).last().unwrap(), "offline");
}

fn sync(collection: Node) -> Node {
    iq(
        "set",
        "w:sync:app:state",
        Node::new("sync").child(collection),
    )
}

fn regular(version: u64) -> Node {
    Node::new("collection")
        .attr("name", "regular")
        .attr("version", version)
}

#[test]
fn app_state_is_relayed_and_conflicts_bring_what_was_missed() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (one, two) = (net.online(account), net.online(account));
    net.take(one.conn);
    let patch = || Node::new("patch").bytes(SyncdPatch::default().encode_to_vec());
    let empty = net.ask(one.conn, sync(regular(0)));
    assert_eq!(
        empty
            .path(&["sync", "collection"])
            .unwrap()
            .get("version")
            .unwrap(),
        "0"
    );
    let written = net.ask(one.conn, sync(regular(0).child(patch())));
    assert_eq!(
        written
            .path(&["sync", "collection"])
            .unwrap()
            .get("version")
            .unwrap(),
        "1"
    );
    let notice = net.take(two.conn).remove(0);
    assert_eq!(notice.get("type").unwrap(), "server_sync");
    assert_eq!(
        notice.find("collection").unwrap().get("version").unwrap(),
        "1"
    );
    let refused = net.ask(two.conn, sync(regular(0).child(patch())));
    let collection = refused.path(&["sync", "collection"]).unwrap();
    assert_eq!(
        collection.find("error").unwrap().get("code").unwrap(),
        "409"
    );
    assert_eq!(collection.find("patches").unwrap().all("patch").count(), 1);
    let read = net.ask(two.conn, sync(regular(1)));
    assert!(read.path(&["sync", "collection", "patches"]).is_none());
}

#[test]
fn who_is_blocked_gets_through_to_nobody_and_is_not_told() {
    let (mut net, ann, bob) = pair();
    let item = Node::new("item")
        .attr("jid", ann.pn().bare())
        .attr("action", "block");
    let list = net.ask(bob.conn, iq("set", "blocklist", item.clone()));
    assert_eq!(list.find("list").unwrap().all("item").count(), 1);
    net.take_phone(bob.account);
    let to = bob.pn().bare();
    let devices = [to.clone(), bob.pn(), ann.pn().bare()];
    net.say(ann.conn, message("M1", &to, &devices));
    assert!(net.take(ann.conn)[0].value("error").is_none());
    assert!(net.take(bob.conn).is_empty() && net.take_phone(bob.account).is_empty());
    assert_eq!(net.take_phone(ann.account).len(), 1);
    let mut unblock = item;
    unblock.set("action", "unblock");
    net.say(bob.conn, iq("set", "blocklist", unblock));
    net.say(ann.conn, message("M2", &to, &devices));
    assert!(net.take(bob.conn).iter().any(|node| node.is("message")));
}

#[test]
fn picture_and_about_are_kept_and_announced() {
    let (mut net, ann, bob) = pair();
    // Bob wrote to Ann, so he hears of her changes.
    net.say(bob.conn, message("M1", &ann.pn().bare(), &[ann.pn()]));
    net.take(bob.conn);
    let get = iq(
        "get",
        "w:profile:picture",
        Node::new("picture").attr("type", "image"),
    )
    .attr("target", ann.pn().bare());
    let none = net.ask(bob.conn, get.clone());
    assert_eq!(
        none.path(&["picture", "error"])
            .unwrap()
            .get("code")
            .unwrap(),
        "404"
    );
    let set = Node::new("picture")
        .attr("type", "image")
        .bytes(&b"jpeg"[..]);
    net.take(ann.conn);
    net.say(ann.conn, iq("set", "w:profile:picture", set));
    let told = net.take(ann.conn);
    assert_eq!(
        tags(&told),
        ["iq", "notification"],
        "everybody is told, oneself included"
    );
    let id = told[0]
        .find("picture")
        .unwrap()
        .get("id")
        .unwrap()
        .into_owned();
    let notice = net.take(bob.conn).remove(0);
    assert_eq!(notice.get("type").unwrap(), "picture");
    assert_eq!(notice.find("set").unwrap().get("id").unwrap(), id);
    let found = net.ask(bob.conn, get);
    assert!(
        found
            .find("picture")
            .unwrap()
            .get("url")
            .unwrap()
            .contains(&id)
    );
    net.say(
        ann.conn,
        iq("set", "status", Node::new("status").bytes(&b"busy"[..])),
    );
    assert_eq!(net.world.account(ann.account).unwrap().about, "busy");
    assert_eq!(
        net.take(bob.conn)[0].find("set").unwrap().text().unwrap(),
        "busy"
    );
}
