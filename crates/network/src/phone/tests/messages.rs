//! Messages between phones, and between a phone and companions played by the Signal library.

use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type as ProtocolType;

use super::street::NOW;
use super::{Companion, Street};
use crate::jid::Jid;
use crate::node::{Content, Node};
use crate::phone::{
    Answer, Behaviour, Outgoing, PhoneError, PhoneEvent, PhoneOptions, PhoneReceipt, Target,
};
use crate::world::AccountId;

const ANNA: &str = "6281100001";
const BUDI: &str = "6281100002";

fn two() -> (Street, AccountId, AccountId) {
    let mut street = Street::new();
    let (anna, budi) = (street.add(ANNA), street.add(BUDI));
    (street, anna, budi)
}

fn send(street: &mut Street, from: AccountId, to: &str, text: &str) -> String {
    let to = Jid::pn(to.to_owned(), 0);
    street
        .with(from, |phone, now, port| {
            phone.send_text(now, &to, text, port)
        })
        .unwrap()
}

fn receipts(street: &Street) -> Vec<PhoneReceipt> {
    street
        .events
        .iter()
        .filter_map(|event| match event {
            PhoneEvent::Receipt(receipt) => Some(receipt.clone()),
            _ => None,
        })
        .collect()
}

fn text(message: &str) -> wa::Message {
    wa::Message {
        conversation: Some(message.to_owned()),
        ..Default::default()
    }
}

/// A linked companion with published keys.
fn link(street: &mut Street, account: AccountId, seed: u64) -> (Companion, u16) {
    let mut companion = Companion::new(seed);
    let qr = companion.qr("ref");
    let device = street
        .with(account, |phone, now, port| phone.scan(now, &qr, port))
        .unwrap();
    let keys = companion.keys();
    street.publish(account, device, &keys);
    (companion, device)
}

#[test]
fn two_phones_talk_and_each_message_is_shown_once() {
    let (mut street, anna, budi) = two();
    let id = send(&mut street, anna, BUDI, "hello");
    assert_eq!(street.texts(budi), [("hello".to_owned(), 1)]);
    let receipt = &receipts(&street)[0];
    assert_eq!(
        (receipt.receipt.as_str(), &receipt.ids),
        ("delivered", &vec![id.clone()])
    );
    let own = street.phones[0].screen().by_id(&id).next().unwrap();
    assert_eq!(own.status.as_deref(), Some("delivered"));

    for number in 0..20 {
        send(&mut street, budi, ANNA, &format!("back {number}"));
        send(&mut street, anna, BUDI, &format!("forth {number}"));
    }
    assert_eq!(street.texts(anna).len(), 41);
    assert!(street.texts(budi).iter().all(|(_, copies)| *copies <= 1));
    assert_eq!(street.texts(budi)[40].0, "forth 19");
}

#[test]
fn a_copy_that_comes_twice_is_counted_but_not_shown_again() {
    let (mut street, anna, budi) = two();
    send(&mut street, anna, BUDI, "first");
    let (_, node) = street
        .sent
        .iter()
        .find(|(_, node)| node.is("message"))
        .unwrap()
        .clone();
    street.send_from(anna, 0, &node);
    assert_eq!(street.texts(budi), [("first".to_owned(), 2)]);
    let undecryptable = street
        .events
        .iter()
        .any(|event| matches!(event, PhoneEvent::Undecryptable { .. }));
    assert!(!undecryptable);
}

#[test]
fn a_phone_greets_its_companion_with_key_and_history() {
    let mut street = Street::new();
    let anna = street.add(ANNA);
    let (mut companion, device) = link(&mut street, anna, 1);
    street.with(anna, |phone, now, port| phone.greet(now, device, port));
    let kinds: Vec<_> = std::mem::take(&mut street.to_companions)
        .into_iter()
        .map(|(_, to, node)| {
            assert_eq!(
                (to, node.get("category").as_deref()),
                (device, Some("peer"))
            );
            let message = companion.open("phone", &node).unwrap();
            message.protocol_message.as_option().unwrap().clone()
        })
        .collect();
    assert_eq!(
        kinds[0].r#type,
        Some(ProtocolType::APP_STATE_SYNC_KEY_SHARE)
    );
    assert_eq!(
        kinds[1].r#type,
        Some(ProtocolType::HISTORY_SYNC_NOTIFICATION)
    );
    let share = kinds[0].app_state_sync_key_share.as_option().unwrap();
    let key = share.keys[0]
        .key_data
        .as_option()
        .unwrap()
        .key_data
        .clone()
        .unwrap();
    assert_eq!(key, street.phones[0].app_state_key().1);
}

