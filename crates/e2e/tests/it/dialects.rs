//! Goal: the gateway's and the worker's older API shapes do the same work.
//! Method: the bodies of their documents, word for word, against a linked session.

use serde_json::{Value, json};
use wagate::client::Client;
use wagate_e2e::Harness;
use wagate_network::handle::PhoneHandle;

use crate::support::{FRIEND, OWNER, harness, harness_with};

const TOKEN: &str = "worker-secret-token-for-the-tests";

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_dialect_sends_and_lists() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("user123-personal", &owner).await.unwrap();
    let answer = harness
        .client()
        .post(
            "/api/sessions/user123-personal/send",
            &json!({
                "to": "6281200000002@s.whatsapp.net",
                "type": "text",
                "message": "Hello from API!"
            }),
        )
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["success"], true);
    assert_eq!(answer.data()["status"], "sent");
    assert_eq!(answer.data()["sessionId"], "user123-personal");
    assert!(answer.data()["timestamp"].is_string());
    friend.expect_text("Hello from API!").await.unwrap();
    let listed = harness
        .client()
        .get("/api/sessions/user123-personal/messages?limit=10")
        .await
        .unwrap();
    assert_eq!(listed.body["success"], true);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_dialect_links_sends_and_ends() {
    let harness = harness_with(&[("WAGATE_SECURITY__WORKER_TOKEN", TOKEN)]).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let worker = harness.client().with_key(TOKEN);
    let created = worker
        .post(
            "/api/session/create",
            &json!({
                "sessionId": "user123-personal",
                "userId": "user123",
                "sessionName": "Personal WhatsApp"
            }),
        )
        .await
        .unwrap();
    assert_eq!(created.data()["status"], "initializing");
    scan(&harness, &worker, &owner).await;

    let sent = worker
        .post(
            "/api/session/user123-personal/send",
            &json!({ "to": "6281200000002", "type": "text", "message": "Hello World!" }),
        )
        .await
        .unwrap();
    assert_eq!(sent.data()["status"], "sent");
    friend.expect_text("Hello World!").await.unwrap();
    let health = worker.get("/health").await.unwrap();
    assert_eq!(health.data()["status"], "online");
    assert_eq!(health.data()["sessionCount"], 1);
    let info = worker.get("/info").await.unwrap();
    assert!(
        info.data()["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("text"))
    );

    let ended = worker
        .post("/api/session/user123-personal/logout", &json!({}))
        .await
        .unwrap();
    assert_eq!(ended.body["message"], "Session logged out successfully");
    let deleted = worker
        .delete("/api/session/user123-personal")
        .await
        .unwrap();
    assert_eq!(deleted.body["message"], "Session deleted successfully");
    harness.check().unwrap();
}

/// Waits for the QR code in the worker's status, scans it, waits until it is connected.
async fn scan(harness: &Harness, worker: &Client, owner: &PhoneHandle) {
    let status = |wanted: &'static str| {
        harness.until(wanted, move || async move {
            let answer = worker.get("/api/session/user123-personal/status").await?;
            Ok((answer.data()["status"] == wanted, answer.data().clone()))
        })
    };
    let waiting: Value = status("qr_required").await.unwrap();
    assert!(
        waiting["qrCode"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    owner
        .scan(waiting["qrString"].as_str().unwrap())
        .await
        .unwrap();
    let connected = status("connected").await.unwrap();
    assert_eq!(connected["phoneNumber"], OWNER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_worker_token_is_refused() {
    let harness = harness_with(&[("WAGATE_SECURITY__WORKER_TOKEN", TOKEN)]).await;
    let stranger = harness
        .client()
        .with_key("worker-secret-token-of-somebody-else");
    let refused = stranger.get("/info").await.unwrap_err();
    assert_eq!(refused.status(), Some(401));
}
