//! API keys: how they are presented, made, revoked, and when they end.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::support::{Gateway, WORKER_TOKEN};

const SESSIONS: &str = "/api/v1/sessions";

#[tokio::test]
async fn a_key_is_taken_as_header_and_as_bearer() {
    let gateway = Gateway::start().await;
    let bearer = format!("Bearer {}", gateway.key);
    let lower = format!("bearer {}", gateway.key);
    for (name, value) in [
        ("x-api-key", &gateway.key),
        ("authorization", &bearer),
        ("authorization", &lower),
    ] {
        gateway
            .anonymous("GET", SESSIONS)
            .header(name, value)
            .go()
            .await
            .is(StatusCode::OK);
    }
}

#[tokio::test]
async fn anything_else_is_unauthorized() {
    let gateway = Gateway::start().await;
    let mut changed = gateway.key.clone();
    let last = if changed.ends_with('A') { 'B' } else { 'A' };
    changed.pop();
    changed.push(last);
    let basic = format!("Basic {}", gateway.key);
    let cases: [(&str, &str); 7] = [
        ("x-api-key", ""),
        ("x-api-key", "nonsense"),
        ("x-api-key", "wg_00000000000000000000000000_"),
        ("x-api-key", &changed),
        ("authorization", &basic),
        ("authorization", "Bearer "),
        ("x-api-key", WORKER_TOKEN),
    ];
    for (name, value) in cases {
        let answer = gateway
            .anonymous("GET", SESSIONS)
            .header(name, value)
            .go()
            .await;
        answer.fails(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    gateway
        .anonymous("GET", SESSIONS)
        .go()
        .await
        .fails(401, "unauthorized");
    // A wrong key is not saved by a right one in the other header.
    let both = gateway
        .anonymous("GET", SESSIONS)
        .header("x-api-key", "wrong")
        .header("authorization", &format!("Bearer {}", gateway.key));
    both.go().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_key_is_made_shown_once_and_revoked() {
    let gateway = Gateway::start().await;
    let made = gateway
        .post("/api/v1/api-keys", json!({ "name": "shop" }))
        .await;
    made.is(StatusCode::CREATED);
    let secret = made.data()["secret"].as_str().unwrap().to_owned();
    let id = made.data()["id"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(made.data()["prefix"].as_str().unwrap()));
    let call = || {
        gateway
            .anonymous("GET", SESSIONS)
            .header("x-api-key", &secret)
    };
    call().go().await.is(StatusCode::OK);

    let listed = gateway.get("/api/v1/api-keys").await;
    listed.is(StatusCode::OK);
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 2);
    assert!(!String::from_utf8_lossy(&listed.bytes).contains(&secret));

    let path = format!("/api/v1/api-keys/{id}");
    gateway
        .request("DELETE", &path)
        .go()
        .await
        .is(StatusCode::OK);
    call().go().await.fails(401, "unauthorized");
    for unknown in ["key_01arz3ndektsv4rrffq69g5fav", "x"] {
        let path = format!("/api/v1/api-keys/{unknown}");
        gateway
            .request("DELETE", &path)
            .go()
            .await
            .fails(404, "api_key_not_found");
    }
}

#[tokio::test]
async fn a_key_ends_at_its_time() {
    let gateway = Gateway::start().await;
    let body = json!({ "name": "short", "expiresAt": "2026-11-21T08:00:05.000Z" });
    let made = gateway.post("/api/v1/api-keys", body).await;
    made.is(StatusCode::CREATED);
    let secret = made.data()["secret"].as_str().unwrap();
    let call = || {
        gateway
            .anonymous("GET", SESSIONS)
            .header("x-api-key", secret)
    };
    call().go().await.is(StatusCode::OK);
    gateway.clock.advance(Duration::from_secs(5));
    call().go().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused() {
    let gateway = Gateway::start().await;
    for (body, path) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(101) }), "name"),
        (
            json!({ "name": "x", "expiresAt": "yesterday" }),
            "expiresAt",
        ),
        (
            json!({ "name": "x", "expiresAt": "2020-01-01T00:00:00Z" }),
            "expiresAt",
        ),
        (json!({ "name": "x", "scope": "all" }), "scope"),
    ] {
        gateway
            .post("/api/v1/api-keys", body)
            .await
            .fails(422, "invalid_field")
            .names(path);
    }
}

#[tokio::test]
async fn a_path_that_names_no_key_is_not_found_in_the_usual_form() {
    let gateway = Gateway::start().await;
    for key in ["nothing", "%ff", "key_01jd8w4qk3v5t9x2r7y6m1n0ba"] {
        let call = gateway.request("DELETE", &format!("/api/v1/api-keys/{key}"));
        call.go().await.fails(404, "api_key_not_found");
    }
}
