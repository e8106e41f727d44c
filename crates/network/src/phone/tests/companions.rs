//! A phone and companions that are played with the Signal library alone.

use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type as ProtocolType;

use super::messages::{ANNA, BUDI, send, two};
use super::{Companion, Street};
use crate::jid::Jid;
use crate::node::Node;
use crate::phone::PhoneOptions;
use crate::world::AccountId;

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