#[test]
fn a_companion_that_misses_the_app_state_key_gets_it() {
    let mut street = Street::new();
    let anna = street.add(ANNA);
    let (mut companion, device) = link(&mut street, anna, 1);
    street.with(anna, |phone, now, port| phone.greet(now, device, port));
    for (_, _, node) in std::mem::take(&mut street.to_companions) {
        companion.open("phone", &node).unwrap();
    }
    let wanted = [vec![0, 0, 0, 0, 0, 1], vec![9; 6]];
    let request = wa::message::AppStateSyncKeyRequest {
        key_ids: wanted
            .iter()
            .map(|id| wa::message::AppStateSyncKeyId {
                key_id: Some(id.clone()),
            })
            .collect(),
    };
    let request = wa::Message {
        protocol_message: waproto::buffa::MessageField::some(wa::message::ProtocolMessage {
            r#type: Some(ProtocolType::APP_STATE_SYNC_KEY_REQUEST),
            app_state_sync_key_request: waproto::buffa::MessageField::some(request),
            ..Default::default()
        }),
        ..Default::default()
    };
    let node = Node::new("message")
        .attr("to", Jid::pn(ANNA, 0))
        .attr("id", "REQ")
        .attr("type", "text")
        .attr("category", "peer")
        .child(companion.seal("phone", &request));
    street.send_from(anna, device, &node);
    let (_, _, answer) = street.to_companions.pop().unwrap();
    let answer = companion.open("phone", &answer).unwrap();
    let share = answer.protocol_message.as_option().unwrap();
    let keys = &share.app_state_sync_key_share.as_option().unwrap().keys;
    assert!(keys[0].key_data.is_set() && !keys[1].key_data.is_set());
}

#[test]
fn what_a_companion_sends_appears_on_both_phones() {
    let (mut street, anna, budi) = two();
    let (mut companion, device) = link(&mut street, anna, 1);
    let (own, peer) = (street.phones[0].keys(), street.phones[1].keys());
    // The account's own phone has given up its initial prekeys; a session needs none.
    companion.establish("own", &own);
    companion.establish("peer", &peer);
    let copy = crate::phone::content::device_sent(&format!("{BUDI}@s.whatsapp.net"), text("hi"));
    let to = |jid: Jid, enc: Node| Node::new("to").attr("jid", jid).child(enc);
    let node = Node::new("message")
        .attr("to", Jid::pn(BUDI, 0))
        .attr("id", "3EB0AA")
        .attr("type", "text")
        .child(
            Node::new("participants")
                .child(to(Jid::pn(BUDI, 0), companion.seal("peer", &text("hi"))))
                .child(to(Jid::pn(ANNA, 0), companion.seal("own", &copy))),
        );
    street.send_from(anna, device, &node);
    let shown = street.phones[budi.0 as usize]
        .screen()
        .by_id("3EB0AA")
        .next()
        .unwrap();
    assert_eq!(
        (shown.text.as_deref(), shown.from_device, shown.from_me),
        (Some("hi"), device, false)
    );
    let own = street.phones[anna.0 as usize]
        .screen()
        .by_id("3EB0AA")
        .next()
        .unwrap();
    assert!(own.from_me);
    assert_eq!(own.chat, format!("{BUDI}@s.whatsapp.net"));
    // The peer's receipt goes to the companion that wrote.
    let receipt = street
        .to_companions
        .iter()
        .find(|(_, _, node)| node.is("receipt"))
        .unwrap();
    assert_eq!((receipt.0, receipt.1), (anna, device));
}

#[test]
fn an_owners_message_reaches_peer_and_companions_on_both_sides() {
    let (mut street, anna, budi) = two();
    let (mut annas, first) = link(&mut street, anna, 1);
    let (mut budis, second) = link(&mut street, budi, 2);
    send(&mut street, anna, BUDI, "to all");
    let copies = std::mem::take(&mut street.to_companions);
    let to = |account, device| {
        &copies
            .iter()
            .find(|(a, d, n)| (*a, *d) == (account, device) && n.is("message"))
            .unwrap()
            .2
    };
    let own = annas.open("anna", to(anna, first)).unwrap();
    let sent = own.device_sent_message.as_option().unwrap();
    assert_eq!(
        sent.destination_jid.as_deref(),
        Some(format!("{BUDI}@s.whatsapp.net").as_str())
    );
    let peer = budis.open("anna", to(budi, second)).unwrap();
    assert_eq!(peer.conversation.as_deref(), Some("to all"));
    assert_eq!(street.texts(budi), [("to all".to_owned(), 1)]);
}

