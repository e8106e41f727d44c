//! Every verdict of the fault plan, carried out.

use super::*;
use crate::faults::{Action, FaultRule, Match, NodeSpec, StanzaMatch, StreamErrorDetail};

fn pair() -> (Net, Companion, Companion) {
    let mut net = Net::new();
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.online(bob));
    (net, ann, bob)
}

/// Puts a rule in force for the first stanza (or login) that it matches.
fn once(net: &mut Net, matches: Match, action: Action) {
    net.world
        .faults
        .add(FaultRule::new(matches, action).once())
        .unwrap();
}

fn write(net: &mut Net, from: &Companion, to: &Companion, id: &str) {
    net.say(from.conn, message(id, &to.pn().bare(), &[to.pn()]));
}

fn ids(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(id).collect()
}

#[test]
fn a_dropped_message_is_neither_delivered_nor_acknowledged() {
    let (mut net, ann, bob) = pair();
    once(&mut net, Match::from_device("message"), Action::Drop);
    write(&mut net, &ann, &bob, "a");
    assert!(net.take(ann.conn).is_empty() && net.take(bob.conn).is_empty());
    write(&mut net, &ann, &bob, "b");
    assert_eq!(ids(&net.take(bob.conn)), ["b"]);
    assert_eq!(net.world.counters.faults, 1);
}

#[test]
fn a_copy_lost_on_the_wire_comes_after_the_next_login() {
    let (mut net, ann, mut bob) = pair();
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Drop,
    );
    write(&mut net, &ann, &bob, "a");
    assert!(net.take(bob.conn).is_empty());
    net.drop_connection(&bob);
    net.login(&mut bob);
    assert_eq!(
        tags(&net.take(bob.conn)),
        ["success", "offline_preview", "message", "offline"]
    );
}

#[test]
fn delayed_stanzas_arrive_later_in_both_directions() {
    let (mut net, ann, bob) = pair();
    once(
        &mut net,
        Match::from_device("message"),
        Action::Delay { ms: 100 },
    );
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Delay { ms: 50 },
    );
    write(&mut net, &ann, &bob, "a");
    assert!(net.take(ann.conn).is_empty());
    assert_eq!(net.world.next_deadline(), Some(net.now + 100));
    net.advance(100);
    assert_eq!(tags(&net.take(ann.conn)), ["ack"]);
    assert!(net.take(bob.conn).is_empty());
    net.advance(50);
    assert_eq!(ids(&net.take(bob.conn)), ["a"]);
}

#[test]
fn a_delayed_phone_is_delayed_too() {
    let (mut net, ann, bob) = pair();
    once(
        &mut net,
        Match::from_device("message").device(0),
        Action::Delay { ms: 100 },
    );
    net.phone_says(ann.account, message("a", &bob.pn().bare(), &[bob.pn()]));
    assert!(net.take(bob.conn).is_empty());
    net.advance(100);
    assert_eq!(ids(&net.take(bob.conn)), ["a"]);
}

#[test]
fn duplicates_and_reordered_deliveries() {
    let (mut net, ann, bob) = pair();
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Duplicate,
    );
    write(&mut net, &ann, &bob, "a");
    assert_eq!(ids(&net.take(bob.conn)), ["a", "a"]);
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Reorder { ms: 900 },
    );
    write(&mut net, &ann, &bob, "b");
    assert!(net.take(bob.conn).is_empty());
    write(&mut net, &ann, &bob, "c");
    assert_eq!(ids(&net.take(bob.conn)), ["c", "b"]);
    // Nothing overtakes: it goes on its own after a while.
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Reorder { ms: 900 },
    );
    write(&mut net, &ann, &bob, "d");
    net.advance(900);
    assert_eq!(ids(&net.take(bob.conn)), ["d"]);
}

#[test]
fn a_nack_carries_its_code_and_delivers_nothing() {
    let (mut net, ann, bob) = pair();
    once(
        &mut net,
        Match::from_device("message"),
        Action::Nack { code: 479 },
    );
    write(&mut net, &ann, &bob, "a");
    let ack = net.take(ann.conn).remove(0);
    assert_eq!(
        (ack.get("error").unwrap().as_ref(), id(&ack).as_str()),
        ("479", "a")
    );
    assert!(net.take(bob.conn).is_empty());
    assert_eq!(net.world.counters.messages_refused, 1);
}

#[test]
fn no_ack_and_late_ack_deliver_at_once() {
    let (mut net, ann, bob) = pair();
    once(&mut net, Match::from_device("message"), Action::NoAck);
    write(&mut net, &ann, &bob, "a");
    assert!(net.take(ann.conn).is_empty());
    assert_eq!(ids(&net.take(bob.conn)), ["a"]);
    once(
        &mut net,
        Match::from_device("message"),
        Action::LateAck { ms: 7_000 },
    );
    write(&mut net, &ann, &bob, "b");
    assert!(net.take(ann.conn).is_empty());
    assert_eq!(ids(&net.take(bob.conn)), ["b"]);
    net.advance(7_000);
    assert_eq!(id(&net.take(ann.conn)[0]), "b");
}

