//! Goal: the binary that users run cannot be made to trust a network that is not WhatsApp's.
//! Method: point the production build at the simulated network and ask it to link.

use serde_json::json;
use wagate_e2e::{Harness, Setup};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the production binary"]
#[expect(
    clippy::disallowed_methods,
    reason = "xtask says where the production binary is"
)]
async fn the_production_build_refuses_to_link_to_the_simulated_network() {
    let binary = std::env::var("WAGATE_PRODUCTION_BINARY").expect("run it by `cargo xtask test`");
    let harness = Harness::start(&binary, Setup::default()).await.unwrap();
    harness
        .client()
        .post("/api/v1/sessions", &json!({ "id": "refused" }))
        .await
        .unwrap();
    // The answer may come before the refusal is known; the state is what counts.
    let _answer = harness
        .client()
        .post(
            "/api/v1/sessions/refused/connect",
            &json!({ "method": "qr" }),
        )
        .await;
    let status = harness.until_session("refused", "error").await.unwrap();
    assert_eq!(status["reason"]["code"], "untrusted_server", "{status}");
    assert!(
        status["qrString"].is_null(),
        "no QR code of a foreign network: {status}"
    );
}
