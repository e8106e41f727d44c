//! The production build against a server that is not WhatsApp: it refuses to link, and says why.
#![cfg(not(feature = "unsafe-sandbox"))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "support/harness.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests against the simulated network"
)]
mod harness;

use wagate_engine::{Ended, EngineError, EngineEvent};

use harness::Harness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_root_is_refused_with_a_clear_reason() {
    let harness = Harness::start().await;
    let lease = harness.session().await;
    let mut companion = harness.open(&lease).await;
    let ended = companion.ended().await;
    let Ended::RefusedCertificate { reason } = ended else {
        panic!("{ended:?}")
    };
    assert!(
        reason.contains("does not lead to WhatsApp's key"),
        "{reason}"
    );
    assert!(!companion.has_seen(|event| matches!(event, EngineEvent::Challenge(_))));
    let reachable = harness.engine.check_reachable().await;
    assert!(
        matches!(reachable, Err(EngineError::NotWhatsApp { .. })),
        "{reachable:?}"
    );
    harness.network.stop().await;
}
