//! A client of a few lines that does nothing by itself: the tests decide every byte.

use std::time::Duration;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};
use wacore_libsignal::protocol::KeyPair;
use wacore_noise::{NoiseCipher, XxHandshakeState};
use wagate_network::codec::{self, Dictionary};
use wagate_network::frame::{FrameReader, MAX_FRAME, write_length};
use wagate_network::network::Network;
use wagate_network::node::Node;
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::ClientPayload;
use waproto::whatsapp::client_payload::DevicePairingRegistrationData;

pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) struct Raw<S> {
    pub(crate) socket: WebSocketStream<S>,
    frames: FrameReader,
    dictionary: &'static Dictionary,
    write: NoiseCipher,
    read: NoiseCipher,
    written: u32,
    received: u32,
}

/// What came from the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Stanza(Node),
    /// A close frame.
    Close,
    /// The socket ended without one.
    Drop,
}

/// A payload that asks to be linked.
pub(crate) fn registration() -> ClientPayload {
    let mut rng = rand::rng();
    let identity = KeyPair::generate(&mut rng);
    let prekey = KeyPair::generate(&mut rng);
    let signature = identity
        .calculate_signature(&prekey.public_key.serialize(), &mut rng)
        .unwrap();
    ClientPayload {
        device_pairing_data: MessageField::some(DevicePairingRegistrationData {
            e_regid: Some(vec![0, 0, 1, 2]),
            e_keytype: Some(vec![5]),
            e_ident: Some(identity.public_key.public_key_bytes().to_vec()),
            e_skey_id: Some(vec![0, 0, 1]),
            e_skey_val: Some(prekey.public_key.public_key_bytes().to_vec()),
            e_skey_sig: Some(signature.to_vec()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A payload that logs in as a device that nobody knows.
pub(crate) fn stranger() -> ClientPayload {
    ClientPayload {
        username: Some(621),
        device: Some(3),
        ..Default::default()
    }
}

/// Opens the plain chat socket.
pub(crate) async fn open(network: &Network) -> WebSocketStream<TcpStream> {
    let tcp = TcpStream::connect(network.address()).await.unwrap();
    upgrade(network, tcp).await
}

/// Upgrades a stream to the chat socket.
pub(crate) async fn upgrade<S>(network: &Network, stream: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let builder = ClientBuilder::new().uri(&network.ws_url()).unwrap();
    builder.connect_on(stream).await.unwrap().0
}

impl Raw<TcpStream> {
    pub(crate) async fn connect(network: &Network, version: u8, payload: &ClientPayload) -> Self {
        Self::greet(open(network).await, version, payload, b"").await
    }
}

impl<S> Raw<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Does an XX handshake. `intro` comes before the header.
    pub(crate) async fn greet(
        mut socket: WebSocketStream<S>,
        version: u8,
        payload: &ClientPayload,
        intro: &[u8],
    ) -> Self {
        let header = [b'W', b'A', 6, version];
        let key = KeyPair::generate(&mut rand::rng());
        let mut state = XxHandshakeState::new(key, payload.encode_to_vec(), &header).unwrap();
        let hello = state.build_client_hello().unwrap();
        let mut bytes = [intro, &header].concat();
        write_length(hello.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(&hello);
        socket.send(Message::binary(bytes)).await.unwrap();

        let mut frames = FrameReader::new(MAX_FRAME);
        let reply = loop {
            if let Some(frame) = frames.frame().unwrap() {
                break frame;
            }
            let message = timeout(BOUND, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(message.is_binary(), "{message:?}");
            frames.push(BytesMut::from(message.into_payload()));
        };
        let finish = state
            .read_server_hello_and_build_client_finish(&reply)
            .unwrap();
        let mut bytes = Vec::new();
        write_length(finish.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(&finish);
        socket.send(Message::binary(bytes)).await.unwrap();
        let outcome = state.finish().unwrap();
        Self {
            socket,
            frames,
            dictionary: Dictionary::of_version(version).unwrap(),
            write: outcome.write_cipher,
            read: outcome.read_cipher,
            written: 0,
            received: 0,
        }
    }

    /// A stanza as it stands on the wire.
    pub(crate) fn frame(&mut self, node: &Node) -> Vec<u8> {
        let mut plain = Vec::new();
        codec::encode(node, self.dictionary, &mut plain).unwrap();
        let sealed = self
            .write
            .encrypt_with_counter(self.written, &plain)
            .unwrap();
        self.written += 1;
        let mut bytes = Vec::new();
        write_length(sealed.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(&sealed);
        bytes
    }

    pub(crate) async fn send(&mut self, node: &Node) {
        let bytes = self.frame(node);
        self.send_bytes(bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    /// Waits for what comes next.
    pub(crate) async fn next(&mut self) -> Came {
        timeout(BOUND, self.next_unbounded())
            .await
            .expect("nothing came")
    }

    /// Waits for the next stanza.
    pub(crate) async fn stanza(&mut self) -> Node {
        match self.next().await {
            Came::Stanza(node) => node,
            other => panic!("waited for a stanza, got {other:?}"),
        }
    }

    pub(crate) async fn next_unbounded(&mut self) -> Came {
        loop {
            if let Some(mut frame) = self.frames.frame().unwrap() {
                self.read
                    .decrypt_in_place_with_counter(self.received, &mut frame)
                    .unwrap();
                self.received += 1;
                let node = codec::decode(frame.freeze(), self.dictionary).unwrap();
                return Came::Stanza(node);
            }
            match self.socket.next().await {
                Some(Ok(message)) if message.is_binary() => {
                    self.frames.push(BytesMut::from(message.into_payload()));
                }
                Some(Ok(message)) if message.is_close() => return Came::Close,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Came::Drop,
            }
        }
    }
}
