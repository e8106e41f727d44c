//! Walks the description of the interface: every operation in it is exercised with success, without
//! credentials, with the wrong kind of them, and with another tenant's. A new route that is missing here
//! fails these tests by its name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, METRICS_TOKEN, PEER, WORKER_TOKEN};

/// Routes that anybody may call.
const OPEN: [&str; 2] = ["GET /health", "GET /ready"];
/// Routes that list or make things of the caller's own tenant, so that another tenant's call succeeds.
const OWN_THINGS: [&str; 18] = [
    "GET /api/v1/sessions",
    "POST /api/v1/sessions",
    "GET /api/v1/events",
    "GET /api/v1/api-keys",
    "POST /api/v1/api-keys",
    "GET /api/sessions",
    "POST /api/sessions",
    "GET /api/v1/queue",
    "GET /api/v1/queue/stats",
    "GET /api/v1/queue/failed",
    "POST /api/v1/queue/failed/retry",
    "POST /api/v1/queue/clear",
    "GET /api/v1/queue/config",
    "PATCH /api/v1/queue/config",
    "GET /api/whatsapp/retry-queue",
    "POST /api/whatsapp/queue/clear",
    "POST /api/whatsapp/queue/config",
    "GET /api/admin/queue-stats",
];

/// The things that the paths of the operations name.
struct World {
    gateway: Gateway,
    message: String,
    key: String,
}

async fn world() -> World {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("mine").await;
    let key = gateway
        .post("/api/v1/api-keys", json!({ "name": "spare" }))
        .await;
    let key = key.data()["id"].as_str().unwrap().to_owned();
    let body = json!({ "to": PEER, "text": "mine", "wait": 0 });
    let message = gateway.post("/api/v1/sessions/mine/messages", body).await;
    let message = message.data()["id"].as_str().unwrap().to_owned();
    hand.keep_working();
    World {
        gateway,
        message,
        key,
    }
}

/// Every operation of the description, as `METHOD /path`, with its credentials.
fn operations() -> BTreeMap<String, Vec<String>> {
    let document = serde_json::to_value(wagate_api::openapi()).unwrap();
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schemes = operation["security"].as_array().into_iter().flatten();
            let schemes = schemes
                .flat_map(|s| s.as_object().unwrap().keys().cloned())
                .collect();
            found.insert(format!("{} {path}", method.to_uppercase()), schemes);
        }
    }
    found
}

/// A body with which the operation succeeds.
fn body(operation: &str) -> Option<Value> {
    let text = json!({ "to": PEER, "type": "text", "message": "Hello!", "wait": 0 });
    let (_, path) = operation.split_once(' ').unwrap();
    match path {
        "/message/send" | "/api/whatsapp/send-message" => {
            let mut text = text;
            text["sessionId"] = json!("mine");
            Some(text)
        }
        "/api/v1/queue/config" | "/api/whatsapp/queue/config" => Some(json!({ "concurrency": 5 })),
        "/api/v1/sessions/{session}/pacing" => Some(json!({ "gapMs": 10 })),
        "/api/v1/api-keys" => Some(json!({ "name": "another" })),
        "/api/session/create" => Some(json!({ "sessionId": "made", "userId": "u" })),
        "/api/session/start" => Some(json!({ "sessionId": "mine" })),
        _ if path.ends_with("/send") || path.ends_with("/messages") => Some(text),
        _ => None,
    }
}

fn address(world: &World, operation: &str) -> (String, String) {
    let (method, path) = operation.split_once(' ').unwrap();
    let path = path
        .replace("{session}", "mine")
        .replace("{message}", &world.message)
        .replace("{key}", &world.key);
    (method.to_owned(), path)
}

