//! The dialect `gateway`: the bodies and answers of `/api/sessions/…`, exactly.

use http::StatusCode;
use serde_json::json;

use crate::support::{Gateway, OWN, PEER};

#[tokio::test]
async fn a_session_is_created_shows_its_qr_code_and_connects() {
    let gateway = Gateway::start().await;
    let body = json!({ "sessionId": "user123-personal", "userId": "user123" });
    let made = gateway.post("/api/sessions", body).await;
    made.is(StatusCode::CREATED);
    let data = json!({ "sessionId": "user123-personal", "status": "initializing" });
    assert_eq!(made.json, json!({ "success": true, "data": data }));

    let hand = gateway.hand("user123-personal").await;
    hand.show_qr("2@abc").await;
    let status = gateway.get("/api/sessions/user123-personal/status").await;
    status.is(StatusCode::OK);
    assert_eq!(status.data()["status"], "qr_required");
    assert_eq!(status.data()["qrString"], "2@abc");
    assert!(
        status.data()["qrCode"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let qr = gateway.get("/api/sessions/user123-personal/qr").await;
    assert_eq!(qr.data()["qrString"], "2@abc");

    hand.link().await;
    let status = gateway.get("/api/sessions/user123-personal/status").await;
    assert_eq!(
        *status.data(),
        json!({
            "sessionId": "user123-personal", "status": "connected",
            "phoneNumber": format!("+{OWN}"), "lastActivity": "2026-11-21T08:00:00.000Z",
            "userId": "user123",
            "counters": { "queued": 0, "sent": 0, "delivered": 0, "read": 0, "failed": 0, "received": 0 },
        })
    );
    let listed = gateway.get("/api/sessions").await;
    assert_eq!(listed.json["data"][0]["sessionId"], "user123-personal");
}

#[tokio::test]
async fn a_session_is_restarted_disconnected_logged_out_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.connected("user123-personal").await.keep_working();
    let restarted = gateway
        .request("POST", "/api/sessions/user123-personal/restart")
        .go()
        .await;
    restarted.is(StatusCode::OK);
    let data = json!({ "sessionId": "user123-personal", "status": "initializing" });
    assert_eq!(restarted.json, json!({ "success": true, "data": data }));
    let answer = gateway
        .request("POST", "/api/sessions/user123-personal/disconnect")
        .go()
        .await;
    answer.is(StatusCode::OK);
    let data = json!({ "sessionId": "user123-personal", "status": "disconnected" });
    let want = json!({ "success": true, "data": data, "message": "Session disconnected" });
    assert_eq!(answer.json, want);
    let answer = gateway
        .post("/api/sessions/user123-personal/connect", json!({}))
        .await;
    assert_eq!(answer.data()["status"], "connected");
    let answer = gateway
        .request("POST", "/api/sessions/user123-personal/logout")
        .go()
        .await;
    let data = json!({ "sessionId": "user123-personal", "status": "logged_out" });
    let message = "Session logged out successfully";
    assert_eq!(
        answer.json,
        json!({ "success": true, "data": data, "message": message })
    );
    let answer = gateway
        .request("DELETE", "/api/sessions/user123-personal")
        .go()
        .await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.json["message"], "Session deleted successfully");
    gateway
        .get("/api/sessions/user123-personal")
        .await
        .fails(404, "session_not_found");
}

#[tokio::test]
async fn a_text_is_sent_with_the_documented_body_and_answer() {
    let gateway = Gateway::start().await;
    gateway.connected("user123-personal").await.keep_working();
    let path = "/api/sessions/user123-personal/send";
    let to = format!("{PEER}@s.whatsapp.net");
    let body = json!({ "to": to, "type": "text", "message": "Hello World!" });
    let call = gateway.anonymous("POST", path).json(&body);
    let answer = call
        .header("authorization", &format!("Bearer {}", gateway.key))
        .go()
        .await;
    answer.is(StatusCode::OK);
    let id = answer.data()["messageId"].as_str().unwrap();
    let data = json!({
        "messageId": id, "status": "sent", "sessionId": "user123-personal",
        "timestamp": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.json, json!({ "success": true, "data": data }));

    let image = json!({
        "to": to, "type": "image", "media": "data:image/png;base64,iVBORw0KGgo=",
        "caption": "Check this image!",
    });
    gateway
        .post(path, image)
        .await
        .fails(422, "unsupported_type")
        .names("type");
}

#[tokio::test]
async fn messages_are_paged_by_offset_and_by_cursor() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    for n in 0..3 {
        let body = json!({ "to": PEER, "message": format!("m{n}"), "wait": 0 });
        let answer = gateway.post("/api/sessions/s/send", body).await;
        answer.is(StatusCode::ACCEPTED);
        assert_eq!(answer.data()["status"], "queued");
    }
    hand.receive("IN1", "hi").await;
    let first = gateway
        .get("/api/sessions/s/messages?limit=3&offset=0")
        .await;
    first.is(StatusCode::OK);
    assert_eq!(first.data()["total"], 4);
    assert_eq!(first.data()["hasMore"], true);
    assert_eq!(first.data()["messages"].as_array().unwrap().len(), 3);
    let next = first.data()["nextCursor"].as_str().unwrap();
    let by_offset = gateway
        .get("/api/sessions/s/messages?limit=3&offset=3")
        .await;
    let by_cursor = gateway
        .get(&format!("/api/sessions/s/messages?limit=3&cursor={next}"))
        .await;
    assert_eq!(by_offset.data(), by_cursor.data());
    assert_eq!(by_offset.data()["hasMore"], false);
    for (bad, path) in [
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("cursor=a&offset=1", "cursor"),
        ("cursor=xyz", "cursor"),
        ("limits=3", "limits"),
    ] {
        let answer = gateway
            .get(&format!("/api/sessions/s/messages?{bad}"))
            .await;
        answer.fails(422, "invalid_field").names(path);
    }
}

#[tokio::test]
async fn the_dialect_can_be_switched_off() {
    let gateway = Gateway::with(|options| options.gateway_dialect = false).await;
    gateway.get("/api/sessions").await.fails(404, "not_found");
    gateway.get("/api/v1/sessions").await.is(StatusCode::OK);
}
