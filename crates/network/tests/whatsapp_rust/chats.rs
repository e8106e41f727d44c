//! Chats of whatsapp-rust under less usual conditions: by LID, with a device that joins later, with a
//! damaged copy at the other phone, with presence and typing, with a number that nobody has.

use wagate_network::faults::{Action, FaultRule, Match};
use wagate_network::phone::ChatState;
use wagate_network::world::AccountPatch;
use whatsapp_rust::prelude::*;
use whatsapp_rust::types::presence::ReceiptType;

use crate::companion::{A, B, Store, judge, linked, phone, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_asks_again_for_a_damaged_message() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    let rule = Match::to_device("message").account(B).device(0);
    let rule = FaultRule::new(rule, Action::Corrupt).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = client.send(B, "to the phone").await;
    peer.expect_text("to the phone").await.unwrap();
    client.receipt(&id, ReceiptType::Delivered).await;
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_moved_to_lids_write_to_each_other() {
    let network = start().await;
    for number in [A, B] {
        let patch = AccountPatch {
            migrated_to_lid: Some(true),
            ..AccountPatch::default()
        };
        phone(&network, number).patch(patch).unwrap();
    }
    let mut a = linked(&network, A, &Store::new()).await;
    let mut b = linked(&network, B, &Store::new()).await;
    for round in 0..3 {
        let id = a.send(B, &format!("a to b, {round}")).await;
        assert_eq!(b.text(&format!("a to b, {round}")).await.0, id);
        a.receipt(&id, ReceiptType::Delivered).await;
        let id = b.send(A, &format!("b to a, {round}")).await;
        assert_eq!(a.text(&format!("b to a, {round}")).await.0, id);
        b.receipt(&id, ReceiptType::Delivered).await;
        let id = phone(&network, B)
            .send(A, &format!("phone to a, {round}"))
            .await
            .unwrap();
        assert_eq!(a.text(&format!("phone to a, {round}")).await.0, id);
    }
    a.stop().await;
    b.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_companion_that_joins_later_gets_what_follows() {
    let network = start().await;
    let mut first = linked(&network, A, &Store::new()).await;
    let mut peer = linked(&network, B, &Store::new()).await;
    peer.send(A, "to one").await;
    first.text("to one").await;
    let mut second = linked(&network, A, &Store::new()).await;
    // The peer learns of the new device by itself: the ack's `phash` differs from the one that it
    // computed, so it asks for the devices again before a later message.
    let mut round = 0;
    loop {
        let text = format!("to both, {round}");
        let id = peer.send(A, &text).await;
        assert_eq!(peer.ack(&id).await, None);
        first.text(&text).await;
        if second.soon(&text).await {
            break;
        }
        round += 1;
        assert!(round < 10, "the peer never learns of the new device");
    }
    let id = second.send(B, "from the second").await;
    assert_eq!(peer.text("from the second").await.0, id);
    first.text("from the second").await;

    phone(&network, A)
        .unlink(second.client.pn().unwrap().device)
        .await
        .unwrap();
    second.logged_out().await;
    peer.send(A, "to one again").await;
    first.text("to one again").await;
    first.stop().await;
    peer.stop().await;
    second.ended().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_and_typing_are_seen() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    let jid: Jid = format!("{B}@s.whatsapp.net").parse().unwrap();
    client.client.presence().set_available().await.unwrap();
    client
        .client
        .presence()
        .subscribe(jid.clone())
        .await
        .unwrap();
    for available in [true, false] {
        peer.presence(available).unwrap();
        client
            .expect("the presence", |event| match event {
                Event::Presence(presence) if presence.unavailable != available => Some(()),
                _ => None,
            })
            .await;
    }
    peer.chat_state(A, ChatState::Composing).unwrap();
    client
        .expect("typing", |event| {
            matches!(event, Event::ChatPresence(_)).then_some(())
        })
        .await;

    let mut events = network.subscribe();
    client
        .client
        .chatstate()
        .send_composing(&jid)
        .await
        .unwrap();
    peer.expect_chat_state(&mut events, "composing")
        .await
        .unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unregistered_number_is_not_found() {
    let network = start().await;
    let client = linked(&network, A, &Store::new()).await;
    let jids: Vec<Jid> = [B, "6281199999999"]
        .map(|number| format!("{number}@s.whatsapp.net").parse().unwrap())
        .to_vec();
    let found = client
        .client
        .contacts()
        .is_on_whatsapp(&jids)
        .await
        .unwrap();
    let registered: Vec<_> = found
        .iter()
        .filter(|contact| contact.is_registered)
        .map(|contact| contact.jid.user.to_string())
        .collect();
    assert_eq!(registered, [B]);
    client.stop().await;
    judge(network).await;
}
