//! One chat socket: WebSocket, greeting, Noise handshake, then stanzas both ways.
//!
//! One task per connection reads, writes and waits; it holds no lock while it does so. What comes in
//! goes to the world in the order of arrival; what goes out is taken from the [`Outbox`] in batches,
//! so that a burst costs one write. Called by [`crate::listener`].

mod outbox;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_websockets::{Config, Limits, Message, ServerBuilder, WebSocketStream};
use waproto::buffa::Message as _;
use waproto::whatsapp::ClientPayload;

pub(crate) use outbox::{End, Outbox, Work};

use crate::codec::{self, CodecError, Dictionary};
use crate::frame::{self, FrameError, FrameReader, Greeting};
use crate::network::{Network, Pattern};
use crate::node::Node;
use crate::noise::{self, Answer, NoiseError, Receiving, Sending, Session};
use crate::world::{ConnId, Hello};

/// Nothing that a client sends comes near it: media travels elsewhere.
const MAX_FRAME: usize = 8 * 1024 * 1024;
/// Encrypted bytes gathered before they are written.
const BATCH_BYTES: usize = 64 * 1024;
/// Stanzas given to the world under one lock.
const BATCH_STANZAS: usize = 64;
/// A client that takes nothing for so long is cut off.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long a closed socket waits for the client to close its side.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long a login waits for the end of its device's older connection.
const TAKEOVER_GRACE: Duration = Duration::from_millis(100);

/// Why a connection ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the socket failed")]
    Socket(#[from] tokio_websockets::Error),
    #[error("the client sent something that is no frame")]
    Frame(#[from] FrameError),
    #[error("the encryption failed")]
    Noise(#[from] NoiseError),
    #[error("the client sent something that is no stanza")]
    Codec(#[from] CodecError),
    #[error("the client speaks dictionary {0}, which is unknown")]
    Dictionary(u8),
    #[error("the client's payload is malformed")]
    Payload,
    #[error("the client took too long")]
    Slow,
    #[error("the client left")]
    Gone,
}

/// A connection whose handshake is over.
struct Connection<S> {
    network: Network,
    id: ConnId,
    socket: WebSocketStream<S>,
    frames: FrameReader,
    dictionary: &'static Dictionary,
    sending: Sending,
    receiving: Receiving,
    outbox: Arc<Outbox>,
    /// Nothing is written before this time.
    hold: Option<Instant>,
    silent: bool,
}

/// Serves a chat socket until it ends. `io` stands at the start of the HTTP request.
pub(crate) async fn serve<S>(network: Network, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let stop = network.stopping();
    let limit = network.options().handshake_limit;
    let opened = tokio::select! {
        () = stop.cancelled() => return,
        opened = timeout(limit, Connection::open(&network, io)) => opened,
    };
    let mut connection = match opened.unwrap_or(Err(ConnectionError::Slow)) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "handshake failed");
            return;
        }
    };
    let id = connection.id;
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(End::Polite),
        ended = connection.run() => ended,
    };
    network.disconnected(id);
    match ended {
        Ok(End::Polite) => connection.close().await,
        Ok(End::Abrupt) | Err(ConnectionError::Gone | ConnectionError::Socket(_)) => {}
        Err(error) => {
            tracing::warn!(
                conn = id,
                error = &error as &dyn std::error::Error,
                "connection ended by a protocol error"
            );
            network.protocol_error();
        }
    }
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// From the HTTP request to the world's knowledge of the client.
    async fn open(network: &Network, io: S) -> Result<Self, ConnectionError> {
        let (_, mut socket) = ServerBuilder::new()
            .config(Config::default())
            .limits(Limits::default().max_payload_len(Some(MAX_FRAME + 16)))
            .accept(io)
            .await?;
        let mut frames = FrameReader::new(MAX_FRAME);
        let greeting = loop {
            if let Some(greeting) = frames.greeting()? {
                break greeting;
            }
            frames.push(next_bytes(&mut socket).await?);
        };
        let version = greeting.dictionary();
        let dictionary =
            Dictionary::of_version(version).ok_or(ConnectionError::Dictionary(version))?;
        let session = shake_hands(network, &mut socket, &mut frames, &greeting).await?;
        let Session {
            client_key,
            payload,
            sending,
            receiving,
        } = session;
        let payload =
            ClientPayload::decode_from_slice(&payload).map_err(|_| ConnectionError::Payload)?;

        // Clients of dictionary 2 change keys asynchronously after their last message, and crash
        // if a frame is faster than they are.
        let delay = network.options().dictionary2_delay;
        let hold = (version == 2 && !delay.is_zero()).then(|| Instant::now() + delay);
        if let Some(older) = network.older_connection(&payload) {
            // A client that closes and comes back at once may be quicker than the task that reads
            // its old socket. Only a connection that stays is one that is taken over.
            let left = timeout(TAKEOVER_GRACE, older.gone()).await;
            tracing::trace!(taken_over = left.is_err(), "a device comes back");
        }
        let (id, outbox) = network.connected(|conn| Hello {
            conn,
            payload,
            static_key: client_key,
            dictionary: version,
        });
        Ok(Self {
            network: network.clone(),
            id,
            socket,
            frames,
            dictionary,
            sending,
            receiving,
            outbox,
            hold,
            silent: false,
        })
    }

    async fn run(&mut self) -> Result<End, ConnectionError> {
        // Frames may have come together with the handshake's last message.
        self.take_frames().await?;
        let outbox = Arc::clone(&self.outbox);
        loop {
            let held = self.hold;
            tokio::select! {
                () = outbox.ready(), if held.is_none() => {
                    if let Some(end) = self.write_waiting().await? {
                        return Ok(end);
                    }
                }
                () = until(held), if held.is_some() => {
                    self.hold = None;
                    if let Some(end) = self.write_waiting().await? {
                        return Ok(end);
                    }
                }
                message = self.socket.next() => {
                    let message = message.ok_or(ConnectionError::Gone)??;
                    if message.is_close() {
                        return Ok(End::Polite);
                    }
                    // A silent connection reads on, unheard, to notice that the client is gone.
                    if message.is_binary() && !self.silent {
                        self.frames.push(BytesMut::from(message.into_payload()));
                        self.take_frames().await?;
                    }
                }
            }
        }
    }

    /// Decrypts and decodes what has come and gives it to the world.
    async fn take_frames(&mut self) -> Result<(), ConnectionError> {
        let mut nodes = Vec::new();
        while let Some(mut frame) = self.frames.frame()? {
            self.receiving.open(&mut frame)?;
            nodes.push(codec::decode(frame.freeze(), self.dictionary)?);
            if nodes.len() == BATCH_STANZAS {
                self.give(&mut nodes).await;
            }
        }
        if !nodes.is_empty() {
            self.give(&mut nodes).await;
        }
        Ok(())
    }

    async fn give(&mut self, nodes: &mut Vec<Node>) {
        let id = self.id;
        self.network.with_world(|world, now, out| {
            for node in nodes.drain(..) {
                world.receive(now, id, node, out);
            }
        });
        // The only back-pressure on the phones' work: whoever sends waits for it.
        self.network.phones().admit().await;
    }

    /// Writes what waits; tells when that was the end.
    async fn write_waiting(&mut self) -> Result<Option<End>, ConnectionError> {
        let Work { nodes, end, silent } = self.outbox.take();
        self.silent |= silent;
        if end == Some(End::Abrupt) {
            return Ok(end);
        }
        if !self.silent {
            self.write(nodes).await?;
        }
        Ok(end)
    }

    async fn write(&mut self, nodes: VecDeque<Node>) -> Result<(), ConnectionError> {
        let mut batch = Vec::new();
        let last = nodes.len().saturating_sub(1);
        for (at, node) in nodes.into_iter().enumerate() {
            if let Err(error) = self.append(&node, &mut batch) {
                tracing::error!(
                    conn = self.id,
                    error = &error as &dyn std::error::Error,
                    "stanza cannot be written"
                );
                return Err(error);
            }
            if at == last || batch.len() >= BATCH_BYTES {
                let bytes = Bytes::from(std::mem::take(&mut batch));
                let sent = timeout(WRITE_LIMIT, self.socket.send(Message::binary(bytes))).await;
                sent.map_err(|_| ConnectionError::Slow)??;
            }
        }
        Ok(())
    }

    /// Appends a stanza as an encrypted frame.
    fn append(&mut self, node: &Node, batch: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let start = batch.len();
        // The length is known afterwards.
        frame::write_length(0, batch)?;
        let body = batch.len();
        codec::encode(node, self.dictionary, batch)?;
        if let Some(limit) = self.network.options().compress_above
            && batch.len() - body > limit
        {
            let compressed = codec::compress(&batch[body..])?;
            batch.truncate(body);
            batch.extend_from_slice(&compressed);
        }
        self.sending.seal(batch, body)?;
        let mut length = Vec::with_capacity(3);
        frame::write_length(batch.len() - body, &mut length)?;
        batch[start..body].copy_from_slice(&length);
        Ok(())
    }

    /// Says goodbye and waits a little for the client to do the same, so that what was written last
    /// is read.
    async fn close(mut self) {
        let written = self.write_waiting().await;
        let closed = timeout(CLOSE_LIMIT, self.socket.close()).await;
        tracing::trace!(
            conn = self.id,
            written = written.is_ok(),
            closed = closed.is_ok(),
            "closed"
        );
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The next binary message of a client that has not finished its handshake.
async fn next_bytes<S>(socket: &mut WebSocketStream<S>) -> Result<BytesMut, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = socket.next().await.ok_or(ConnectionError::Gone)??;
        if message.is_close() {
            return Err(ConnectionError::Gone);
        }
        if message.is_binary() {
            return Ok(BytesMut::from(message.into_payload()));
        }
    }
}

