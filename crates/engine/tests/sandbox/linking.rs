//! By QR, by code, and again with neither.

use wagate_domain::{Jid, LinkChallenge, PhoneNumber};
use wagate_engine::{Ended, Endpoint, EngineError, EngineEvent};
use wagate_network::network::{Network, NetworkOptions};

use crate::harness::{A, B, Harness};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_by_qr() {
    let harness = Harness::start().await;
    let lease = harness.session().await;
    let mut companion = harness.open(&lease).await;
    let qr = companion.qr().await;
    let number = harness.phone(A).scan(&qr).await.unwrap();
    let paired = companion
        .expect("the pairing", |event| match event {
            EngineEvent::Paired(identity) => Some(identity.clone()),
            _ => None,
        })
        .await;
    assert_eq!(
        paired.jid,
        Jid {
            device: number,
            ..Jid::pn(A)
        }
    );
    let identity = companion.connected().await;
    assert_eq!(identity.jid, paired.jid);
    assert!(identity.lid.is_some());
    assert!(companion.device.is_connected());
    assert_eq!(companion.device.identity().unwrap().jid, identity.jid);
    assert_eq!(companion.stop().await, Ended::Stopped);
    assert!(!companion.device.is_connected());
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_by_code() {
    let harness = Harness::start().await;
    let lease = harness.session().await;
    let mut companion = harness.open(&lease).await;
    let phone = PhoneNumber::parse(A, None).unwrap();
    let challenge = companion.device.request_code(&phone).await.unwrap();
    let LinkChallenge::Code { code, .. } = &challenge else {
        panic!("{challenge:?}")
    };
    assert_eq!(code.len(), 8);
    companion
        .expect("the code as an event", |event| match event {
            EngineEvent::Challenge(shown) if *shown == challenge => Some(()),
            _ => None,
        })
        .await;
    let again = companion.device.request_code(&phone).await;
    assert!(
        matches!(again, Err(EngineError::CodeOutstanding { .. })),
        "{again:?}"
    );
    harness.phone(A).enter_code(code).await.unwrap();
    companion.connected().await;
    let linked = companion.device.request_code(&phone).await;
    assert!(
        matches!(linked, Err(EngineError::AlreadyLinked)),
        "{linked:?}"
    );
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_back_without_a_challenge() {
    let harness = Harness::start().await;
    let (lease, mut first) = harness.linked(A).await;
    let id = first.send(B, "before").await;
    assert_eq!(first.ack(&id).await, None);
    assert_eq!(first.stop().await, Ended::Stopped);
    drop(first);
    let mut second = harness.open(&lease).await;
    second.connected().await;
    assert!(!second.has_seen(|event| matches!(event, EngineEvent::Challenge(_))));
    let id = second.send(B, "after").await;
    assert_eq!(second.ack(&id).await, None);
    harness.phone(B).expect_text("after").await.unwrap();
    second.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlinked_device_sends_nothing() {
    let harness = Harness::start().await;
    let lease = harness.session().await;
    let mut companion = harness.open(&lease).await;
    companion.qr().await;
    let id = wagate_domain::WaMessageId::generate();
    let sent = companion
        .device
        .send(&id, &Jid::pn(B), &crate::harness::content("x"))
        .await;
    assert!(matches!(sent, Err(EngineError::NotLinked)), "{sent:?}");
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_over_tls_with_an_authority_of_its_own() {
    let network = Network::start(NetworkOptions::default()).await.unwrap();
    let authority = network.tls_ca_pem().as_bytes().to_vec();
    let endpoint = Endpoint::at(&network.wss_url(), Some(&authority)).unwrap();
    let harness = Harness::on(network, |options| options.endpoint = endpoint).await;
    harness.engine.check_reachable().await.unwrap();
    let (_, mut companion) = harness.linked(A).await;
    let id = companion.send(B, "sealed").await;
    assert_eq!(companion.ack(&id).await, None);
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_not_trusted_is_no_way_in() {
    let network = Network::start(NetworkOptions::default()).await.unwrap();
    let endpoint = Endpoint::at(&network.wss_url(), None).unwrap();
    let harness = Harness::on(network, |options| options.endpoint = endpoint).await;
    let lease = harness.session().await;
    let mut companion = harness.open(&lease).await;
    let reason = companion
        .expect("the failed attempt", |event| match event {
            EngineEvent::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("certificate"), "{reason}");
    companion.stop().await;
    harness.network.stop().await;
}
