//! The dialects `whatsapp` and `instance`: the bodies and answers of `/api/whatsapp/…` and of the count
//! of the queues.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Gateway, OWN, PEER};

#[tokio::test]
async fn a_text_is_queued_and_the_answer_comes_at_once() {
    let gateway = Gateway::start().await;
    gateway.connected("only").await;
    let body = json!({ "number": PEER, "message": "Hello", "priority": "high" });
    let answer = gateway.post("/api/whatsapp/send-message", body).await;
    answer.is(StatusCode::ACCEPTED);
    let id = answer.data()["id"].as_str().unwrap();
    let data = json!({
        "id": id, "messageId": id, "sessionId": "only", "chatId": format!("{PEER}@c.us"),
        "message": "Hello", "status": "waiting", "priority": "high", "attempts": 0,
        "createdAt": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.json, json!({ "success": true, "data": data }));
    let wrong = json!({ "to": "12", "message": "x" });
    let answer = gateway.post("/api/whatsapp/send-message", wrong).await;
    answer.fails(400, "invalid_recipient").names("to");
    let wrong = json!({ "to": PEER, "message": "x", "priority": "HIGHEST" });
    let answer = gateway.post("/api/whatsapp/send-message", wrong).await;
    answer.fails(422, "invalid_field").names("priority");
}

#[tokio::test]
async fn the_session_may_be_left_out_where_there_is_one_only() {
    let gateway = Gateway::start().await;
    let status = gateway.get("/api/whatsapp/status").await;
    status.fails(404, "session_not_found");
    gateway.connected("first").await;
    let status = gateway.get("/api/whatsapp/status").await;
    assert_eq!(status.data()["sessionId"], "first");
    gateway.connected("second").await;
    let status = gateway.get("/api/whatsapp/status").await;
    status.fails(409, "session_ambiguous");
    let body = json!({ "to": PEER, "message": "x" });
    let answer = gateway.post("/api/whatsapp/send-message", body).await;
    answer.fails(409, "session_ambiguous");
    let status = gateway.get("/api/whatsapp/status?sessionId=second").await;
    assert_eq!(status.data()["sessionId"], "second");
    let body = json!({ "to": PEER, "message": "x", "sessionId": "second" });
    let answer = gateway.post("/api/whatsapp/send-message", body).await;
    answer.is(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_status_and_the_queue_are_told_and_changed() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("only").await;
    let send = || {
        gateway.post(
            "/api/whatsapp/send-message",
            json!({ "to": PEER, "text": "x" }),
        )
    };
    for _ in 0..3 {
        send().await.is(StatusCode::ACCEPTED);
    }
    hand.send_all().await;
    send().await;
    hand.fail_all("timeout").await;
    send().await;
    let answer = gateway
        .post("/api/whatsapp/queue/config", json!({ "concurrency": 5 }))
        .await;
    assert_eq!(answer.data()["concurrency"], 5);
    for wrong in [json!({ "concurrency": 99 }), json!({})] {
        let answer = gateway.post("/api/whatsapp/queue/config", wrong).await;
        answer.fails(422, "invalid_field").names("concurrency");
    }
    let status = gateway.get("/api/whatsapp/status").await;
    assert_eq!(
        *status.data(),
        json!({
            "sessionId": "only", "status": "connected", "connected": true,
            "phoneNumber": format!("+{OWN}"), "queueStatus": "processing", "activeJobs": 0,
            "concurrency": 5, "pendingJobs": 1, "completedJobs": 3, "failedJobs": 1,
            "successRate": 75.0,
        })
    );
    let counts = gateway.get("/api/admin/queue-stats").await;
    let want = json!({ "waiting": 1, "active": 0, "completed": 3, "failed": 1, "delayed": 0 });
    assert_eq!(*counts.data(), want);
    let jobs = gateway.get("/api/whatsapp/retry-queue").await;
    assert_eq!(jobs.data()["retrying"], json!([]));
    assert_eq!(jobs.data()["failed"][0]["status"], "failed");
    assert_eq!(jobs.data()["failed"][0]["error"], "for a test");
    let cleared = gateway
        .request("POST", "/api/whatsapp/queue/clear")
        .go()
        .await;
    assert_eq!(cleared.data()["count"], 1);
    let body = json!({ "status": "failed" });
    let cleared = gateway.post("/api/whatsapp/queue/clear", body).await;
    assert_eq!(cleared.data()["count"], 1);
    let status = gateway.get("/api/whatsapp/status").await;
    assert_eq!(status.data()["pendingJobs"], 0);
    assert_eq!(status.data()["failedJobs"], 0);
    assert_eq!(status.data()["successRate"], 100.0);
    let wrong = json!({ "status": "unknown" });
    let answer = gateway.post("/api/whatsapp/queue/clear", wrong).await;
    answer.fails(422, "invalid_field").names("status");
}

#[tokio::test]
async fn the_dialects_can_be_switched_off() {
    let gateway = Gateway::with(|options| {
        options.whatsapp_dialect = false;
        options.instance_dialect = false;
    })
    .await;
    for path in ["/api/whatsapp/status", "/api/admin/queue-stats"] {
        gateway.get(path).await.fails(404, "not_found");
    }
    let listed = gateway.get("/api/v1/queue").await;
    assert_eq!(listed.json["data"], Value::Array(Vec::new()));
}