/// Calls an operation with these credentials.
async fn call(world: &World, operation: &str, credentials: Option<(&str, &str)>) -> Answer {
    let (method, path) = address(world, operation);
    let mut call = world.gateway.anonymous(&method, &path);
    if let Some((name, value)) = credentials {
        call = call.header(name, value);
    }
    if method != "GET"
        && let Some(body) = body(operation)
    {
        call = call.json(&body);
    }
    call.go().await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn every_operation_is_exercised() {
    let mut failed = Vec::new();
    for (operation, schemes) in operations() {
        // Operations change things, so each gets a world of its own.
        let world = world().await;
        if operation.ends_with("/qr") {
            let hand = world.gateway.hand("mine").await;
            hand.show_qr("2@coverage").await;
        }
        let worker = bearer(WORKER_TOKEN);
        let credentials = if schemes.iter().any(|scheme| scheme == "apiKey") {
            Some(("x-api-key", world.gateway.key.as_str()))
        } else if schemes.iter().any(|scheme| scheme == "workerToken") {
            Some(("authorization", worker.as_str()))
        } else {
            None
        };
        let answer = call(&world, &operation, credentials).await;
        // The message has been sent by then, or not; `queue.rs` tells these two apart.
        let either = [
            "DELETE /api/v1/messages/{message}",
            "POST /api/v1/messages/{message}/retry",
        ]
        .contains(&operation.as_str());
        let fine = answer.status.is_success() || (either && answer.status.as_u16() == 409);
        if !fine {
            failed.push(format!("{operation}: {} {}", answer.status, answer.json));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn every_operation_but_the_open_ones_is_unauthorized_without_the_right_credentials() {
    let world = world().await;
    let (worker, wrong, metrics) = (bearer(WORKER_TOKEN), bearer("wrong"), bearer(METRICS_TOKEN));
    let mut failed = Vec::new();
    for (operation, schemes) in operations() {
        if OPEN.contains(&operation.as_str()) {
            continue;
        }
        assert!(
            !schemes.is_empty(),
            "{operation} says nothing about credentials"
        );
        let for_worker = schemes.iter().any(|scheme| scheme == "workerToken");
        let mut attempts = vec![
            None,
            Some(("x-api-key", "wrong")),
            Some(("authorization", wrong.as_str())),
        ];
        if for_worker {
            attempts.push(Some(("x-api-key", world.gateway.key.as_str())));
        } else {
            attempts.push(Some(("authorization", worker.as_str())));
            attempts.push(Some(("authorization", metrics.as_str())));
        }
        for credentials in attempts {
            let answer = call(&world, &operation, credentials).await;
            if answer.status.as_u16() != 401 || answer.json["code"] != "unauthorized" {
                failed.push(format!(
                    "{operation} with {credentials:?}: {}",
                    answer.status
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // Nothing of what was refused happened.
    let listed = world.gateway.get("/api/v1/sessions").await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn no_operation_shows_or_changes_another_tenants_things() {
    let world = world().await;
    let other = world.gateway.other_tenant().await;
    let mut failed = Vec::new();
    for (operation, schemes) in operations() {
        if !schemes.iter().any(|scheme| scheme == "apiKey") {
            continue;
        }
        let answer = call(&world, &operation, Some(("x-api-key", &other))).await;
        let fine = if OWN_THINGS.contains(&operation.as_str()) {
            answer.status.is_success() && !String::from_utf8_lossy(&answer.bytes).contains("mine")
        } else {
            answer.status.as_u16() == 404
        };
        if !fine {
            failed.push(format!("{operation}: {} {}", answer.status, answer.json));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let message = world
        .gateway
        .get(&format!("/api/v1/messages/{}", world.message))
        .await;
    assert_eq!(message.status.as_u16(), 200);
    assert_eq!(
        world.gateway.get("/api/v1/sessions/mine").await.data()["status"],
        "connected"
    );
}

#[test]
fn every_operation_is_described() {
    let document = serde_json::to_value(wagate_api::openapi()).unwrap();
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{name}"
            );
            assert!(
                operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.len() == 1),
                "{name}"
            );
            assert!(operation["responses"].get("default").is_some(), "{name}");
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

#[test]
fn every_body_is_described_by_a_schema_with_its_own_fields() {
    // Two types of one name would silently share the description of one of them.
    let document = serde_json::to_value(wagate_api::openapi()).unwrap();
    for (operation, field) in [
        ("/api/v1/sessions", "sessionName"),
        ("/api/v1/api-keys", "expiresAt"),
        ("/api/sessions", "sessionId"),
        ("/api/session/create", "sessionId"),
        ("/api/v1/sessions/{session}/connect", "phone_number"),
        ("/api/v1/sessions/{session}/messages", "text"),
        ("/api/v1/queue/clear", "state"),
        ("/api/v1/queue/failed/retry", "code"),
        ("/api/whatsapp/queue/clear", "status"),
        ("/api/whatsapp/queue/config", "concurrency"),
        ("/api/whatsapp/send-message", "text"),
    ] {
        let body = &document["paths"][operation]["post"]["requestBody"]["content"];
        let text = body["application/json"]["schema"].to_string();
        let name = text
            .split("schemas/")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let properties = &document["components"]["schemas"][name]["properties"];
        assert!(
            properties.get(field).is_some(),
            "{operation}: {name} lacks {field}"
        );
    }
}
