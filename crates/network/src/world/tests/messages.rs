//! Messages to one person: who gets a copy, under which address, and what the sender is told.

use super::super::AccountPatch;
use super::*;

/// Two accounts with a companion each.
fn pair() -> (Net, Companion, Companion) {
    let mut net = Net::new();
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.online(bob));
    net.take(ann.conn);
    (net, ann, bob)
}

fn ack(net: &mut Net, companion: &Companion) -> Node {
    net.take(companion.conn)
        .into_iter()
        .find(|node| node.is("ack"))
        .unwrap()
}

#[test]
fn every_device_of_both_sides_gets_its_own_ciphertext() {
    let (mut net, ann, bob) = pair();
    let to = bob.pn().bare();
    let devices = [bob.pn().bare(), bob.pn(), ann.pn().bare()];
    net.say(ann.conn, message("M1", &to, &devices));

    let acked = ack(&mut net, &ann);
    assert_eq!(acked.get("class").unwrap(), "message");
    assert_eq!(acked.get("from").unwrap(), to.to_string());
    assert!(acked.value("error").is_none());

    let got = net.take(bob.conn).remove(0);
    assert_eq!(got.get("from").unwrap(), ann.pn().to_string());
    assert_eq!(
        got.get("sender_lid").unwrap(),
        ann.lid(&net).bare().to_string()
    );
    assert_eq!(got.get("notify").unwrap(), "Ann");
    assert_eq!(got.get("type").unwrap(), "text");
    assert!(got.value("recipient").is_none());
    assert_eq!(
        got.find("enc").unwrap().text().unwrap(),
        bob.pn().to_string()
    );
    assert!(got.find("participants").is_none());

    let phone = net.take_phone(bob.account).remove(0);
    assert_eq!(phone.find("enc").unwrap().text().unwrap(), to.to_string());
    let own = net.take_phone(ann.account).remove(0);
    assert_eq!(own.get("recipient").unwrap(), to.to_string());
    assert_eq!(net.world.counters.messages_accepted, 1);
    assert_eq!(net.world.counters.copies_delivered, 3);
}

#[test]
fn a_copy_by_lid_comes_from_the_senders_lid() {
    let (mut net, ann, bob) = pair();
    let to = bob.lid(&net).bare();
    let devices = [bob.lid(&net), ann.lid(&net).bare()];
    net.say(ann.conn, message("M1", &to, &devices));
    let got = net.take(bob.conn).remove(0);
    assert_eq!(got.get("from").unwrap(), ann.lid(&net).to_string());
    assert_eq!(got.get("sender_pn").unwrap(), ann.pn().bare().to_string());
    let own = net.take_phone(ann.account).remove(0);
    assert_eq!(own.get("from").unwrap(), ann.lid(&net).to_string());
    assert_eq!(own.get("recipient").unwrap(), to.to_string());
    assert_eq!(
        own.get("peer_recipient_pn").unwrap(),
        bob.pn().bare().to_string()
    );
}

#[test]
fn a_phones_message_reaches_companions_without_a_device_in_its_address() {
    let (mut net, ann, bob) = pair();
    let to = bob.pn().bare();
    net.phone_says(ann.account, message("M1", &to, &[bob.pn(), ann.pn()]));
    assert_eq!(net.take_phone(ann.account)[0].tag, "ack");
    assert_eq!(
        net.take(bob.conn)[0].get("from").unwrap(),
        "62811@s.whatsapp.net"
    );
    let copy = net.take(ann.conn).remove(0);
    assert_eq!(copy.get("from").unwrap(), "62811@s.whatsapp.net");
    assert_eq!(copy.get("recipient").unwrap(), to.to_string());
}

#[test]
fn device_identity_goes_only_where_a_session_is_opened() {
    let (mut net, ann, bob) = pair();
    let to = bob.pn().bare();
    let first = Node::new("to")
        .attr("jid", bob.pn())
        .child(enc("pkmsg", b"x"));
    let second = Node::new("to").attr("jid", &to).child(enc("msg", b"y"));
    let stanza = Node::new("message")
        .attr("to", &to)
        .attr("id", "M1")
        .attr("type", "text")
        .child(Node::new("participants").child(first).child(second))
        .child(Node::new("device-identity").bytes(&b"signed"[..]))
        .child(Node::new("tctoken").bytes(&b"token"[..]))
        .child(Node::new("reporting").child(Node::new("reporting_tag").bytes(&b"r"[..])));
    net.say(ann.conn, stanza);
    let companion = net.take(bob.conn).remove(0);
    assert_eq!(
        companion.find("device-identity").unwrap().text().unwrap(),
        "signed"
    );
    assert!(companion.find("reporting").is_some());
    assert!(companion.find("tctoken").is_none());
    assert!(
        net.take_phone(bob.account)[0]
            .find("device-identity")
            .is_none()
    );
}

#[test]
fn a_peer_message_keeps_its_category_and_belongs_to_no_chat() {
    let (mut net, ann, _) = pair();
    let stanza = Node::new("message")
        .attr("to", ann.pn())
        .attr("id", "P1")
        .attr("type", "text")
        .attr("category", "peer")
        .child(enc("pkmsg", b"key share"));
    net.phone_says(ann.account, stanza);
    let got = net.take(ann.conn).remove(0);
    assert_eq!(got.get("category").unwrap(), "peer");
    assert_eq!(got.get("from").unwrap(), ann.pn().bare().to_string());
    assert!(got.value("recipient").is_none());
}

