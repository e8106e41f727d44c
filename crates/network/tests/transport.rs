//! The shell of the network, byte by byte: framing, timing, ends of connections, TLS, keys.
//! A client of our own does nothing by itself; effects are put into the shell directly.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

#[path = "transport/raw.rs"]
mod raw;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_websockets::Message;
use wagate_network::jid::Jid;
use wagate_network::network::{Handshakes, Network, NetworkOptions};
use wagate_network::node::Node;
use wagate_network::world::{ConnId, Effect, NetworkEvent};

use raw::{BOUND, Came, Raw, registration, stranger};

async fn network() -> Network {
    Network::start(NetworkOptions::default()).await.unwrap()
}

/// Waits until a registration waits to be scanned.
async fn waiting(events: &mut Receiver<NetworkEvent>) -> ConnId {
    loop {
        let event = timeout(BOUND, events.recv())
            .await
            .expect("nobody registered")
            .unwrap();
        if let NetworkEvent::Waiting { conn, .. } = event {
            return conn;
        }
    }
}

/// A client that waits to be linked, and its number.
async fn linked_to_be(network: &Network) -> (Raw<TcpStream>, ConnId) {
    let mut events = network.subscribe();
    let mut client = Raw::connect(network, 3, &registration()).await;
    let conn = waiting(&mut events).await;
    assert_references(&client.stanza().await);
    (client, conn)
}

fn assert_references(node: &Node) {
    let offer = node.first().expect("an iq with a child");
    assert!(offer.is("pair-device"), "{node}");
    assert_eq!(offer.all("ref").count(), 6);
}

fn effect(network: &Network, effect: Effect) {
    network.with_world(|_, _, out| out.push(effect));
}

fn send(network: &Network, conn: ConnId, node: Node) {
    effect(
        network,
        Effect::Send {
            conn,
            node,
            not_before: None,
        },
    );
}

