//! Messages between phones.

use super::Street;
use super::street::NOW;
use crate::jid::Jid;
use crate::node::{Content, Node};
use crate::phone::{
    Answer, Behaviour, Outgoing, PhoneError, PhoneEvent, PhoneOptions, PhoneReceipt, ScriptRule,
    Target,
};
use crate::world::AccountId;

pub(super) const ANNA: &str = "6281100001";
pub(super) const BUDI: &str = "6281100002";

pub(super) fn two() -> (Street, AccountId, AccountId) {
    let mut street = Street::new();
    let (anna, budi) = (street.add(ANNA), street.add(BUDI));
    (street, anna, budi)
}

pub(super) fn send(street: &mut Street, from: AccountId, to: &str, text: &str) -> String {
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

#[test]
fn a_phone_that_confirms_nothing_still_takes_messages_off_the_queue() {
    let (mut street, anna, budi) = two();
    let behaviour = Behaviour {
        deliver: false,
        ..Behaviour::default()
    };
    street.phones[budi.0 as usize].set_behaviour(behaviour);
    let id = send(&mut street, anna, BUDI, "unconfirmed");
    assert!(receipts(&street).is_empty());
    let ack = street
        .sent
        .iter()
        .find(|(from, node)| *from == budi && node.is("ack"))
        .unwrap();
    assert_eq!(ack.1.get("class").as_deref(), Some("message"));
    assert_eq!(ack.1.get("id").as_deref(), Some(id.as_str()));
    assert_eq!(street.texts(budi), [("unconfirmed".to_owned(), 1)]);
}

#[test]
fn a_script_takes_its_first_matching_rule() {
    let (mut street, anna, budi) = two();
    let rule = |contains: &str, reply: &str| ScriptRule {
        contains: contains.to_owned(),
        reply: reply.to_owned(),
        delay_ms: 0,
    };
    let answer = Answer::Script {
        rules: vec![rule("hours", "9 to 5"), rule("hour", "no")],
    };
    let behaviour = Behaviour {
        answer,
        ..Behaviour::default()
    };
    street.phones[budi.0 as usize].set_behaviour(behaviour);
    for (said, heard) in [("Opening HOURS?", 2), ("bye", 3)] {
        send(&mut street, anna, BUDI, said);
        street.with(budi, |phone, now, port| phone.tick(now, port));
        assert_eq!(street.texts(anna).len(), heard, "{said}");
    }
    assert_eq!(street.texts(anna)[1].0, "9 to 5");
}