async fn next_frame<S>(
    socket: &mut WebSocketStream<S>,
    frames: &mut FrameReader,
) -> Result<BytesMut, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if let Some(frame) = frames.frame()? {
            return Ok(frame);
        }
        frames.push(next_bytes(socket).await?);
    }
}

async fn shake_hands<S>(
    network: &Network,
    socket: &mut WebSocketStream<S>,
    frames: &mut FrameReader,
    greeting: &Greeting,
) -> Result<Session, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = next_frame(socket, frames).await?;
    let delay = network.options().connect_delay;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let (identity, refuse_ik) = network.handshake();
    match noise::answer(&identity, &greeting.header, &hello, refuse_ik)? {
        Answer::Finished(reply, session) => {
            send_frame(socket, &reply).await?;
            network.count_handshake(Pattern::Ik);
            Ok(*session)
        }
        Answer::Waiting(reply, waiting) => {
            send_frame(socket, &reply).await?;
            let pattern = if waiting.is_fallback() {
                Pattern::Fallback
            } else {
                Pattern::Xx
            };
            let finish = next_frame(socket, frames).await?;
            let session = waiting.finish(&finish)?;
            network.count_handshake(pattern);
            Ok(session)
        }
    }
}

async fn send_frame<S>(
    socket: &mut WebSocketStream<S>,
    payload: &[u8],
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::with_capacity(payload.len() + 3);
    frame::write_length(payload.len(), &mut bytes)?;
    bytes.extend_from_slice(payload);
    socket.send(Message::binary(bytes)).await?;
    Ok(())
}