/// Waits until the world has forgotten all connections.
async fn nobody(network: &Network) {
    let until = Instant::now() + BOUND;
    while network.with_world(|world, _, _| world.connection_count()) > 0 {
        assert!(Instant::now() < until, "a connection is left");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn both_dictionaries_get_references() {
    let options = NetworkOptions {
        dictionary2_delay: Duration::ZERO,
        ..Default::default()
    };
    let network = Network::start(options).await.unwrap();
    for version in [2, 3] {
        let mut client = Raw::connect(&network, version, &registration()).await;
        assert_references(&client.stanza().await);
    }
    assert_eq!(
        network.handshakes(),
        Handshakes {
            xx: 2,
            ..Default::default()
        }
    );
}

#[tokio::test]
async fn dictionary_2_is_given_time_before_the_first_frame() {
    let delay = Duration::from_millis(120);
    let options = NetworkOptions {
        dictionary2_delay: delay,
        ..Default::default()
    };
    let network = Network::start(options).await.unwrap();
    let mut client = Raw::connect(&network, 2, &registration()).await;
    let start = Instant::now();
    assert_references(&client.stanza().await);
    // The server's clock started before ours, but not by much.
    assert!(start.elapsed() > delay / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_routing_intro_is_skipped() {
    let network = network().await;
    let socket = raw::open(&network).await;
    let intro = b"ED\x00\x01\x00\x00\x03abc";
    let mut client = Raw::greet(socket, 3, &registration(), intro).await;
    assert_references(&client.stanza().await);
}

#[tokio::test]
async fn frames_may_be_cut_and_joined() {
    let network = network().await;
    let (mut client, _) = linked_to_be(&network).await;
    let before = network.with_world(|world, _, _| world.counters.stanzas_in);
    let node = Node::new("iq")
        .attr("type", "get")
        .attr("xmlns", "w:p")
        .attr("to", Jid::SERVER);
    let mut bytes: Vec<_> = (0..3).flat_map(|_| client.frame(&node)).collect();
    let tail = bytes.split_off(bytes.len() - 20);
    client.send_bytes(bytes).await;
    for byte in tail {
        client.send_bytes(vec![byte]).await;
    }
    let until = Instant::now() + BOUND;
    while network.with_world(|world, _, _| world.counters.stanzas_in) < before + 3 {
        assert!(Instant::now() < until, "a frame was lost");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn compressed_stanzas_go_out_when_asked_for() {
    let options = NetworkOptions {
        compress_above: Some(0),
        ..Default::default()
    };
    let network = Network::start(options).await.unwrap();
    let mut client = Raw::connect(&network, 3, &registration()).await;
    assert_references(&client.stanza().await);
}

#[tokio::test]
async fn a_polite_end_comes_after_what_was_sent() {
    let network = network().await;
    let (mut client, conn) = linked_to_be(&network).await;
    network.with_world(|_, _, out| {
        for number in 0..500_u16 {
            let node = Node::new("ib").attr("n", number);
            out.push(Effect::Send {
                conn,
                node,
                not_before: None,
            });
        }
        out.push(Effect::Close {
            conn,
            abrupt: false,
        });
    });
    for number in 0..500 {
        assert_eq!(client.stanza().await.number("n"), Some(number));
    }
    assert_eq!(client.next().await, Came::Close);
    nobody(&network).await;
}

#[tokio::test]
async fn a_refused_login_is_told_why() {
    let network = network().await;
    let mut client = Raw::connect(&network, 3, &stranger()).await;
    let failure = client.stanza().await;
    assert!(failure.is("failure"), "{failure}");
    assert_eq!(failure.number("reason"), Some(401));
    assert_eq!(client.next().await, Came::Close);
    nobody(&network).await;
}

#[tokio::test]
async fn an_abrupt_end_says_nothing() {
    let network = network().await;
    let (mut client, conn) = linked_to_be(&network).await;
    network.with_world(|_, _, out| {
        out.push(Effect::Send {
            conn,
            node: Node::new("ib"),
            not_before: None,
        });
        out.push(Effect::Close { conn, abrupt: true });
    });
    assert_eq!(client.next().await, Came::Drop);
    nobody(&network).await;
}

#[tokio::test]
async fn a_silent_connection_neither_hears_nor_speaks_but_notices_the_end() {
    let network = network().await;
    let (mut client, conn) = linked_to_be(&network).await;
    effect(&network, Effect::Silence { conn });
    send(&network, conn, Node::new("ib"));
    let heard = network.with_world(|world, _, _| world.counters.stanzas_in);
    let node = Node::new("iq")
        .attr("type", "get")
        .attr("xmlns", "w:p")
        .attr("to", Jid::SERVER);
    client.send(&node).await;
    let quiet = timeout(Duration::from_millis(200), client.next_unbounded()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(
        network.with_world(|world, _, _| world.counters.stanzas_in),
        heard
    );
    drop(client);
    nobody(&network).await;
}

#[tokio::test]
async fn delayed_stanzas_wait_for_the_networks_clock() {
    let network = network().await;
    let (mut client, conn) = linked_to_be(&network).await;
    network.with_world(|_, now, out| {
        let late = Node::new("ib").attr("n", "late");
        out.push(Effect::Send {
            conn,
            node: late,
            not_before: Some(now + 50_000),
        });
        out.push(Effect::Send {
            conn,
            node: Node::new("ib").attr("n", "now"),
            not_before: None,
        });
    });
    assert_eq!(client.stanza().await.get("n").as_deref(), Some("now"));
    network.advance(49_000);
    let early = timeout(Duration::from_millis(50), client.next_unbounded()).await;
    assert!(early.is_err(), "{early:?}");
    network.advance(1_000);
    assert_eq!(client.stanza().await.get("n").as_deref(), Some("late"));
}

#[tokio::test]
async fn qr_references_run_out_by_the_networks_clock() {
    let network = network().await;
    let (mut client, _) = linked_to_be(&network).await;
    network.advance(161_000);
    loop {
        if client.next().await == Came::Close {
            break;
        }
    }
    nobody(&network).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let options = NetworkOptions {
        outgoing_max: 100,
        ..Default::default()
    };
    let network = Network::start(options).await.unwrap();
    let (mut client, conn) = linked_to_be(&network).await;
    network.with_world(|_, _, out| {
        for _ in 0..101 {
            out.push(Effect::Send {
                conn,
                node: Node::new("ib"),
                not_before: None,
            });
        }
    });
    assert_eq!(client.next().await, Came::Drop);
    nobody(&network).await;
}

#[tokio::test]
async fn clients_that_break_the_protocol_are_dropped_and_counted() {
    let network = network().await;
    let errors = || network.with_world(|world, _, _| world.counters.protocol_errors);
    let before = errors();
    let (mut client, _) = linked_to_be(&network).await;
    client
        .send_bytes(vec![
            0, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
        ])
        .await;
    assert_eq!(client.next().await, Came::Drop);
    nobody(&network).await;
    let until = Instant::now() + BOUND;
    while errors() == before {
        assert!(Instant::now() < until, "not counted");
        tokio::task::yield_now().await;
    }

    for greeting in [
        &b"XX\x06\x03"[..],
        b"WA\x06\x09",
        b"WA\x06\x03\x00\x00\x02ab",
    ] {
        let mut socket = raw::open(&network).await;
        socket
            .send(Message::binary(BytesMut::from(greeting)))
            .await
            .unwrap();
        while let Ok(Some(Ok(_))) = timeout(BOUND, socket.next()).await {}
    }
    assert_eq!(
        network.with_world(|world, _, _| world.connection_count()),
        0
    );
}

#[tokio::test]
async fn a_stop_closes_what_is_open() {
    let network = network().await;
    let (mut client, _) = linked_to_be(&network).await;
    let idle = TcpStream::connect(network.address()).await.unwrap();
    let stop = timeout(BOUND, network.stop());
    let (stopped, came) = tokio::join!(stop, client.next());
    stopped.expect("the network does not stop");
    assert_eq!(came, Came::Close);
    drop(idle);
    assert!(TcpStream::connect(network.address()).await.is_err());
}

fn connector(network: &Network) -> TlsConnector {
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
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tls_serves_all_of_its_names_on_the_same_port() {
    let network = network().await;
    for name in [
        "localhost",
        "127.0.0.1",
        "mmg.whatsapp.net",
        "web.whatsapp.com",
    ] {
        let tcp = TcpStream::connect(network.address()).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let tls = connector(&network).connect(name, tcp).await.unwrap();
        let socket = raw::upgrade(&network, tls).await;
        let mut client = Raw::greet(socket, 3, &registration(), b"").await;
        assert_references(&client.stanza().await);
    }
}

#[tokio::test]
async fn http_lives_on_the_same_port_plain_and_in_tls() {
    let network = network().await;
    let request =
        b"GET /control/v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut plain = TcpStream::connect(network.address()).await.unwrap();
    plain.write_all(request).await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let tcp = TcpStream::connect(network.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector(&network).connect(name, tcp).await.unwrap();
    tls.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // The server may end without a TLS goodbye.
    drop(tls.read_to_end(&mut answer).await);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn keys_outlive_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let options = || NetworkOptions {
        folder: Some(folder.path().join("keys")),
        ..Default::default()
    };
    let first = Network::start(options()).await.unwrap();
    first.stop().await;
    let second = Network::start(options()).await.unwrap();
    assert_eq!(first.noise_root_public(), second.noise_root_public());
    assert_eq!(first.tls_ca_pem(), second.tls_ca_pem());
    second.stop().await;
}
