//! Proof by a client that nobody here wrote: whatsapp-rust 0.7.0 links, exchanges texts, drains its
//! queue, reconnects and is unlinked. Each test ends with the checkers' judgement over the network's
//! transcript.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

#[path = "whatsapp_rust/chats.rs"]
mod chats;
#[path = "whatsapp_rust/companion.rs"]
mod companion;
#[path = "whatsapp_rust/trouble.rs"]
mod trouble;

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wagate_network::faults::{Action, FaultRule, Match};
use wagate_network::network::{Handshakes, NetworkOptions};
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::prelude::*;
use whatsapp_rust::transport::{Connector, TokioWebSocketTransportFactory};
use whatsapp_rust::types::presence::ReceiptType;

use companion::{A, B, Companion, Store, judge, linked, phone, start, start_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_by_qr() {
    let network = start().await;
    let mut client = Companion::start(&network, &Store::new()).await;
    let qr = client.qr().await;
    let device = phone(&network, A).scan(&qr).await.unwrap();
    let (id, lid) = client
        .expect("the pair success", |event| match event {
            Event::PairSuccess(success) => Some((success.id.clone(), success.lid.clone())),
            _ => None,
        })
        .await;
    assert_eq!(id.to_string(), format!("{A}:{device}@s.whatsapp.net"));
    assert_eq!(lid.device, device);
    client.connected().await;
    // The registration and the login after the 515; this client tries IK from the next one on. On a
    // network without latency it sometimes drops the first login and comes back at once.
    assert_eq!(network.handshakes().xx, 2);
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_by_code() {
    let network = start().await;
    let mut client = Companion::start(&network, &Store::new()).await;
    client.qr().await;
    let options = PairCodeOptions {
        phone_number: A.into(),
        ..Default::default()
    };
    let code = client.client.pair_with_code(options).await.unwrap();
    phone(&network, A).enter_code(&code).await.unwrap();
    client.connected().await;
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_go_both_ways_with_a_phone_and_are_confirmed() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    for round in 0..3 {
        let out = client.send(B, &format!("out {round}")).await;
        assert_eq!(client.ack(&out).await, None);
        peer.expect_text(&format!("out {round}")).await.unwrap();
        client.receipt(&out, ReceiptType::Delivered).await;
        peer.read(A).await.unwrap();
        client.receipt(&out, ReceiptType::Read).await;

        let id = peer.send(A, &format!("in {round}")).await.unwrap();
        let (got, from) = client.text(&format!("in {round}")).await;
        assert_eq!(got, id);
        peer.expect_receipt(&id, "delivered").await.unwrap();
        client
            .client
            .mark_as_read(&from, None, &[&id])
            .await
            .unwrap();
        peer.expect_receipt(&id, "read").await.unwrap();
    }
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_companions_write_to_each_other() {
    let network = start().await;
    let mut a = linked(&network, A, &Store::new()).await;
    let mut b = linked(&network, B, &Store::new()).await;
    for round in 0..5 {
        let id = a.send(B, &format!("a to b, {round}")).await;
        assert_eq!(a.ack(&id).await, None);
        assert_eq!(b.text(&format!("a to b, {round}")).await.0, id);
        a.receipt(&id, ReceiptType::Delivered).await;
        let id = b.send(A, &format!("b to a, {round}")).await;
        assert_eq!(a.text(&format!("b to a, {round}")).await.0, id);
        b.receipt(&id, ReceiptType::Delivered).await;
    }
    // Both phones have seen the whole conversation.
    for number in [A, B] {
        for text in ["a to b, 4", "b to a, 4"] {
            phone(&network, number).expect_text(text).await.unwrap();
        }
    }
    a.stop().await;
    b.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_phone_and_the_companion_see_each_others_messages() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let own = phone(&network, A);
    client.send(B, "from the companion").await;
    own.expect_text("from the companion").await.unwrap();
    own.send(B, "from the phone").await.unwrap();
    client.text("from the phone").await;
    phone(&network, B)
        .expect_text("from the phone")
        .await
        .unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_it_was_away_is_delivered_in_order() {
    let network = start().await;
    let store = Store::new();
    let mut client = linked(&network, A, &store).await;
    let peer = phone(&network, B);
    peer.send(A, "before").await.unwrap();
    client.text("before").await;
    client.stop().await;
    phone(&network, A)
        .expect_companions_online(0)
        .await
        .unwrap();

    let mut last = String::new();
    for number in 0..250 {
        last = peer.send(A, &format!("queued {number}")).await.unwrap();
    }
    let mut client = Companion::start(&network, &store).await;
    for number in 0..250 {
        client.text(&format!("queued {number}")).await;
    }
    assert!(client.seen_in_order("queued "), "out of order");
    peer.expect_receipt(&last, "delivered").await.unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_back_by_ik_and_falls_back_when_the_key_is_new() {
    let network = start().await;
    let store = Store::new();
    linked(&network, A, &store).await.stop().await;

    let mut before = network.handshakes();
    let mut greet = async |expected: fn(&mut Handshakes)| {
        let mut client = Companion::start(&network, &store).await;
        client.connected().await;
        client.stop().await;
        expected(&mut before);
        assert_eq!(network.handshakes(), before);
    };
    greet(|done| done.ik += 1).await;
    network.rotate_noise_key().unwrap();
    greet(|done| done.fallback += 1).await;
    greet(|done| done.ik += 1).await;
    network.refuse_ik(true);
    greet(|done| done.fallback += 1).await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_after_the_cable_was_pulled() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let peer = phone(&network, B);
    // The fault meets the next message to the client, which stays queued and comes after all.
    let action = Action::Close { abrupt: true };
    let rule = FaultRule::new(Match::to_device("message").account(A), action).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = peer.send(A, "in the dark").await.unwrap();
    client
        .expect("the disconnection", |event| {
            matches!(event, Event::Disconnected(_)).then_some(())
        })
        .await;
    client.text("in the dark").await;
    peer.expect_receipt(&id, "delivered").await.unwrap();
    let id = client.send(B, "back again").await;
    assert_eq!(client.ack(&id).await, None);
    peer.expect_text("back again").await.unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_out_by_itself() {
    let network = start().await;
    let store = Store::new();
    let mut client = linked(&network, A, &store).await;
    client.client.logout().await;
    client.logged_out().await;
    client.ended().await;
    phone(&network, A).expect_companions(0).await.unwrap();

    let mut again = Companion::start(&network, &store).await;
    assert!(again.logged_out().await, "the refusal comes on connecting");
    again.ended().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_unlinked_from_the_phone() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let device = client.client.pn().unwrap().device;
    phone(&network, A).unlink(device).await.unwrap();
    assert!(!client.logged_out().await);
    client.ended().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_of_a_device_replaces_the_first() {
    let network = start().await;
    let store = Store::new();
    let mut first = linked(&network, A, &store).await;
    let mut second = Companion::start(&network, &store).await;
    first
        .expect("its replacement", |event| {
            matches!(event, Event::StreamReplaced(_)).then_some(())
        })
        .await;
    second.connected().await;
    first.ended().await;
    second.stop().await;
    // The checkers see what happened: a device must not be held twice.
    let report = network.with_world(|world, _, _| world.check());
    assert!(!report.ok);
    assert_eq!(report.violations.len(), 1, "{report}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_is_told_by_the_ack() {
    let network = start().await;
    let mut client = linked(&network, A, &Store::new()).await;
    let rule = FaultRule::new(Match::from_device("message"), Action::Nack { code: 479 }).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = client.send(B, "refused").await;
    assert_eq!(client.ack(&id).await.as_deref(), Some("479"));
    let id = client.send(B, "accepted").await;
    assert_eq!(client.ack(&id).await, None);
    phone(&network, B).expect_text("accepted").await.unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_over_tls_and_with_compressed_stanzas() {
    let network = start_with(NetworkOptions {
        compress_above: Some(0),
        ..Default::default()
    })
    .await;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(network.tls_ca_pem().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = Connector::Rustls(Arc::new(config).into());
    let transport = TokioWebSocketTransportFactory::new()
        .with_url(network.wss_url())
        .with_connector(connector);
    let mut client = Companion::start_with(transport, &Store::new()).await;
    let qr = client.qr().await;
    phone(&network, A).scan(&qr).await.unwrap();
    client.connected().await;
    client.send(B, "through the tunnel").await;
    phone(&network, B)
        .expect_text("through the tunnel")
        .await
        .unwrap();
    client.stop().await;
    judge(network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_arrives_whole_and_in_order() {
    let network = start().await;
    let mut a = linked(&network, A, &Store::new()).await;
    let mut b = linked(&network, B, &Store::new()).await;
    for number in 0..200 {
        a.send(B, &format!("burst {number}")).await;
    }
    for number in 0..200 {
        b.text(&format!("burst {number}")).await;
    }
    assert!(b.seen_in_order("burst "), "out of order");
    a.receipts(200, ReceiptType::Delivered).await;
    a.stop().await;
    b.stop().await;
    judge(network).await;
}
