//! Goal: linking by QR and by code works, and each way it can end becomes a state with a reason.
//! Method: ask through HTTP for a challenge, answer it (or not) with a simulated phone.

use serde_json::json;

use crate::support::{OWNER, harness, harness_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_code_links_the_number() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness
        .client()
        .post("/api/v1/sessions", &json!({ "id": "coded" }))
        .await
        .unwrap();
    let answer = harness
        .client()
        .post(
            "/api/v1/sessions/coded/connect",
            &json!({ "method": "code", "phone_number": OWNER }),
        )
        .await
        .unwrap();
    let code = answer.data()["pairingCode"].as_str().unwrap().to_owned();
    assert_eq!(code.replace('-', "").len(), 8);
    assert!(answer.data()["expiresAt"].is_string());
    owner.enter_code(&code).await.unwrap();
    let status = harness.until_session("coded", "connected").await.unwrap();
    assert_eq!(status["phoneNumber"], OWNER);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_qr_code_is_there_in_every_form() {
    let harness = harness().await;
    harness
        .client()
        .post("/api/v1/sessions", &json!({ "id": "shown" }))
        .await
        .unwrap();
    harness
        .client()
        .post("/api/v1/sessions/shown/connect", &json!({ "method": "qr" }))
        .await
        .unwrap();
    let qr = harness
        .client()
        .get("/api/v1/sessions/shown/qr")
        .await
        .unwrap();
    assert!(qr.data()["qrString"].as_str().unwrap().contains(','));
    assert!(
        qr.data()["qrCode"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let svg = harness
        .client()
        .text("/api/v1/sessions/shown/qr?format=svg")
        .await
        .unwrap();
    assert!(svg.contains("<svg"), "{svg}");
    let drawn = harness
        .client()
        .text("/api/v1/sessions/shown/qr?format=text")
        .await
        .unwrap();
    assert!(drawn.lines().count() > 20, "{drawn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qr_code_that_nobody_scans_ends_with_a_reason() {
    let harness = harness_with(&[("WAGATE_WORKER__LINK_TIMEOUT", "2s")]).await;
    harness
        .client()
        .post("/api/v1/sessions", &json!({ "id": "alone" }))
        .await
        .unwrap();
    harness
        .client()
        .post("/api/v1/sessions/alone/connect", &json!({ "method": "qr" }))
        .await
        .unwrap();
    let status = harness.until_session("alone", "error").await.unwrap();
    assert_eq!(status["linkState"], "link_failed");
    assert!(status["reason"]["code"].is_string(), "{status}");
    // And it can be asked for again.
    harness
        .client()
        .post("/api/v1/sessions/alone/connect", &json!({ "method": "qr" }))
        .await
        .unwrap();
    harness.until_session("alone", "qr_required").await.unwrap();
}
