//! Goal: slow and idle clients cost a place for a bounded time and a stop nothing, and a request that was
//! begun is answered. Method: clients that write bytes on a socket, handlers that say when they run.

use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: wagate\r\n\r\n";
const HALF_A_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: wag";

/// What a handler tells the test, and waits for.
#[derive(Clone, Default)]
struct Handler {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

async fn serve(options: HttpOptions, router: Router) -> (HttpServer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer::new(options);
    server.serve(listener, router);
    (server, address)
}

fn options() -> HttpOptions {
    HttpOptions {
        header_timeout: LONG,
        connections_max: 100,
    }
}

fn quick() -> Router {
    Router::new().route("/", get(async || "hello"))
}

fn slow(handler: &Handler) -> Router {
    let handler = handler.clone();
    let wait = async move || {
        handler.begun.notify_one();
        handler.go_on.notified().await;
        "hello"
    };
    Router::new().route("/", get(wait))
}

/// A client that has written this.
async fn client(address: SocketAddr, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream
}

/// A server, and a client that waits for its answer: the handler has begun.
async fn begun(options: HttpOptions) -> (HttpServer, SocketAddr, Handler, TcpStream) {
    let handler = Handler::default();
    let (server, address) = serve(options, slow(&handler)).await;
    let client = client(address, REQUEST).await;
    handler.begun.notified().await;
    (server, address, handler, client)
}

/// Reads until the answer `hello` is there.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(b"hello") {
            let mut part = [0; 1024];
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&part[..n]);
        }
    };
    timeout(LONG, read).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Waits until the server has closed the connection, in either way.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
}

#[tokio::test]
async fn headers_that_do_not_come_end_the_connection() {
    let header_timeout = Duration::from_millis(100);
    let options = HttpOptions {
        header_timeout,
        ..options()
    };
    let (_server, address) = serve(options, quick()).await;
    for sent in [b"", HALF_A_REQUEST] {
        closed(&mut client(address, sent).await).await;
    }
    // After an answer, too: silence holds no place for ever.
    let mut client = client(address, REQUEST).await;
    answer(&mut client).await;
    closed(&mut client).await;
}

#[tokio::test]
async fn a_handler_may_take_longer_than_headers_may() {
    let options = HttpOptions {
        header_timeout: Duration::from_millis(50),
        ..options()
    };
    let (_server, _, handler, mut client) = begun(options).await;
    sleep(Duration::from_millis(150)).await;
    handler.go_on.notify_one();
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let options = HttpOptions {
        connections_max: 1,
        ..options()
    };
    let (_server, address) = serve(options, quick()).await;
    let mut first = client(address, REQUEST).await;
    answer(&mut first).await;
    let mut second = client(address, REQUEST).await;
    // As many turns as the second would need, and many more.
    for _ in 0..50 {
        first.write_all(REQUEST).await.unwrap();
        answer(&mut first).await;
    }
    let early = second.try_read(&mut [0; 1]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    answer(&mut second).await;
}

#[tokio::test]
async fn a_stop_answers_what_was_begun_and_takes_nothing_new() {
    let (server, address, handler, mut client) = begun(options()).await;
    server.stop();
    // Longer than what a connection without a request gets.
    let early = timeout(LAST_WORDS * 2, server.tasks.wait()).await;
    assert!(early.is_err(), "the request is not answered yet");
    handler.go_on.notify_one();
    let text = answer(&mut client).await;
    assert!(text.contains("connection: close"), "{text}");
    closed(&mut client).await;
    assert!(server.ended_by(Instant::now() + LONG).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_neither_for_slow_headers_nor_for_idle_clients() {
    let (server, address) = serve(options(), quick()).await;
    let mut idle = client(address, REQUEST).await;
    answer(&mut idle).await;
    let silent = client(address, b"").await;
    let mut slow = client(address, HALF_A_REQUEST).await;
    // The others were accepted before this one is answered.
    let mut last = client(address, REQUEST).await;
    answer(&mut last).await;

    let began = Instant::now();
    server.stop();
    assert!(server.ended_by(began + LONG / 2).await);
    closed(&mut slow).await;
    drop(silent);
}

#[tokio::test]
async fn what_a_stop_does_not_wait_for_is_cut() {
    let (server, _, _handler, mut client) = begun(options()).await;
    server.stop();
    assert!(!server.ended_by(Instant::now()).await);
    closed(&mut client).await;
    assert!(server.ended_by(Instant::now() + LONG).await);
}