#[test]
fn a_resent_message_goes_to_the_device_that_asked() {
    let (mut net, ann, bob) = pair();
    let stanza = Node::new("message")
        .attr("to", bob.pn())
        .attr("id", "M1")
        .attr("type", "text")
        .child(enc("pkmsg", b"again").attr("count", "1"));
    net.say(ann.conn, stanza);
    assert_eq!(
        net.take(bob.conn)[0]
            .find("enc")
            .unwrap()
            .get("count")
            .unwrap(),
        "1"
    );
    assert!(net.take_phone(bob.account).is_empty());
    assert!(net.take_phone(ann.account).is_empty());
}

#[test]
fn a_sender_who_missed_a_device_learns_the_servers_hash() {
    let (mut net, ann, bob) = pair();
    let to = bob.pn().bare();
    let all = [to.clone(), bob.pn(), ann.pn().bare()];
    let complete = message("M1", &to, &all).attr("phash", "2:whatever");
    net.say(ann.conn, complete);
    assert!(ack(&mut net, &ann).value("phash").is_none());
    net.say(
        ann.conn,
        message("M2", &to, &all[..1]).attr("phash", "2:whatever"),
    );
    assert!(ack(&mut net, &ann).get("phash").unwrap().starts_with("2:"));
}

#[test]
fn malformed_and_misaddressed_messages_are_refused() {
    let (mut net, ann, bob) = pair();
    let error = |net: &mut Net, stanza: Node| {
        net.say(ann.conn, stanza);
        ack(net, &ann)
            .get("error")
            .map(std::borrow::Cow::into_owned)
    };
    let nobody = Jid::pn("62899", 0);
    assert_eq!(
        error(
            &mut net,
            message("M1", &nobody, std::slice::from_ref(&nobody))
        )
        .unwrap(),
        "404"
    );
    let empty = Node::new("message")
        .attr("to", bob.pn().bare())
        .attr("id", "M2");
    assert_eq!(error(&mut net, empty).unwrap(), "479");
    let group = Jid::group("12-34");
    assert_eq!(
        error(&mut net, message("M3", &group, &[bob.pn()])).unwrap(),
        "404"
    );
    assert_eq!(net.world.counters.messages_refused, 3);
    assert!(net.take(bob.conn).is_empty());
}

#[test]
fn nobody_is_reached_by_a_ciphertext_outside_the_chat() {
    let mut net = Net::new();
    let (ann, bob, eve) = (
        net.account("62811"),
        net.account("62822"),
        net.account("62833"),
    );
    let (ann, bob, eve) = (net.online(ann), net.online(bob), net.online(eve));
    net.say(
        ann.conn,
        message("M1", &bob.pn().bare(), &[bob.pn(), eve.pn()]),
    );
    assert_eq!(net.take(bob.conn).len(), 1);
    assert!(net.take(eve.conn).is_empty());
    assert_eq!(net.world.counters.protocol_errors, 1);
}

#[test]
fn a_restricted_account_may_only_answer_or_show_a_token() {
    let (mut net, ann, bob) = pair();
    let patch = AccountPatch {
        restricted: Some(true),
        ..AccountPatch::default()
    };
    net.run(|world, now, out| world.patch_account(now, ann.account, patch, out))
        .unwrap();
    let to = bob.pn().bare();
    net.say(ann.conn, message("M1", &to, &[bob.pn()]));
    assert_eq!(ack(&mut net, &ann).get("error").unwrap(), "463");

    // Bob gives Ann a token; Ann shows it.
    let token = Node::new("token")
        .attr("jid", ann.pn().bare())
        .attr("t", "5")
        .attr("type", "trusted_contact");
    let given = net.ask(
        bob.conn,
        iq("set", "privacy", Node::new("tokens").child(token)),
    );
    assert_eq!(given.get("type").unwrap(), "result");
    let notice = net.take(ann.conn).remove(0);
    assert_eq!(notice.get("type").unwrap(), "privacy_token");
    let bytes = notice.path(&["tokens", "token"]).unwrap().data().unwrap();
    let with_token = message("M2", &to, &[bob.pn()]).child(Node::new("tctoken").bytes(bytes));
    net.say(ann.conn, with_token);
    assert!(ack(&mut net, &ann).value("error").is_none());

    // Once Bob has written, no token is needed.
    net.say(bob.conn, message("M3", &ann.pn().bare(), &[ann.pn()]));
    net.say(ann.conn, message("M4", &to, &[bob.pn()]));
    assert!(ack(&mut net, &ann).value("error").is_none());
}

#[test]
fn a_cap_on_new_chats_spares_those_who_answered() {
    let mut net = Net::new();
    let accounts: Vec<_> = (0..3).map(|n| net.account(&format!("62811{n}"))).collect();
    let [ann, bob, cid] = accounts.map_to_online(&mut net);
    let patch = AccountPatch {
        new_chats_max: Some(1),
        ..AccountPatch::default()
    };
    net.run(|world, now, out| world.patch_account(now, ann.account, patch, out))
        .unwrap();
    let write = |net: &mut Net, id: &str, to: &Companion| {
        net.say(ann.conn, message(id, &to.pn().bare(), &[to.pn()]));
        ack(net, &ann)
            .get("error")
            .map(std::borrow::Cow::into_owned)
    };
    assert_eq!(write(&mut net, "M1", &bob), None);
    assert_eq!(write(&mut net, "M2", &bob), None);
    assert_eq!(write(&mut net, "M3", &cid).unwrap(), "475");
    net.say(bob.conn, message("M4", &ann.pn().bare(), &[ann.pn()]));
    assert_eq!(write(&mut net, "M5", &cid), None);
}

trait MapToOnline {
    fn map_to_online(self, net: &mut Net) -> [Companion; 3];
}

impl MapToOnline for Vec<AccountId> {
    fn map_to_online(self, net: &mut Net) -> [Companion; 3] {
        let companions: Vec<_> = self
            .into_iter()
            .map(|account| net.online(account))
            .collect();
        companions.try_into().ok().unwrap()
    }
}
