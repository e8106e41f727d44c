//! What waits for a device that is away, and when it leaves the mailbox.

use super::*;

/// Ann online, Bob linked and away.
fn away() -> (Net, Companion, Companion) {
    let mut net = Net::with(WorldOptions {
        offline_primer: Some(2),
        offline_batch_wait_ms: 500,
        ..WorldOptions::default()
    });
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.link(bob));
    (net, ann, bob)
}

fn write(net: &mut Net, from: &Companion, to: &Companion, ids: &[&str]) {
    for id in ids {
        net.say(from.conn, message(id, &to.pn().bare(), &[to.pn()]));
    }
    net.take(from.conn);
}

fn ids(nodes: &[Node]) -> Vec<String> {
    nodes
        .iter()
        .filter(|node| node.is("message"))
        .map(id)
        .collect()
}

#[test]
fn a_queue_comes_in_order_with_its_frame_and_in_batches() {
    let (mut net, ann, mut bob) = away();
    write(&mut net, &ann, &bob, &["a", "b", "c", "d", "e"]);
    assert_eq!(net.world.counters.copies_queued, 5);
    net.login(&mut bob);
    let first = net.take(bob.conn);
    assert_eq!(
        tags(&first),
        ["success", "offline_preview", "message", "message"]
    );
    assert_eq!(first[1].first().unwrap().get("count").unwrap(), "5");
    assert_eq!(first[1].first().unwrap().get("message").unwrap(), "5");
    assert_eq!(first[2].get("offline").unwrap(), "1");
    // A live message meanwhile does not overtake.
    write(&mut net, &ann, &bob, &["f"]);
    assert!(net.take(bob.conn).is_empty());
    net.say(
        bob.conn,
        Node::new("ib").child(Node::new("offline_batch").attr("count", "3")),
    );
    assert_eq!(ids(&net.take(bob.conn)), ["c", "d", "e"]);
    // A client that never asks gets the rest all the same.
    net.advance(500);
    let last = net.take(bob.conn);
    assert_eq!(tags(&last), ["message", "offline"]);
    assert_eq!(last[1].first().unwrap().get("count").unwrap(), "6");
    write(&mut net, &ann, &bob, &["g"]);
    let live = net.take(bob.conn);
    assert_eq!(ids(&live), ["g"]);
    assert!(live[0].value("offline").is_none());
}

#[test]
fn a_passive_login_waits_for_active() {
    let (mut net, ann, mut bob) = away();
    write(&mut net, &ann, &bob, &["a"]);
    net.login_with(&mut bob, true);
    assert_eq!(tags(&net.take(bob.conn)), ["success"]);
    net.say(bob.conn, iq("set", "passive", Node::new("active")));
    assert_eq!(
        tags(&net.take(bob.conn)),
        ["iq", "offline_preview", "message", "offline"]
    );
}

#[test]
fn only_what_was_confirmed_is_not_delivered_again() {
    let (mut net, ann, mut bob) = away();
    net.login(&mut bob);
    net.take(bob.conn);
    write(&mut net, &ann, &bob, &["a", "b", "c"]);
    let got = net.take(bob.conn);
    net.say(bob.conn, receipt(&got[0], None));
    let ack = Node::new("ack")
        .attr("class", "message")
        .attr("id", "c")
        .attr("to", got[2].value("from").unwrap().clone());
    net.say(bob.conn, ack);
    net.drop_connection(&bob);
    net.login(&mut bob);
    assert_eq!(ids(&net.take(bob.conn)), ["b"]);
}

#[test]
fn further_ids_of_a_receipt_count_too() {
    let (mut net, ann, mut bob) = away();
    net.login(&mut bob);
    write(&mut net, &ann, &bob, &["a", "b"]);
    let got = net.take(bob.conn);
    let last = got.last().unwrap();
    let list = Node::new("list").child(Node::new("item").attr("id", "a"));
    net.say(bob.conn, receipt(last, Some("read")).child(list));
    assert_eq!(
        net.world
            .device(bob.account, bob.device)
            .unwrap()
            .unconfirmed()
            .count(),
        0
    );
}

#[test]
fn receipts_wait_for_a_sender_who_is_away() {
    let (mut net, mut ann, mut bob) = away();
    net.login(&mut bob);
    write(&mut net, &ann, &bob, &["a"]);
    let got = net.take(bob.conn).pop().unwrap();
    net.drop_connection(&ann);
    net.say(bob.conn, receipt(&got, None));
    net.login(&mut ann);
    let sent = net.take(ann.conn);
    assert_eq!(
        tags(&sent),
        ["success", "offline_preview", "receipt", "offline"]
    );
    assert_eq!(sent[1].first().unwrap().get("receipt").unwrap(), "1");
    let confirmation = Node::new("ack")
        .attr("class", "receipt")
        .attr("id", "a")
        .attr("to", sent[2].value("from").unwrap().clone());
    net.say(ann.conn, confirmation);
    assert_eq!(
        net.world
            .device(ann.account, ann.device)
            .unwrap()
            .unconfirmed()
            .count(),
        0
    );
}

#[test]
fn a_phone_that_was_away_gets_what_waited() {
    let (mut net, ann, bob) = away();
    net.run(|world, now, out| world.set_phone_online(now, bob.account, false, out))
        .unwrap();
    let to = bob.pn().bare();
    net.say(ann.conn, message("a", &to, std::slice::from_ref(&to)));
    assert!(net.take_phone(bob.account).is_empty());
    net.run(|world, now, out| world.set_phone_online(now, bob.account, true, out))
        .unwrap();
    let got = net.take_phone(bob.account);
    assert_eq!(ids(&got), ["a"]);
    assert_eq!(got[0].get("offline").unwrap(), "1");
}

#[test]
fn an_unlinked_companions_queue_is_gone() {
    let (mut net, ann, mut bob) = away();
    write(&mut net, &ann, &bob, &["a"]);
    net.run(|world, now, out| world.unlink(now, bob.account, bob.device, out))
        .unwrap();
    let ghost = bob.clone();
    write(&mut net, &ann, &ghost, &["b"]);
    bob = net.link(bob.account);
    assert_eq!(bob.device, 2, "a number is never used again");
    net.login(&mut bob);
    assert!(ids(&net.take(bob.conn)).is_empty());
}
