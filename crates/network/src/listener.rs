//! One port for everything: chat sockets, the media host and the control API, each plain or in TLS.
//!
//! The first byte tells TLS from plain, the first words of the request tell a chat socket from other
//! HTTP. The bytes that were read for that are given back to whoever takes the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection;
use crate::network::Network;

/// How a chat socket's request begins.
const CHAT: &[u8] = b"GET /ws/chat";
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// HTTP connections that wait for the server to take them.
const HTTP_BACKLOG: usize = 256;
/// After an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the network stops.
pub(crate) async fn run(network: Network, listener: TcpListener, tls: TlsAcceptor, router: Router) {
    let (http, waiting) = mpsc::channel(HTTP_BACKLOG);
    let stop = network.stopping();
    let server = axum::serve(
        HttpListener {
            waiting,
            address: network.address(),
        },
        router,
    )
    .with_graceful_shutdown(stop.clone().cancelled_owned());
    network.tracker().spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "http server failed"
            );
        }
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let admit = admit(network.clone(), socket, tls.clone(), http.clone());
                network.tracker().spawn(admit);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Finds out what a connection wants and hands it on.
async fn admit(network: Network, socket: TcpStream, tls: TlsAcceptor, http: mpsc::Sender<Stream>) {
    let stop = network.stopping();
    let limit = network.options().handshake_limit;
    let sniffed = tokio::select! {
        () = stop.cancelled() => return,
        sniffed = timeout(limit, sniff(socket, tls)) => sniffed,
    };
    match sniffed {
        Ok(Ok((stream, true))) => connection::serve(network, stream).await,
        Ok(Ok((stream, false))) => {
            if http.send(stream).await.is_err() {
                tracing::debug!("http server is gone");
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "connection refused"
            );
        }
        Err(_) => tracing::debug!("connection said nothing"),
    }
}

/// Unwraps TLS and reads far enough to know whether this is a chat socket.
async fn sniff(socket: TcpStream, tls: TlsAcceptor) -> io::Result<(Stream, bool)> {
    socket.set_nodelay(true)?;
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut inner = if first == [TLS_HANDSHAKE] {
        Inner::Tls(Box::new(tls.accept(socket).await?))
    } else {
        Inner::Plain(socket)
    };
    let mut read = BytesMut::with_capacity(CHAT.len());
    while read.len() < CHAT.len() && CHAT.starts_with(&read) {
        let mut rest = [0; CHAT.len()];
        let rest = &mut rest[read.len()..];
        let count = inner.read(rest).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&rest[..count]);
    }
    let chat = read == CHAT;
    Ok((
        Stream {
            read: read.freeze(),
            inner,
        },
        chat,
    ))
}

/// A socket whose first bytes were read already.
pub(crate) struct Stream {
    read: Bytes,
    inner: Inner,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Inner {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Plain(socket) => Pin::new(socket).poll_write(cx, buffer),
            Inner::Tls(socket) => Pin::new(socket).poll_write(cx, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Inner::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Inner::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// The connections that are plain HTTP, as axum wants them.
struct HttpListener {
    waiting: mpsc::Receiver<Stream>,
    address: SocketAddr,
}

impl Listener for HttpListener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        match self.waiting.recv().await {
            Some(stream) => (stream, self.address),
            // The network stops; the server learns that from its own signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