#[test]
fn a_companion_that_lost_its_session_gets_the_message_again() {
    let (mut street, anna, budi) = two();
    let (mut companion, device) = link(&mut street, budi, 1);
    send(&mut street, anna, BUDI, "one");
    let (_, _, node) = street.to_companions.pop().unwrap();
    companion.open("anna", &node).unwrap();
    companion.forget();
    let id = send(&mut street, anna, BUDI, "two");
    street.to_companions.clear();
    let retry = Node::new("receipt")
        .attr("to", Jid::pn(ANNA, 0))
        .attr("id", id.clone())
        .attr("type", "retry")
        .child(
            Node::new("retry")
                .attr("v", "1")
                .attr("id", id.clone())
                .attr("count", "1"),
        )
        .child(Node::new("registration").bytes(77_u32.to_be_bytes().to_vec()));
    street.send_from(budi, device, &retry);
    let (_, to, node) = street.to_companions.pop().unwrap();
    assert_eq!((to, node.get("id").as_deref()), (device, Some(id.as_str())));
    assert_eq!(node.find("enc").unwrap().get("count").as_deref(), Some("1"));
    let again = companion.open("anna", &node).unwrap();
    assert_eq!(again.conversation.as_deref(), Some("two"));
}

#[test]
fn a_phone_asks_again_for_what_it_cannot_open() {
    let (mut street, anna, budi) = two();
    send(&mut street, anna, BUDI, "warm up");
    // An answer ends the phase in which messages carry prekeys: the last bytes are now the MAC.
    send(&mut street, budi, ANNA, "warm");
    // The copy for Budi's phone is broken on the way.
    let to = Jid::pn(BUDI, 0);
    let mut port_nodes = Vec::new();
    let id = {
        let mut port = super::street::Port {
            directory: &mut street.directory,
            out: Vec::new(),
            events: &mut street.events,
        };
        let id = street.phones[0]
            .send_text(NOW, &to, "broken", &mut port)
            .unwrap();
        port_nodes.append(&mut port.out);
        id
    };
    let mut node = port_nodes.remove(0);
    let Content::Nodes(children) = &mut node.content else {
        panic!("no children")
    };
    let Content::Nodes(targets) = &mut children[0].content else {
        panic!("no targets")
    };
    let Content::Nodes(encs) = &mut targets[0].content else {
        panic!("no enc")
    };
    let mut bytes = encs[0].data().unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    encs[0].content = Content::Bytes(bytes.into());
    street.send_from(anna, 0, &node);
    // Budi asked, Anna resent under a fresh session, Budi shows it once.
    assert_eq!(street.texts(budi)[2], ("broken".to_owned(), 1));
    let resent = street
        .events
        .iter()
        .any(|event| matches!(event, PhoneEvent::Resent { id: resent, .. } if *resent == id));
    assert!(resent, "{:?}", street.events);
}

#[test]
fn an_echo_answers_after_its_delay_and_never_another_echo() {
    let mut street = Street::new();
    let anna = street.add(ANNA);
    let echo = Behaviour {
        read_after_ms: Some(500),
        answer: Answer::Echo {
            delay_ms: 1_000,
            typing: true,
        },
        ..Behaviour::default()
    };
    let options = PhoneOptions {
        behaviour: echo.clone(),
        ..PhoneOptions::new(7, BUDI)
    };
    let budi = street.add_with(options);
    street.phones[0].set_behaviour(echo);
    let id = send(&mut street, anna, BUDI, "ping");
    let typing = street
        .events
        .iter()
        .any(|event| matches!(event, PhoneEvent::ChatState { state, .. } if state == "composing"));
    assert!(typing);
    assert_eq!(street.phones[1].next_deadline(), Some(NOW + 500));
    street.now += 999;
    street.with(budi, |phone, now, port| phone.tick(now, port));
    assert_eq!(street.texts(anna).len(), 1);
    let own = street.phones[0].screen().by_id(&id).next().unwrap();
    assert_eq!(own.status.as_deref(), Some("read"));
    street.now += 1;
    street.with(budi, |phone, now, port| phone.tick(now, port));
    assert_eq!(street.texts(anna)[1].0, "ping");
    // Anna echoes as well, but not an automatic answer.
    street.now += 10_000;
    street.with(anna, |phone, now, port| phone.tick(now, port));
    assert_eq!(street.texts(anna).len(), 2);
}

