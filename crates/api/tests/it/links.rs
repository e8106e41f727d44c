//! Linking: QR codes in every form, pairing codes, and waits that end.

use http::StatusCode;
use serde_json::json;
use wagate_domain::session::LinkReason;
use wagate_domain::{Clock as _, LinkChallenge, LinkState};

use crate::support::{Gateway, Hand, qr};

const FIRST: &str = "2@first,AAAA,BBBB,CCCC";
const SECOND: &str = "2@second,AAAA,BBBB,CCCC";

/// A session that has asked for a link, and its worker.
async fn asked<'g>(gateway: &'g Gateway, body: serde_json::Value) -> Hand<'g> {
    gateway
        .post("/api/v1/sessions", json!({ "id": "s" }))
        .await
        .is(StatusCode::CREATED);
    let path = "/api/v1/sessions/s/connect?wait=0";
    let answer = gateway.post(path, body).await;
    answer.is(StatusCode::ACCEPTED);
    assert_eq!(answer.data()["status"], "initializing");
    gateway.hand("s").await
}

#[tokio::test]
async fn connecting_answers_with_the_qr_code_and_a_second_call_shows_the_same() {
    let gateway = Gateway::start().await;
    let hand = asked(&gateway, json!({ "method": "qr" })).await;
    let connect = gateway.request("POST", "/api/v1/sessions/s/connect?wait=30");
    let (answer, ()) = tokio::join!(connect.go(), hand.show_qr(FIRST));
    answer.is(StatusCode::OK);
    let data = answer.data();
    assert_eq!(data["sessionId"], "s");
    assert_eq!(data["status"], "qr_required");
    assert_eq!(data["qrString"], FIRST);
    assert_eq!(data["expiresAt"], "2026-11-21T08:00:20.000Z");
    assert!(
        data["qrCode"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,iVBOR")
    );

    let again = gateway.post("/api/v1/sessions/s/connect", json!({})).await;
    assert_eq!(again.data(), answer.data());
    let status = gateway.get("/api/v1/sessions/s/status").await;
    assert_eq!(status.data()["qrString"], FIRST);
}

#[tokio::test]
async fn the_newest_qr_code_is_shown_in_every_form_until_it_expires() {
    let gateway = Gateway::start().await;
    let hand = asked(&gateway, json!({})).await;
    gateway
        .get("/api/v1/sessions/s/qr")
        .await
        .fails(409, "qr_not_available");
    let waiting = gateway.request("GET", "/api/v1/sessions/s/qr?wait=30");
    let (answer, ()) = tokio::join!(waiting.go(), hand.show_qr(FIRST));
    answer.is(StatusCode::OK);
    assert_eq!(answer.data()["qrString"], FIRST);

    hand.show_qr(SECOND).await;
    let rotated = gateway.get("/api/v1/sessions/s/qr").await;
    assert_eq!(rotated.data()["qrString"], SECOND);

    let png = gateway.get("/api/v1/sessions/s/qr?format=png").await;
    png.is(StatusCode::OK);
    assert_eq!(png.header("content-type"), "image/png");
    assert_eq!(png.header("cache-control"), "no-store");
    assert_eq!(png.bytes[..4], *b"\x89PNG");
    let svg = gateway.get("/api/v1/sessions/s/qr?format=svg").await;
    assert_eq!(svg.header("content-type"), "image/svg+xml");
    assert!(String::from_utf8_lossy(&svg.bytes).contains("<svg"));
    let text = gateway.get("/api/v1/sessions/s/qr?format=text").await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(String::from_utf8_lossy(&text.bytes).contains('█'));
    let bad = gateway.get("/api/v1/sessions/s/qr?format=gif").await;
    bad.fails(422, "invalid_field");

    gateway.clock.advance(std::time::Duration::from_secs(21));
    gateway
        .get("/api/v1/sessions/s/qr")
        .await
        .fails(409, "qr_not_available");
    hand.link().await;
    gateway
        .get("/api/v1/sessions/s/qr?wait=30")
        .await
        .fails(409, "qr_not_available");
}

#[tokio::test]
async fn a_pairing_code_comes_with_its_end_and_belongs_to_its_number() {
    let gateway = Gateway::start().await;
    let body = json!({ "method": "code", "phone_number": "+62 812-3456-7890", "wait": 0 });
    let hand = asked(&gateway, body).await;
    let expires_at = gateway
        .clock
        .now()
        .plus(std::time::Duration::from_secs(180));
    let code = LinkChallenge::Code {
        code: "ABCD1234".to_owned(),
        expires_at,
    };
    let body = json!({ "method": "code", "phoneNumber": "6281234567890", "wait": 30 });
    let connect = gateway
        .request("POST", "/api/v1/sessions/s/connect")
        .json(&body);
    let (answer, ()) = tokio::join!(connect.go(), hand.challenge(code));
    answer.is(StatusCode::OK);
    assert_eq!(answer.data()["status"], "pairing");
    assert_eq!(answer.data()["pairingCode"], "ABCD1234");
    assert_eq!(answer.data()["expiresAt"], "2026-11-21T08:03:00.000Z");
    gateway
        .get("/api/v1/sessions/s/qr")
        .await
        .fails(409, "qr_not_available");

    // Another number needs another code, which no worker makes here.
    let other = json!({ "method": "code", "phone_number": "6289876543210" });
    let answer = gateway.post("/api/v1/sessions/s/connect", other).await;
    answer.fails(503, "link_timeout");
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn a_link_that_whatsapp_refuses_is_a_failure_with_its_reason() {
    let gateway = Gateway::start().await;
    let hand = asked(&gateway, json!({})).await;
    hand.state(LinkState::Connecting).await;
    let connect = gateway.request("POST", "/api/v1/sessions/s/connect?wait=30");
    let mut connect = std::pin::pin!(connect.go());
    let mut tries = 0;
    // A request that comes after the failure has the session try again, and hears of the next one.
    let answer = loop {
        tries += 1;
        let text = format!("nobody scanned QR code {tries} in time");
        let reason = LinkReason::new("link_expired", text);
        tokio::select! {
            answer = &mut connect => break answer,
            () = hand.state(LinkState::LinkFailed { reason }) => {}
        }
    };
    answer.fails(409, "link_failed");
    let error = answer.json["error"].as_str().unwrap();
    assert!(error.starts_with("nobody scanned QR code "), "{error}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_its_field() {
    let gateway = Gateway::start().await;
    gateway
        .post("/api/v1/sessions", json!({ "id": "s" }))
        .await
        .is(StatusCode::CREATED);
    for (body, path) in [
        (json!({ "method": "code" }), "phone_number"),
        (
            json!({ "method": "code", "phone_number": "12" }),
            "phone_number",
        ),
        (
            json!({ "method": "qr", "phone_number": "6281234567890" }),
            "phone_number",
        ),
        (json!({ "method": "sms" }), "method"),
        (json!({ "wait": 61 }), "wait"),
        (json!({ "wait": -1 }), "wait"),
        (json!({ "methode": "qr" }), "methode"),
    ] {
        let answer = gateway.post("/api/v1/sessions/s/connect", body).await;
        answer.fails(422, "invalid_field").names(path);
    }
    let answer = gateway
        .post("/api/v1/sessions/nobody/connect", json!({}))
        .await;
    answer.fails(404, "session_not_found");
}

#[tokio::test]
async fn a_linked_session_takes_no_pairing_code_and_stays_connected() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let body = json!({ "method": "code", "phone_number": "6281234567890" });
    let answer = gateway.post("/api/v1/sessions/s/connect", body).await;
    answer.fails(409, "session_already_linked");
    let answer = gateway.post("/api/v1/sessions/s/connect", json!({})).await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.data()["status"], "connected");
    let challenge = qr(FIRST, gateway.clock.now());
    assert!(matches!(challenge, LinkChallenge::Qr { .. }));
}
