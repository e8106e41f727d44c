//! The dialect `worker`: the bodies and answers of `/api/session/…`, exactly, and its token.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, OWN, PEER};

async fn post(gateway: &Gateway, path: &str, body: Value) -> Answer {
    gateway.worker_request("POST", path).json(&body).go().await
}

#[tokio::test]
async fn a_session_goes_from_its_creation_to_its_end() {
    let gateway = Gateway::start().await;
    let body = json!({
        "sessionId": "user123-personal", "userId": "user123", "sessionName": "Personal WhatsApp",
    });
    let made = post(&gateway, "/api/session/create", body.clone()).await;
    made.is(StatusCode::CREATED);
    let data = json!({ "sessionId": "user123-personal", "status": "initializing" });
    let initializing = json!({ "success": true, "data": data });
    assert_eq!(made.json, initializing);
    post(&gateway, "/api/session/create", body)
        .await
        .fails(409, "session_exists");

    let hand = gateway.hand("user123-personal").await;
    hand.show_qr("1@ABC123XYZ").await;
    let path = "/api/session/user123-personal";
    let status = gateway
        .worker_request("GET", &format!("{path}/status"))
        .go()
        .await;
    assert_eq!(status.data()["status"], "qr_required");
    assert_eq!(status.data()["qrString"], "1@ABC123XYZ");
    assert!(
        status.data()["qrCode"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    hand.link().await;
    let status = gateway
        .worker_request("GET", &format!("{path}/status"))
        .go()
        .await;
    assert_eq!(
        *status.data(),
        json!({
            "sessionId": "user123-personal", "status": "connected",
            "phoneNumber": format!("+{OWN}"), "lastActivity": "2026-11-21T08:00:00.000Z",
            "userId": "user123", "sessionName": "Personal WhatsApp",
        })
    );

    hand.keep_working();
    let answer = gateway
        .worker_request("POST", &format!("{path}/restart"))
        .go()
        .await;
    assert_eq!(answer.json, initializing);
    for (method, path, message) in [
        ("POST", format!("{path}/disconnect"), "Session disconnected"),
        (
            "POST",
            format!("{path}/logout"),
            "Session logged out successfully",
        ),
        ("DELETE", path.to_owned(), "Session deleted successfully"),
    ] {
        let answer = gateway.worker_request(method, &path).go().await;
        answer.is(StatusCode::OK);
        assert_eq!(answer.json, json!({ "success": true, "message": message }));
    }
    let gone = gateway
        .worker_request("GET", &format!("{path}/status"))
        .go()
        .await;
    gone.fails(404, "session_not_found");
}

#[tokio::test]
async fn creating_needs_both_ids_and_starting_is_repeatable() {
    let gateway = Gateway::start().await;
    for (body, path) in [
        (json!({ "userId": "u" }), "sessionId"),
        (json!({ "sessionId": "s" }), "userId"),
        (json!({ "sessionId": "a b", "userId": "u" }), "sessionId"),
        (
            json!({ "sessionId": "s", "userId": "u", "extra": 1 }),
            "extra",
        ),
    ] {
        let answer = post(&gateway, "/api/session/create", body).await;
        answer.fails(422, "invalid_field").names(path);
    }
    let body = json!({ "sessionId": "s" });
    let first = post(&gateway, "/api/session/start", body.clone()).await;
    first.is(StatusCode::CREATED);
    let again = post(&gateway, "/api/session/start", body).await;
    again.is(StatusCode::OK);
    assert_eq!(again.json, first.json);
}

#[tokio::test]
async fn a_text_is_sent_by_both_paths() {
    let gateway = Gateway::start().await;
    // The worker token acts for the first tenant, whose key made this session.
    gateway.connected("s").await.keep_working();
    let body = json!({ "to": PEER, "type": "text", "message": "Hello World!" });
    let answer = post(&gateway, "/api/session/s/send", body.clone()).await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.data()["status"], "sent");
    assert!(
        answer.data()["messageId"]
            .as_str()
            .unwrap()
            .starts_with("msg_")
    );
    assert_eq!(answer.data()["timestamp"], "2026-11-21T08:00:00.000Z");

    post(&gateway, "/message/send", body.clone())
        .await
        .fails(422, "invalid_field")
        .names("sessionId");
    let mut named = body;
    named["sessionId"] = json!("s");
    let answer = post(&gateway, "/message/send", named).await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.data()["sessionId"], "s");

    let listed = gateway
        .worker_request("GET", "/api/session/s/messages?limit=50&offset=0")
        .go()
        .await;
    listed.is(StatusCode::OK);
    assert_eq!(listed.data()["total"], 2);
    assert_eq!(listed.data()["hasMore"], false);
    let message = &listed.data()["messages"][0];
    assert_eq!(message["direction"], "outbound");
    assert_eq!(message["from"], format!("{OWN}@s.whatsapp.net"));
    assert_eq!(message["to"], format!("{PEER}@s.whatsapp.net"));
    assert_eq!(message["type"], "text");
    assert_eq!(message["content"], "Hello World!");
    assert_eq!(message["status"], "sent");
}

#[tokio::test]
async fn info_says_what_the_worker_is() {
    let gateway = Gateway::start().await;
    for path in ["/info", "/api/info"] {
        let answer = gateway.worker_request("GET", path).go().await;
        answer.is(StatusCode::OK);
        let data = json!({
            "workerId": "worker-001", "version": env!("CARGO_PKG_VERSION"), "environment": "test",
            "capabilities": ["text"], "baileys_version": null,
        });
        assert_eq!(answer.json, json!({ "success": true, "data": data }));
    }
}

#[tokio::test]
async fn only_the_worker_token_opens_the_workers_routes() {
    let gateway = Gateway::start().await;
    let bearer = format!("Bearer {}", gateway.key);
    for value in [
        "Bearer",
        "Bearer ",
        "Bearer worker-secret-toke",
        "worker-secret-token",
        &bearer,
    ] {
        let answer = gateway
            .anonymous("GET", "/info")
            .header("authorization", value)
            .go()
            .await;
        answer.fails(401, "unauthorized");
    }
    gateway
        .request("GET", "/info")
        .go()
        .await
        .fails(401, "unauthorized");
    let closed = Gateway::with(|options| options.worker_token = None).await;
    for value in ["Bearer", "Bearer "] {
        let answer = closed
            .anonymous("GET", "/info")
            .header("authorization", value)
            .go()
            .await;
        answer.fails(401, "unauthorized");
    }
    let off = Gateway::with(|options| options.worker_dialect = false).await;
    off.worker_request("GET", "/info")
        .go()
        .await
        .fails(404, "not_found");
}
