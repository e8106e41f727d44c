//! Linking by QR and by code, what each side learns, and every way in which it comes to nothing.

use bytes::Bytes;

use super::super::WorldError;
use super::*;

#[test]
fn a_scanned_companion_proves_its_identity_and_is_told_to_restart() {
    let mut net = Net::new();
    let account = net.account("62811");
    let companion = net.link(account);
    assert_eq!(companion.device, 1);
    let device = net.world.account(account).unwrap().device(1).unwrap();
    assert_eq!(device.key_index, 1);
    assert!(matches!(
        net.events[..],
        [.., NetworkEvent::Linked { device: 1, .. }]
    ));
    // The name came with the registration, the only place where this client tells it.
    assert_eq!(net.world.account(account).unwrap().push_name, "Ann");
    assert_eq!(net.closed.len(), 1);
}

#[test]
fn pair_success_stands_first_and_names_both_addresses() {
    let mut net = Net::new();
    let account = net.account_of(AccountSpec {
        phone: "+62811".to_owned(),
        lid: Some("4711".to_owned()),
        push_name: Some("Bea".to_owned()),
        migrated_to_lid: true,
        ..AccountSpec::default()
    });
    let (companion, reference) = net.register();
    let accepted = net.accept(account, &companion);
    net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
        .unwrap();
    let stanza = net.take(companion.conn).remove(0);
    let success = stanza.first().unwrap();
    assert_eq!(success.tag, "pair-success");
    let device = success.find("device").unwrap();
    assert_eq!(device.get("jid").unwrap(), "62811:1@s.whatsapp.net");
    assert_eq!(device.get("lid").unwrap(), "4711:1@lid");
    assert_eq!(success.find("biz").unwrap().get("name").unwrap(), "Bea");
    assert!(success.find("client-props").is_some());
}

#[test]
fn a_wrong_device_signature_links_nothing() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, reference) = net.register();
    let accepted = net.accept(account, &companion);
    net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
        .unwrap();
    let success = net.take(companion.conn).remove(0);
    let (mut impostor, _) = net.register();
    impostor.conn = companion.conn;
    let answer = net.sign(&impostor, &success);
    net.say(companion.conn, answer);
    assert!(net.world.account(account).unwrap().device(1).is_none());
    assert!(matches!(
        net.events.last(),
        Some(NetworkEvent::LinkRefused { .. })
    ));
    assert!(net.closed.contains_key(&companion.conn));
    assert_eq!(net.world.counters.protocol_errors, 1);
}

#[test]
fn a_companion_that_refuses_is_not_linked() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, reference) = net.register();
    let accepted = net.accept(account, &companion);
    net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
        .unwrap();
    let success = net.take(companion.conn).remove(0);
    let refusal = Node::new("iq")
        .attr("type", "error")
        .attr("id", id(&success))
        .child(Node::new("error").attr("code", "401"));
    net.say(companion.conn, refusal);
    let Some(NetworkEvent::LinkRefused { reason, .. }) = net.events.last() else {
        panic!()
    };
    assert!(reason.contains("401"), "{reason}");
    assert!(net.world.account(account).unwrap().device(1).is_none());
}

#[test]
fn references_expire_one_by_one_and_then_the_connection_ends() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, first) = net.register();
    net.advance(59_999);
    assert!(net.world.find_qr(&first).is_some());
    assert_eq!(net.world.next_deadline(), Some(net.now + 1));
    net.advance(1);
    assert!(net.world.find_qr(&first).is_none());
    let accepted = net.accept(account, &companion);
    let refused =
        net.run(|world, now, out| world.complete_link(now, &first, account, accepted, out));
    assert_eq!(refused, Err(WorldError::UnknownReference));
    net.advance(99_999);
    assert!(!net.closed.contains_key(&companion.conn));
    net.advance(1);
    assert_eq!(tags(&net.take(companion.conn)), ["xmlstreamend"]);
    assert!(net.closed.contains_key(&companion.conn));
}

#[test]
fn a_used_reference_links_nobody_else() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, reference) = net.register();
    let accepted = net.accept(account, &companion);
    let again = accepted.clone();
    net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
        .unwrap();
    let refused =
        net.run(|world, now, out| world.complete_link(now, &reference, account, again, out));
    assert_eq!(refused, Err(WorldError::UnknownReference));
}

#[test]
fn an_account_has_four_companions_at_most() {
    let mut net = Net::new();
    let account = net.account("62811");
    for _ in 0..4 {
        net.link(account);
    }
    let (companion, reference) = net.register();
    let accepted = net.accept(account, &companion);
    let refused =
        net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out));
    assert_eq!(
        refused,
        Err(WorldError::TooManyCompanions { account, max: 4 })
    );
}

#[test]
fn siblings_and_nobody_else_hear_of_a_new_companion() {
    let mut net = Net::new();
    let account = net.account("62811");
    let elder = net.online(account);
    let younger = net.link(account);
    let notice = net.take(elder.conn).remove(0);
    assert_eq!(notice.get("type").unwrap(), "devices");
    let device = notice.path(&["add", "device"]).unwrap();
    assert_eq!(device.get("jid").unwrap(), younger.pn().to_string());
    assert_eq!(device.get("key-index").unwrap(), "2");
    assert!(notice.path(&["add", "key-index-list"]).is_some());
}