#[test]
fn without_decryption_a_phone_still_confirms() {
    let mut street = Street::new();
    let anna = street.add(ANNA);
    let budi = street.add_with(PhoneOptions {
        decrypt: false,
        ..PhoneOptions::new(7, BUDI)
    });
    send(&mut street, anna, BUDI, "secret");
    let shown = street.phones[1].screen().messages(None, 0).next().unwrap();
    assert_eq!(
        (shown.kind.as_str(), shown.text.as_deref()),
        ("encrypted", None)
    );
    assert_eq!(receipts(&street)[0].receipt, "delivered");
    // It can be turned on for one phone.
    let behaviour = Behaviour {
        decrypt: Some(true),
        ..Behaviour::default()
    };
    street.phones[budi.0 as usize].set_behaviour(behaviour);
    send(&mut street, anna, BUDI, "open");
    assert_eq!(street.texts(budi)[1].0, "open");
}

#[test]
fn edits_deletions_and_reactions_find_their_message() {
    let (mut street, anna, budi) = two();
    let id = send(&mut street, anna, BUDI, "helo");
    let to = Jid::pn(BUDI, 0);
    let edit = Outgoing::Edit {
        id: id.clone(),
        text: "hello".to_owned(),
    };
    street
        .with(anna, |phone, now, port| phone.send(now, &to, &edit, port))
        .unwrap();
    let shown = street.phones[1].screen().by_id(&id).next().unwrap();
    assert_eq!((shown.text.as_deref(), shown.edited), (Some("hello"), true));

    let target = Target {
        id: id.clone(),
        from_me: false,
        author: None,
    };
    let reaction = Outgoing::Reaction {
        emoji: "👍".to_owned(),
        target,
    };
    let back = Jid::pn(ANNA, 0);
    street
        .with(budi, |phone, now, port| {
            phone.send(now, &back, &reaction, port)
        })
        .unwrap();
    let shown = street.phones[0].screen().messages(None, 0).last().unwrap();
    assert_eq!(
        (shown.kind.as_str(), shown.quoted.as_deref()),
        ("reaction", Some(id.as_str()))
    );

    let delete = Outgoing::Delete { id: id.clone() };
    street
        .with(anna, |phone, now, port| phone.send(now, &to, &delete, port))
        .unwrap();
    assert!(street.phones[1].screen().by_id(&id).next().unwrap().deleted);
}

#[test]
fn group_messages_bring_a_sender_key_once_and_new_members_get_it_too() {
    let (mut street, anna, budi) = two();
    let citra = street.add("6281100003");
    let group = Jid::group("120363001");
    let members = |numbers: &[&str]| -> Vec<Jid> {
        numbers
            .iter()
            .map(|number| Jid::pn((*number).to_owned(), 0))
            .collect()
    };
    street
        .directory
        .groups
        .insert(group.clone(), members(&[ANNA, BUDI]));
    let say = |street: &mut Street, text: &str| {
        street
            .with(anna, |phone, now, port| {
                phone.send_text(now, &group, text, port)
            })
            .unwrap()
    };
    say(&mut street, "one");
    say(&mut street, "two");
    assert!(
        street
            .sent
            .iter()
            .filter(|(_, node)| node.find("participants").is_some())
            .count()
            == 1
    );
    street
        .directory
        .groups
        .insert(group.clone(), members(&[ANNA, BUDI, "6281100003"]));
    say(&mut street, "three");
    let texts = |street: &Street, account| -> Vec<String> {
        street
            .texts(account)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    };
    assert_eq!(texts(&street, budi), ["one", "two", "three"]);
    assert_eq!(texts(&street, citra), ["three"]);
    let shown = street.phones[1].screen().messages(None, 0).next().unwrap();
    assert_eq!(
        (shown.chat.as_str(), shown.from.as_str()),
        ("120363001@g.us", "6281100001@s.whatsapp.net")
    );
}

