//! Serves the API on a socket, within bounds: so many connections, so long for a request's headers.
//!
//! axum's own loop has neither bound. When it stops, a request that was begun gets its answer; what
//! merely holds a connection open, in silence or by saying its headers slowly, is cut and costs the stop
//! nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After a stop, how long a connection without a request may take to write what was answered, or to
/// finish the headers that it has begun.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often the log says that there are as many connections as there may be.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpOptions {
    /// The longest wait for a request's headers, counted from the connection's start or from the last
    /// answer.
    pub(crate) header_timeout: Duration,
    /// Connections at once; more wait in the kernel's queue until one ends.
    pub(crate) connections_max: usize,
}

/// The server: idle until it is given a socket.
#[derive(Debug)]
pub(crate) struct HttpServer {
    options: HttpOptions,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl HttpServer {
    pub(crate) fn new(options: HttpOptions) -> HttpServer {
        HttpServer {
            options,
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Answers on this socket from now on.
    pub(crate) fn serve(&self, listener: TcpListener, router: Router) {
        let connections = Connections {
            router,
            http: http1_with(self.options),
            places: Arc::new(Semaphore::new(self.options.connections_max)),
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn(connections.accept(listener));
    }

    /// Takes no more connections; those that are open end with the request that they carry.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits for all connections to end, and cuts at the deadline what is left. True when nothing was.
    pub(crate) async fn ended_by(&self, deadline: Instant) -> bool {
        let in_time = timeout_at(deadline, self.tasks.wait()).await.is_ok();
        self.cut.cancel();
        in_time
    }
}

fn http1_with(options: HttpOptions) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout);
    http
}

/// What every connection shares.
#[derive(Clone)]
struct Connections {
    router: Router,
    http: http1::Builder,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    async fn accept(self, mut listener: TcpListener) {
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = self.next(&mut listener) => accepted,
            };
            // The semaphore is never closed.
            let Some((place, stream)) = accepted else {
                return;
            };
            if self.places.available_permits() == 0
                && warned.is_none_or(|at| at.elapsed() >= WARN_EVERY)
            {
                warned = Some(Instant::now());
                tracing::warn!(
                    "as many HTTP connections as server.connections_max allows: more wait until one ends"
                );
            }
            self.tasks.spawn(self.clone().carry(stream, place));
        }
    }

    /// The next connection, once there is a place for it.
    async fn next(&self, listener: &mut TcpListener) -> Option<(OwnedSemaphorePermit, TcpStream)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        // axum's accept goes on after errors, and waits a little when there are no more descriptors.
        let (stream, _) = axum::serve::Listener::accept(listener).await;
        Some((place, stream))
    }

    /// Carries one connection to its end.
    async fn carry(self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Answers are small: waiting for more to send along would only cost time.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        let requests = TaskTracker::new();
        requests.close();
        let service = {
            let (requests, service) = (requests.clone(), TowerToHyperService::new(self.router));
            service_fn(move |request: hyper::Request<Incoming>| {
                requests.track_future(service.call(request))
            })
        };
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection.with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = quiet(&requests) => Ok(()),
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            // A client that went away, or one whose headers took too long.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "an HTTP connection ended"
            );
        }
    }
}

/// Returns when a connection has had no request for [`LAST_WORDS`].
async fn quiet(requests: &TaskTracker) {
    loop {
        requests.wait().await;
        sleep(LAST_WORDS).await;
        if requests.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
