//! The trouble that a phone's handle can make for its owner's companions, and what the client makes of
//! it.

use wagate_network::faults::{Action, FaultRule, Match};
use wagate_network::phone::PhoneEvent;
use wagate_network::world::NetworkEvent;
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;
use whatsapp_rust::prelude::*;

use super::companion::{Companion, Store};
use super::{A, B, judge, linked, phone, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn companions_come_back_after_their_cable_was_pulled() {
    let network = start().await;
    let (ana, budi) = (phone(&network, A), phone(&network, B));
    let mut client = linked(&network, A, &Store::new()).await;
    ana.drop_companions();
    client.connected().await;
    ana.expect_companions_online(1).await.unwrap();
    budi.send(A, "still there?").await.unwrap();
    client.text("still there?").await;
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_companions_learn_why_until_they_are_accepted_again() {
    let network = start().await;
    let ana = phone(&network, A);
    let store = Store::new();
    let client = linked(&network, A, &store).await;
    client.stop().await;
    ana.expect_companions_online(0).await.unwrap();

    ana.refuse_connect("ban").await.unwrap();
    let mut banned = Companion::start(&network, &store).await;
    let (code, expire) = banned
        .expect("the ban", |event| match event {
            Event::TemporaryBan(ban) => Some((format!("{:?}", ban.code), ban.expire.num_seconds())),
            _ => None,
        })
        .await;
    assert_eq!(expire, 3_600, "{code}");
    banned.stop().await;

    ana.accept_connects();
    let mut again = Companion::start(&network, &store).await;
    again.connected().await;
    again.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_its_ack_has_arrived_all_the_same() {
    let network = start().await;
    let (ana, budi) = (phone(&network, A), phone(&network, B));
    let mut client = linked(&network, A, &Store::new()).await;
    ana.lose_acks(1);
    client.send(B, "unheard").await;
    budi.expect_text("unheard").await.unwrap();
    let id = client.send(B, "heard").await;
    assert_eq!(client.ack(&id).await, None);
    budi.expect_text("heard").await.unwrap();
    assert_eq!(budi.texts(), ["unheard", "heard"]);
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_companions_are_unlinked_at_once() {
    let network = start().await;
    let ana = phone(&network, A);
    let mut first = linked(&network, A, &Store::new()).await;
    let mut second = linked(&network, A, &Store::new()).await;
    assert_eq!(ana.companions(), 2);
    ana.unlink_all().await.unwrap();
    assert_eq!(ana.companions(), 0);
    // The phone signs a list without them, for the device lists of their peers.
    let list = network.with_world(|world, _, _| {
        world
            .account(ana.account())
            .and_then(|account| account.key_index_list.clone())
    });
    let list = wa::ADVSignedKeyIndexList::decode_from_slice(&list.unwrap().1).unwrap();
    let list = wa::ADVKeyIndexList::decode_from_slice(&list.details.unwrap()).unwrap();
    assert_eq!((list.valid_indexes, list.current_index), (vec![], Some(2)));
    first.logged_out().await;
    second.logged_out().await;
    first.ended().await;
    second.ended().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_damaged_on_its_way_to_the_companion_is_sent_again() {
    let network = start().await;
    let budi = phone(&network, B);
    let mut client = linked(&network, A, &Store::new()).await;
    let first = budi.send(A, "first").await.unwrap();
    client.text("first").await;
    budi.expect_receipt(&first, "delivered").await.unwrap();
    let matches = Match::to_device("message").account(A).device(1);
    let rule = FaultRule::new(matches, Action::Corrupt).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let mut events = network.subscribe();
    let id = budi.send(A, "damaged").await.unwrap();
    client.text("damaged").await;
    let resent = |event: &NetworkEvent| match event {
        NetworkEvent::Phone(PhoneEvent::Resent { id, device, .. }) => Some((id.clone(), *device)),
        _ => None,
    };
    let seen = budi
        .expect_event(&mut events, "the second try", resent)
        .await
        .unwrap();
    assert_eq!(seen, (id, 1));
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_damaged_on_its_way_to_the_phone_is_asked_for_again() {
    let network = start().await;
    let budi = phone(&network, B);
    let mut client = linked(&network, A, &Store::new()).await;
    client.send(B, "first").await;
    budi.expect_text("first").await.unwrap();
    budi.send(A, "answer").await.unwrap();
    client.text("answer").await;
    let matches = Match::to_device("message").account(B).device(0);
    let rule = FaultRule::new(matches, Action::Corrupt).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = client.send(B, "damaged").await;
    let shown = budi.expect_text("damaged").await.unwrap();
    assert_eq!((shown.id, shown.wire_copies), (id, 1));
    assert_eq!(budi.texts(), ["first", "damaged"]);
    client.stop().await;
    judge(network).await;
}
