//! Where receipts go.

use super::*;

/// Ann wrote to Bob; both have two companions. Answers what Bob's first one got.
fn written() -> (Net, [Companion; 2], [Companion; 2], Node) {
    let mut net = Net::new();
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let ann = [net.online(ann), net.online(ann)];
    let bob = [net.online(bob), net.online(bob)];
    net.say(
        ann[0].conn,
        message("M1", &bob[0].pn().bare(), &[bob[0].pn()]),
    );
    let got = net
        .take(bob[0].conn)
        .into_iter()
        .find(|node| node.is("message"))
        .unwrap();
    for companion in ann.iter().chain(&bob) {
        net.take(companion.conn);
        net.take_phone(companion.account);
    }
    (net, ann, bob, got)
}

#[test]
fn a_delivery_receipt_reaches_all_devices_of_the_author() {
    let (mut net, ann, bob, got) = written();
    let ack = net.ask(bob[0].conn, receipt(&got, None));
    assert_eq!(ack.get("class").unwrap(), "receipt");
    for companion in &ann {
        let forwarded = net.take(companion.conn).remove(0);
        assert_eq!(forwarded.get("from").unwrap(), bob[0].pn().to_string());
        assert_eq!(forwarded.get("id").unwrap(), "M1");
        assert!(forwarded.value("type").is_none());
    }
    assert_eq!(net.take_phone(ann[0].account)[0].tag, "receipt");
    assert!(net.take(bob[1].conn).is_empty());
    assert_eq!(net.world.counters.receipts_forwarded, 3);
}

#[test]
fn a_read_receipt_marks_the_chat_read_on_ones_own_devices() {
    let (mut net, ann, bob, got) = written();
    net.say(bob[0].conn, receipt(&got, Some("read")));
    assert_eq!(net.take(ann[0].conn)[0].get("type").unwrap(), "read");
    let own = net.take(bob[1].conn).remove(0);
    assert_eq!(own.get("type").unwrap(), "read-self");
    assert_eq!(own.get("from").unwrap(), bob[0].pn().bare().to_string());
    assert_eq!(
        own.get("recipient").unwrap(),
        ann[0].pn().bare().to_string()
    );
    assert_eq!(
        net.take_phone(bob[0].account)[0].get("type").unwrap(),
        "read-self"
    );
}

#[test]
fn who_hides_reading_tells_only_his_own_devices() {
    let (mut net, ann, bob, got) = written();
    net.say(bob[0].conn, receipt(&got, Some("read-self")));
    assert!(net.take(ann[0].conn).is_empty());
    assert_eq!(net.take(bob[1].conn).len(), 1);
}

#[test]
fn a_retry_goes_to_the_device_that_encrypted() {
    let (mut net, ann, bob, got) = written();
    let retry = receipt(&got, Some("retry"))
        .child(
            Node::new("retry")
                .attr("count", "1")
                .attr("id", "M1")
                .attr("v", "1"),
        )
        .child(Node::new("registration").bytes(vec![0, 0, 0, 1]));
    net.say(bob[0].conn, retry);
    let forwarded = net.take(ann[0].conn).remove(0);
    assert_eq!(forwarded.get("type").unwrap(), "retry");
    assert_eq!(forwarded.get("from").unwrap(), bob[0].pn().to_string());
    assert!(forwarded.find("registration").is_some());
    assert!(net.take(ann[1].conn).is_empty());
    assert!(net.take_phone(ann[0].account).is_empty());
    assert_eq!(net.world.counters.retries, 1);
}

#[test]
fn what_is_sent_again_survives_the_acknowledgement_of_the_first() {
    let (mut net, ann, mut bob, got) = written();
    net.say(bob[0].conn, receipt(&got, Some("retry")));
    let again = message("M1", &bob[0].pn(), &[])
        .attr("type", "text")
        .child(enc("pkmsg", b"again"));
    net.say(ann[0].conn, again);
    // Clients acknowledge what they could not open, after they have asked for it again.
    let ack = Node::new("ack")
        .attr("class", "message")
        .attr("id", "M1")
        .attr("to", got.value("from").unwrap().clone());
    net.say(bob[0].conn, ack.clone());
    net.drop_connection(&bob[0]);
    net.login(&mut bob[0]);
    let messages = |nodes: Vec<Node>| -> Vec<Node> {
        nodes
            .into_iter()
            .filter(|node| node.is("message"))
            .collect()
    };
    let waited = messages(net.take(bob[0].conn));
    assert_eq!(waited.len(), 1);
    assert_eq!(
        waited[0].find("enc").unwrap().data().unwrap().as_ref(),
        b"again"
    );
    net.say(bob[0].conn, receipt(&waited[0], None));
    net.drop_connection(&bob[0]);
    net.login(&mut bob[0]);
    assert!(messages(net.take(bob[0].conn)).is_empty());
}

#[test]
fn receipts_for_the_server_go_no_further() {
    let (mut net, ann, bob, got) = written();
    for kind in ["peer_msg", "hist_sync", "sender"] {
        let ack = net.ask(bob[0].conn, receipt(&got, Some(kind)));
        assert_eq!(ack.get("type").unwrap(), kind);
    }
    assert!(net.take(ann[0].conn).is_empty());
}

#[test]
fn receipts_can_hide_the_device_and_follow_the_family() {
    let mut net = Net::with(WorldOptions {
        receipt_from_device: false,
        ..WorldOptions::default()
    });
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.online(bob));
    let to = bob.lid(&net);
    net.say(
        ann.conn,
        message("M1", &to.bare(), std::slice::from_ref(&to)),
    );
    let got = net.take(bob.conn).remove(0);
    net.take(ann.conn);
    net.say(bob.conn, receipt(&got, None));
    assert_eq!(
        net.take(ann.conn)[0].get("from").unwrap(),
        to.bare().to_string()
    );
}
