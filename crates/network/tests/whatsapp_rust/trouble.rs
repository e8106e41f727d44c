//! The trouble that a phone's handle can make for its owner's companions, and what the client makes of
//! it.

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
    first.logged_out().await;
    second.logged_out().await;
    first.ended().await;
    second.ended().await;
    judge(network).await;
}
