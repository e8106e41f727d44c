//! Log lines: one a request, with what an operator needs and nothing that belongs to a person.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use serde_json::json;

use crate::support::{Gateway, WORKER_TOKEN};

/// Where the log goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_one_line_without_numbers_texts_or_keys() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let gateway = Gateway::start().await;
    gateway.connected("6281999999999").await;
    lines.0.lock().unwrap().clear();
    let body = json!({ "to": "+6282888888888", "text": "a private word", "wait": 0 });
    let call = gateway
        .request("POST", "/api/v1/sessions/6281999999999/messages")
        .json(&body);
    call.header("x-request-id", "find-me")
        .go()
        .await
        .is(StatusCode::ACCEPTED);
    gateway
        .worker_request("GET", "/nothing/6282888888888?key=secret")
        .go()
        .await;
    gateway
        .post("/api/v1/sessions/none/messages", json!({ "to": "nobody" }))
        .await;

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(log.contains("request.id=\"find-me\""), "{log}");
    assert!(
        log.contains("http.route=\"/api/v1/sessions/{session}/messages\""),
        "{log}"
    );
    assert!(log.contains("http.status=202"), "{log}");
    assert!(log.contains("error.code=\"invalid_field\""), "{log}");
    for secret in [
        "6281999999999",
        "6282888888888",
        "private",
        "nobody",
        "secret",
        &gateway.key,
        WORKER_TOKEN,
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