#[test]
fn reading_a_chat_confirms_what_was_not_read() {
    let (mut street, anna, budi) = two();
    let ids: Vec<_> = (0..3)
        .map(|n| send(&mut street, anna, BUDI, &n.to_string()))
        .collect();
    let chat = Jid::pn(ANNA, 0);
    assert_eq!(
        street.with(budi, |phone, _, port| phone.read(&chat, &ids[..1], port)),
        1
    );
    assert_eq!(
        street.with(budi, |phone, _, port| phone.read(&chat, &[], port)),
        2
    );
    assert_eq!(
        street.with(budi, |phone, _, port| phone.read(&chat, &[], port)),
        0
    );
    let read: Vec<_> = receipts(&street)
        .into_iter()
        .filter(|r| r.receipt == "read")
        .collect();
    assert_eq!(read[1].ids, ids[1..]);
}

#[test]
fn nobody_is_written_to_who_is_not_there() {
    let (mut street, anna, _) = two();
    let nobody = Jid::pn("49999999", 0);
    let refused = street.with(anna, |phone, now, port| {
        phone.send_text(now, &nobody, "?", port)
    });
    assert_eq!(
        refused,
        Err(PhoneError::NotOnWhatsApp(
            "49999999@s.whatsapp.net".to_owned()
        ))
    );
}

#[test]
fn a_phone_uploads_more_prekeys_when_they_run_low() {
    let mut street = Street::new();
    let anna = street.add(ANNA);
    let low = Node::new("notification")
        .attr("from", Jid::SERVER)
        .attr("type", "encrypt")
        .attr("id", "1")
        .child(Node::new("count").attr("value", "2"));
    let out = street.handle(anna, &low);
    let upload = out.iter().find(|node| node.is("iq")).unwrap();
    let ids: Vec<_> = upload
        .find("list")
        .unwrap()
        .nodes()
        .iter()
        .map(|key| key.find("id").unwrap().data().unwrap().to_vec())
        .collect();
    assert_eq!((ids.len(), ids[0].clone()), (25, vec![0, 0, 6]));
}

#[test]
fn the_owners_name_is_in_the_app_state_before_the_first_companion_and_once() {
    let mut street = Street::new();
    let options = PhoneOptions {
        push_name: Some("Anna".to_owned()),
        ..PhoneOptions::new(7, ANNA)
    };
    let anna = street.add_with(options);
    link(&mut street, anna, 1);
    link(&mut street, anna, 2);
    let patches: Vec<_> = street
        .sent
        .iter()
        .filter(|(_, node)| node.get("xmlns").as_deref() == Some("w:sync:app:state"))
        .collect();
    assert_eq!(patches.len(), 1);
    let collection = patches[0].1.path(&["sync", "collection"]).unwrap();
    let patch = collection.find("patch").unwrap().data().unwrap();
    let mut patch = waproto::codec::syncd_patch_decode(&patch).unwrap();
    patch.version = waproto::buffa::MessageField::some(wa::SyncdVersion { version: Some(1) });

    // As a companion reads it: with the shared key, checking both MACs.
    let keys = wacore_appstate::expand_app_state_keys(&street.phones[0].app_state_key().1);
    let mut state = wacore_appstate::hash::HashState::default();
    let read = wacore_appstate::process_patch(
        &patch,
        &mut state,
        |_| Ok(std::sync::Arc::new(keys.clone())),
        |_| Ok(None),
        true,
        "critical_block",
    );
    let read = read.unwrap();
    assert_eq!(read.mutations[0].index, ["setting_pushName"]);
    let value = read.mutations[0].action_value.as_ref().unwrap();
    let name = value.push_name_setting.as_option().unwrap().name.as_deref();
    assert_eq!(name, Some("Anna"));
}

#[test]
fn a_migrated_account_writes_to_lids_and_the_chat_stays_one() {
    let (mut street, anna, budi) = two();
    send(&mut street, budi, ANNA, "before");
    street.migrate(anna);
    send(&mut street, anna, BUDI, "after");
    let (_, node) = street
        .sent
        .iter()
        .rfind(|(from, node)| *from == anna && node.is("message"))
        .unwrap();
    assert!(node.jid("to").unwrap().is_lid(), "{node}");
    let chat = format!("{ANNA}@s.whatsapp.net");
    let budi = &street.phones[budi.0 as usize];
    assert_eq!(budi.screen().messages(Some(&chat), 0).count(), 2);
}