fn hello(phone: &str) -> Node {
    let request = Node::new("link_code_companion_reg")
        .attr("jid", Jid::pn(phone.to_owned(), 0))
        .attr("stage", "companion_hello")
        .attr("should_show_push_notification", "true")
        .child(Node::new("link_code_pairing_wrapped_companion_ephemeral_pub").bytes(vec![1; 80]))
        .child(Node::new("companion_server_auth_key_pub").bytes(vec![2; 32]))
        .child(Node::new("companion_platform_display").bytes(&b"Chrome (Linux)"[..]));
    iq("set", "md", request)
}

fn finish(reference: &str) -> Node {
    let request = Node::new("link_code_companion_reg")
        .attr("jid", Jid::pn("62811", 0))
        .attr("stage", "companion_finish")
        .child(Node::new("link_code_pairing_wrapped_key_bundle").bytes(vec![3; 156]))
        .child(Node::new("companion_identity_public").bytes(vec![4; 32]))
        .child(Node::new("link_code_pairing_ref").bytes(reference.as_bytes().to_vec()));
    iq("set", "md", request)
}

fn primary_hello(net: &mut Net, reference: &str) -> Result<(), WorldError> {
    let (ephemeral, identity) = (Bytes::from(vec![5; 80]), Bytes::from(vec![6; 32]));
    net.run(|world, now, out| {
        world.link_code_primary_hello(now, reference, ephemeral, identity, out)
    })
}

#[test]
fn a_code_goes_to_the_phone_and_its_answer_to_the_companion() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, _) = net.register();
    let answer = net.ask(companion.conn, hello("62811"));
    let reference = answer
        .path(&["link_code_companion_reg", "link_code_pairing_ref"])
        .unwrap()
        .text()
        .unwrap();
    let shown = net.take_phone(account).remove(0);
    let step = shown.first().unwrap();
    assert_eq!(step.get("stage").unwrap(), "companion_hello");
    assert_eq!(
        step.find("link_code_pairing_ref").unwrap().text().unwrap(),
        reference
    );
    let code = net.world.link_code(account).unwrap();
    assert_eq!(code.wrapped_companion_ephemeral.len(), 80);
    assert_eq!(code.platform_display, "Chrome (Linux)");

    primary_hello(&mut net, &reference).unwrap();
    let notice = net.take(companion.conn).remove(0);
    assert_eq!(notice.get("type").unwrap(), "link_code_companion_reg");
    assert_eq!(
        notice.first().unwrap().get("stage").unwrap(),
        "primary_hello"
    );

    let empty = net.ask(companion.conn, finish(&reference));
    assert_eq!(empty.get("type").unwrap(), "result");
    let finished = net.take_phone(account).remove(0);
    assert_eq!(
        finished.first().unwrap().get("stage").unwrap(),
        "companion_finish"
    );

    let accepted = net.accept(account, &companion);
    net.run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
        .unwrap();
    let success = net.take(companion.conn).remove(0);
    let signed = net.sign(&companion, &success);
    net.say(companion.conn, signed);
    assert_eq!(super::code(&net.take(companion.conn).remove(0)), "515");
    assert!(net.world.account(account).unwrap().device(1).is_some());
}

#[test]
fn a_code_is_tried_three_times_at_most_and_within_three_minutes() {
    let mut net = Net::new();
    let account = net.account("62811");
    let (companion, _) = net.register();
    net.say(companion.conn, hello("62811"));
    let reference = net.world.link_code(account).unwrap().reference;
    for _ in 0..3 {
        primary_hello(&mut net, &reference).unwrap();
    }
    assert_eq!(
        primary_hello(&mut net, &reference),
        Err(WorldError::TooManyAttempts)
    );
    net.say(companion.conn, hello("62811"));
    let newer = net.world.link_code(account).unwrap().reference;
    assert_ne!(newer, reference);
    net.advance(180_000);
    assert_eq!(
        primary_hello(&mut net, &newer),
        Err(WorldError::UnknownReference)
    );
    assert!(
        net.closed.contains_key(&companion.conn),
        "nothing is left to wait for"
    );
}

#[test]
fn a_code_for_a_number_that_nobody_has_is_refused() {
    let mut net = Net::new();
    let (companion, _) = net.register();
    let answer = net.ask(companion.conn, hello("62899"));
    assert_eq!(answer.find("error").unwrap().get("code").unwrap(), "404");
}

#[test]
fn a_connection_that_breaks_takes_its_references_along() {
    let mut net = Net::new();
    let (companion, reference) = net.register();
    net.drop_connection(&companion);
    assert!(net.world.find_qr(&reference).is_none());
    assert_eq!(net.world.connection_count(), 0);
}

#[test]
fn the_same_seed_offers_the_same_references() {
    let (_, one) = Net::new().register();
    let (_, two) = Net::new().register();
    assert_eq!(one, two);
    assert!(one.starts_with("2@") && !one.contains(','));
}

#[test]
fn the_same_seed_and_the_same_calls_give_the_same_stanzas() {
    let run = || {
        let mut net = Net::new();
        let (ann, bob) = (net.account("62811"), net.account("62822"));
        let (ann, bob) = (net.link(ann), net.online(bob));
        net.say(bob.conn, message("M1", &ann.pn().bare(), &[ann.pn()]));
        let mut ann = ann;
        net.login(&mut ann);
        (net.take(ann.conn), net.take(bob.conn), ann.lid(&net))
    };
    assert_eq!(run(), run());
}