#[test]
fn replaced_and_corrupted_stanzas() {
    let (mut net, ann, bob) = pair();
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Corrupt,
    );
    write(&mut net, &ann, &bob, "a");
    let got = net.take(bob.conn).remove(0);
    assert_ne!(
        got.find("enc").unwrap().data().unwrap(),
        bob.pn().to_string().as_bytes()
    );
    let node = NodeSpec {
        tag: "message".to_owned(),
        attrs: [("type".to_owned(), "odd".to_owned())].into(),
        children: None,
        text: None,
        base64: None,
    };
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        Action::Replace { node },
    );
    write(&mut net, &ann, &bob, "b");
    assert_eq!(net.take(bob.conn)[0].get("type").unwrap(), "odd");
}

#[test]
fn a_request_fails_with_code_text_and_backoff() {
    let (mut net, ann, _) = pair();
    let matches = Match::from_device("iq").stanza(StanzaMatch::iq("encrypt", Some("count")));
    let action = Action::IqError {
        code: 429,
        text: Some("rate-overlimit".to_owned()),
        backoff: Some(30),
    };
    once(&mut net, matches, action);
    let request = iq("get", "encrypt", Node::new("count"));
    let answer = net.ask(ann.conn, request.clone());
    let error = answer.find("error").unwrap();
    assert_eq!(
        (code(error).as_str(), error.get("backoff").unwrap().as_ref()),
        ("429", "30")
    );
    assert_eq!(net.ask(ann.conn, request).get("type").unwrap(), "result");
}

#[test]
fn stream_errors_close_when_asked_to() {
    let (mut net, ann, bob) = pair();
    let open = Action::StreamError {
        code: Some(503),
        detail: None,
        close: false,
    };
    once(&mut net, Match::from_device("message"), open);
    write(&mut net, &ann, &bob, "a");
    assert_eq!(code(&net.take(ann.conn)[0]), "503");
    assert!(!net.closed.contains_key(&ann.conn));
    let conflict = Action::StreamError {
        code: None,
        detail: Some(StreamErrorDetail::ConflictReplaced),
        close: true,
    };
    once(&mut net, Match::from_device("message"), conflict);
    write(&mut net, &ann, &bob, "b");
    assert!(net.take(ann.conn)[0].find("conflict").is_some());
    assert_eq!(net.closed.get(&ann.conn), Some(&false));
    // What a closed connection still had in its buffers is not read any more.
    write(&mut net, &ann, &bob, "c");
    assert!(net.take(bob.conn).is_empty());
}

#[test]
fn a_pulled_cable_closes_abruptly_and_the_copy_waits() {
    let (mut net, ann, mut bob) = pair();
    let close = Action::Close { abrupt: true };
    once(
        &mut net,
        Match::to_device("message").account("62822"),
        close,
    );
    write(&mut net, &ann, &bob, "a");
    assert_eq!(net.closed.get(&bob.conn), Some(&true));
    net.login(&mut bob);
    assert_eq!(tags(&net.take(bob.conn))[2], "message");
}

#[test]
fn a_silent_connection_hears_and_says_nothing_until_it_is_replaced() {
    let (mut net, ann, mut bob) = pair();
    once(
        &mut net,
        Match::from_device("iq").account("62822"),
        Action::Silence,
    );
    net.say(bob.conn, iq("get", "w:p", Node::new("ping")));
    assert_eq!(net.silenced, [bob.conn]);
    write(&mut net, &ann, &bob, "a");
    net.say(bob.conn, iq("get", "w:p", Node::new("ping")));
    assert!(net.take(bob.conn).is_empty());
    let old = bob.conn;
    net.login(&mut bob);
    assert_eq!(net.closed.get(&old), Some(&true));
    assert_eq!(
        tags(&net.take(bob.conn)),
        ["success", "offline_preview", "message", "offline"]
    );
}

#[test]
fn logins_fail_are_late_or_end() {
    let (mut net, _, mut bob) = pair();
    net.drop_connection(&bob);
    let failure = Action::Failure {
        reason: 503,
        code: None,
        expire: None,
        location: None,
        message: None,
        url: None,
    };
    once(&mut net, Match::connect().account("62822"), failure);
    net.login(&mut bob);
    assert_eq!(net.take(bob.conn)[0].get("reason").unwrap(), "503");
    assert!(net.closed.contains_key(&bob.conn));
    once(
        &mut net,
        Match::connect().account("62822"),
        Action::Delay { ms: 300 },
    );
    net.login(&mut bob);
    assert!(net.take(bob.conn).is_empty());
    net.advance(300);
    assert_eq!(net.take(bob.conn)[0].tag, "success");
    once(
        &mut net,
        Match::connect().account("62822"),
        Action::StreamEnd,
    );
    net.login(&mut bob);
    assert_eq!(tags(&net.take(bob.conn)), ["xmlstreamend"]);
}
