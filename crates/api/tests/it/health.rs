//! Liveness in its two forms, readiness, metrics, the description and its page.

use http::StatusCode;
use serde_json::json;
use wagate_api::ReadyCheck;

use crate::support::{Gateway, METRICS_TOKEN, WORKER_TOKEN};

#[tokio::test]
async fn health_is_plain_without_credentials_and_the_workers_with_its_token() {
    let gateway = Gateway::start().await;
    let plain = gateway.anonymous("GET", "/health").go().await;
    plain.is(StatusCode::OK);
    assert_eq!(
        plain.json,
        json!({ "status": "ok", "timestamp": "2026-11-21T08:00:00.000Z" })
    );

    for path in ["/health", "/api/health"] {
        let mut worker = gateway.worker_request("GET", path).go().await;
        worker.is(StatusCode::OK);
        let uptime = worker.json["data"]
            .as_object_mut()
            .unwrap()
            .remove("uptime")
            .unwrap();
        assert!(uptime.as_u64().is_some_and(|seconds| seconds < 600));
        assert_eq!(
            worker.json,
            json!({ "success": true, "data": {
                "status": "online", "sessionCount": 25, "cpuUsage": 45.5, "memoryUsage": 67.8,
                "maxSessions": 50, "availableSlots": 25,
            } })
        );
    }
    for wrong in ["Bearer wrong", "Bearer ", "Basic d3Jvbmc="] {
        let call = gateway.anonymous("GET", "/health");
        let answer = call.header("authorization", wrong).go().await;
        answer.fails(401, "unauthorized");
    }
}

#[tokio::test]
async fn health_is_plain_with_a_tenants_own_key() {
    let gateway = Gateway::start().await;
    let bearer = format!("Bearer {}", gateway.key);
    let health = || {
        let call = gateway.anonymous("GET", "/health");
        call.header("authorization", &bearer).go()
    };
    let plain = json!({ "status": "ok", "timestamp": "2026-11-21T08:00:00.000Z" });
    let answer = health().await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.json, plain);
    let by_header = gateway.request("GET", "/health").go().await;
    assert_eq!(by_header.json, plain);
    // The worker's own view stays the worker's.
    let call = gateway.anonymous("GET", "/api/health");
    let answer = call.header("authorization", &bearer).go().await;
    answer.fails(401, "unauthorized");

    // The process lives, whoever can look the key up or not.
    gateway.db.clone().close().await;
    let unknown = "Bearer wg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for bearer in [&*bearer, unknown] {
        let call = gateway.anonymous("GET", "/health");
        let answer = call.header("authorization", bearer).go().await;
        answer.is(StatusCode::OK);
    }
    gateway
        .worker_request("GET", "/health")
        .go()
        .await
        .is(StatusCode::OK);
}

#[tokio::test]
async fn ready_names_what_is_not() {
    let gateway = Gateway::start().await;
    let answer = gateway.anonymous("GET", "/ready").go().await;
    answer.is(StatusCode::OK);
    let checks = json!({ "database": true, "worker": true });
    assert_eq!(
        answer.json,
        json!({ "success": true, "status": "ready", "checks": checks })
    );

    let restoring = || {
        vec![ReadyCheck {
            name: "sessions_restored",
            ready: false,
        }]
    };
    let gateway = Gateway::with(|options| options.ready = std::sync::Arc::new(restoring)).await;
    let answer = gateway.anonymous("GET", "/ready").go().await;
    answer.is(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.json["checks"],
        json!({ "database": true, "sessions_restored": false })
    );
}

#[tokio::test]
async fn metrics_open_with_either_token_and_with_none_otherwise() {
    let gateway = Gateway::start().await;
    for token in [METRICS_TOKEN, WORKER_TOKEN] {
        let call = gateway.anonymous("GET", "/metrics");
        let answer = call
            .header("authorization", &format!("Bearer {token}"))
            .go()
            .await;
        answer.is(StatusCode::OK);
        assert_eq!(answer.bytes, b"wagate_up 1\n");
        assert!(
            answer
                .header("content-type")
                .starts_with("text/plain; version=0.0.4")
        );
    }
    gateway
        .anonymous("GET", "/metrics")
        .go()
        .await
        .fails(401, "unauthorized");
    gateway
        .request("GET", "/metrics")
        .go()
        .await
        .fails(401, "unauthorized");

    let closed = Gateway::with(|options| {
        options.metrics_token = None;
        options.worker_token = None;
    });
    let closed = closed.await;
    for token in ["", "Bearer "] {
        let call = closed
            .anonymous("GET", "/metrics")
            .header("authorization", token);
        call.go().await.fails(401, "unauthorized");
    }
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let gateway = Gateway::start().await;
    let served = gateway.anonymous("GET", "/openapi.json").go().await;
    served.is(StatusCode::OK);
    assert!(served.json["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(
        served.json,
        serde_json::to_value(wagate_api::openapi()).unwrap()
    );
    let page = gateway.anonymous("GET", "/docs/").go().await;
    page.is(StatusCode::OK);
    assert!(String::from_utf8_lossy(&page.bytes).contains("swagger"));
}
