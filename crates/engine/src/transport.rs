//! Opening sockets to WhatsApp: one TLS connector for all devices, and one pace (engine rules 5 and 6).
//!
//! After a network fault every device wants to connect at the same moment. [`Pacer`] lets them begin one by
//! one; a turn is held until the device is logged in or has failed, so that slow logins slow the others.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngExt as _;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_websockets::ClientBuilder;
use url::Url;
use wacore::net::{Transport, TransportEvent, TransportFactory, WHATSAPP_WEB_ORIGIN};
use whatsapp_rust::transport::from_websocket;
use whatsapp_rust::{anyhow, async_channel};

use crate::endpoint::Endpoint;
use crate::error::EngineError;
use crate::options::Pace;

pub(crate) type Socket = (Arc<dyn Transport>, async_channel::Receiver<TransportEvent>);

/// Opens sockets for all devices of the process.
///
/// Not the library's own dialer, which leaves Nagle's algorithm on: a message that follows an
/// acknowledgement would wait 40 ms for the other side's TCP.
pub(crate) struct Dialer {
    url: Url,
    tls: TlsConnector,
    timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(
        endpoint: &Endpoint,
        tls: Arc<rustls::ClientConfig>,
        timeout: Duration,
    ) -> Self {
        Self {
            url: endpoint.0.url.clone(),
            tls: tls.into(),
            timeout,
        }
    }

    pub(crate) async fn dial(&self) -> Result<Socket, EngineError> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(EngineError::Unreachable(error)),
            Err(_) => Err(EngineError::Timeout {
                doing: "opening the socket",
            }),
        }
    }

    async fn open(&self) -> Result<Socket, Box<dyn std::error::Error + Send + Sync>> {
        let host = self.url.host_str().ok_or("the address names no host")?;
        // The brackets of an IPv6 address belong to the URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self
            .url
            .port_or_known_default()
            .ok_or("the address names no port")?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        if self.url.scheme() == "ws" {
            return self.upgrade(stream).await;
        }
        let name = ServerName::try_from(host.to_owned())?;
        self.upgrade(self.tls.connect(name, stream).await?).await
    }

    async fn upgrade<S>(
        &self,
        stream: S,
    ) -> Result<Socket, Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = ClientBuilder::from_uri(self.url.as_str().parse()?).add_header(
            http::header::ORIGIN,
            http::HeaderValue::from_static(WHATSAPP_WEB_ORIGIN),
        )?;
        let (socket, _) = builder.connect_on(stream).await?;
        Ok(from_websocket(socket))
    }
}

/// The process's TLS configuration: the usual authorities and the endpoint's own.
pub(crate) fn tls(endpoint: &Endpoint) -> Result<Arc<rustls::ClientConfig>, EngineError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for root in &endpoint.0.extra_roots {
        roots
            .add(root.clone())
            .map_err(|_| crate::EndpointError::BadCertificates)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| EngineError::Protocol {
            doing: "setting up TLS",
            source: Box::new(source),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What the runner learns of a device's sockets without the library's help.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Frames sent on the newest socket: a handshake that fails sends one only.
    sent: AtomicU32,
    handshake_broken: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Wire {
    pub(crate) fn begin(&self) {
        self.handshake_broken.store(false, Ordering::SeqCst);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The socket was open, but the Noise handshake over it came to nothing.
    pub(crate) fn handshake_broke(&self) -> bool {
        self.handshake_broken.load(Ordering::SeqCst)
    }

    /// Why the socket could not be opened.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One device's way to a socket.
pub(crate) struct DeviceDialer {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) wire: Arc<Wire>,
}

#[async_trait]
impl TransportFactory for DeviceDialer {
    async fn create_transport(&self) -> anyhow::Result<Socket> {
        self.wire.sent.store(0, Ordering::SeqCst);
        match self.dialer.dial().await {
            Ok((inner, events)) => {
                let wire = Arc::clone(&self.wire);
                Ok((Arc::new(WatchedTransport { inner, wire }), events))
            }
            Err(error) => {
                let text = match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                *self
                    .wire
                    .failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(text);
                Err(error.into())
            }
        }
    }
}

struct WatchedTransport {
    inner: Arc<dyn Transport>,
    wire: Arc<Wire>,
}

#[async_trait]
impl Transport for WatchedTransport {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        self.wire.sent.fetch_add(1, Ordering::SeqCst);
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
        // The library hangs up after its first frame only when the answer was not acceptable, or did
        // not come. Which of the two, the runner finds out.
        if self.wire.sent.load(Ordering::SeqCst) <= 1 {
            self.wire.handshake_broken.store(true, Ordering::SeqCst);
        }
        self.inner.disconnect().await;
    }
}

/// Lets devices begin to connect one by one.
#[derive(Debug)]
pub(crate) struct Pacer {
    turns: Arc<Semaphore>,
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(pace.at_once.max(1))),
            interval: Duration::from_secs(1) / pace.per_sec.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits for this device's turn, which lasts until the permit is dropped.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        tokio::time::sleep_until(self.slot()).await;
        permit
    }

    fn slot(&self) -> Instant {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.map_or(now, |next| next.max(now));
        // Half to one and a half intervals, so that processes that started together fall out of step.
        let share = rand::rng().random_range(0.5..1.5);
        *next = Some(slot + self.interval.mul_f64(share));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_pace() {
        let pacer = Pacer::new(Pace {
            per_sec: 100,
            at_once: 1000,
        });
        let begin = Instant::now();
        for _ in 0..200 {
            drop(pacer.turn().await);
        }
        let took = begin.elapsed();
        assert!(
            took > Duration::from_millis(1700) && took < Duration::from_millis(2300),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_at_once() {
        let pacer = Pacer::new(Pace {
            per_sec: 1000,
            at_once: 2,
        });
        let first = pacer.turn().await;
        let _second = pacer.turn().await;
        let third = tokio::time::timeout(Duration::from_secs(60), pacer.turn());
        assert!(third.await.is_err());
        drop(first);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), pacer.turn())
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_pacer_saves_nothing_up() {
        let pacer = Pacer::new(Pace {
            per_sec: 10,
            at_once: 1000,
        });
        drop(pacer.turn().await);
        tokio::time::advance(Duration::from_secs(100)).await;
        let begin = Instant::now();
        for _ in 0..11 {
            drop(pacer.turn().await);
        }
        assert!(begin.elapsed() > Duration::from_millis(700));
    }
}
