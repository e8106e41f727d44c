//! Goal: the binary that users run cannot be made to trust a network that is not WhatsApp's.
//! Method: point the production build at the simulated network and ask it to link.

use serde_json::json;
use wagate_e2e::{Harness, Setup};

use crate::support::OWNER;

#[expect(
    clippy::disallowed_methods,
    reason = "xtask says where the production binary is"
)]
fn binary() -> String {
    std::env::var("WAGATE_PRODUCTION_BINARY").expect("run it by `cargo xtask test`")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the production binary"]
async fn the_production_build_refuses_to_link_to_the_simulated_network() {
    let harness = Harness::start(&binary(), Setup::default()).await.unwrap();
    harness.account(OWNER, "Ayu").unwrap();
    for (session, connect) in [
        ("by-qr", json!({ "method": "qr" })),
        (
            "by-code",
            json!({ "method": "code", "phone_number": OWNER }),
        ),
    ] {
        harness
            .client()
            .post("/api/v1/sessions", &json!({ "id": session }))
            .await
            .unwrap();
        let path = format!("/api/v1/sessions/{session}/connect");
        let answer = harness.client().post(&path, &connect).await;
        // The answer may come before the refusal is known; a challenge it never holds.
        let answer = answer.map_or_else(|refused| refused.to_string(), |a| a.body.to_string());
        assert!(!answer.contains("data:image"), "{answer}");
        assert!(!answer.contains("pairingCode\":\""), "{answer}");
        let status = harness.until_session(session, "error").await.unwrap();
        assert_eq!(status["linkState"], "link_failed", "{status}");
        assert_eq!(status["reason"]["code"], "certificate_refused", "{status}");
        let reason = status["reason"]["text"].as_str().unwrap();
        assert!(
            reason.contains("the other side is not WhatsApp"),
            "{reason}"
        );
        assert_eq!(status["linked"], false);
        let qr = format!("/api/v1/sessions/{session}/qr");
        let refused = harness.client().get(&qr).await.unwrap_err();
        assert_eq!(refused.status(), Some(409), "{refused}");
    }
    let events = harness.events().await.unwrap();
    let shown = serde_json::to_string(&events).unwrap();
    assert!(!shown.contains("qrString"), "{shown}");
    // Nobody logged in and nobody was registered: not a stanza got past the handshake.
    assert_eq!(harness.network.counters().registrations, 0);
}
