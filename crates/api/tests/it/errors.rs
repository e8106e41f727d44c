//! What bad input and bad times get: one shape, an honest status, a stable word.

use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use wagate_app::Code;

use crate::support::{Gateway, PEER};

const SEND: &str = "/api/v1/sessions/s/messages";

#[test]
fn codes_and_their_statuses_are_stable() {
    let mut listing = String::new();
    for code in Code::ALL {
        listing.push_str(&format!(
            "{} {code}\n",
            wagate_api::status_of(*code).as_u16()
        ));
    }
    insta::assert_snapshot!("codes", listing);
    let words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert!(words.is_sorted(), "in alphabetical order: {words:?}");
}

#[test]
fn every_code_is_documented_with_its_status() {
    let page = include_str!("../../../../docs/api.md");
    for code in Code::ALL {
        let row = format!("| {} | `{code}` | ", wagate_api::status_of(*code).as_u16());
        assert!(page.contains(&row), "docs/api.md lacks {row}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_told_apart_from_one_with_wrong_fields() {
    let gateway = Gateway::start().await;
    for body in [
        "",
        "{",
        "[",
        "{\"to\":",
        "nonsense",
        "{\"to\":\"1\"}}",
        "\u{0}",
    ] {
        let answer = gateway
            .request("POST", SEND)
            .raw("application/json", body)
            .go()
            .await;
        answer.fails(400, "malformed_json");
    }
    let fields_in_order = json!([PEER, "text", "Hello!"]).to_string();
    for body in ["[]", "null", "1", "\"text\"", "true", &fields_in_order] {
        let answer = gateway
            .request("POST", SEND)
            .raw("application/json", body)
            .go()
            .await;
        answer.fails(422, "invalid_field").names("body");
        // The names of our types are nobody's business.
        assert_eq!(answer.json["error"], "body must be a JSON object", "{body}");
    }
    let twice = "{\"to\":\"1\",\"to\":\"2\"}";
    let answer = gateway
        .request("POST", SEND)
        .raw("application/json", twice)
        .go()
        .await;
    answer.fails(422, "invalid_field").names("to");
    let invalid_utf8 = b"{\"to\":\"\xff\"}".to_vec();
    let answer = gateway
        .request("POST", SEND)
        .raw("application/json", invalid_utf8)
        .go()
        .await;
    assert_eq!(answer.status.as_u16() / 100, 4, "{}", answer.json);
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_told_in_a_sentence() {
    let gateway = Gateway::start().await;
    let number = "must be a whole number, 0 or more";
    for (field, value, sentence) in [
        ("wait", json!("5"), format!("{number}, not a string")),
        ("wait", json!(-1), number.to_owned()),
        (
            "wait",
            json!(1.5),
            format!("{number}, not a number with a fraction"),
        ),
        ("text", json!(5), "must be a string".to_owned()),
        (
            "text",
            json!(["x"]),
            "must be a string, not a list".to_owned(),
        ),
    ] {
        let mut body = json!({ "to": PEER, "text": "x" });
        body[field] = value;
        let answer = gateway.post(SEND, body).await;
        answer.fails(422, "invalid_field").names(field);
        assert_eq!(answer.json["error"], format!("{field} {sentence}"));
    }
    let unknown = json!({ "name": "x", "expires": "never" });
    let answer = gateway.post("/api/v1/api-keys", unknown).await;
    answer.fails(422, "invalid_field").names("expires");
    let sentence = "expires is not known here; known: name, expiresAt";
    assert_eq!(answer.json["error"], sentence);
    let answer = gateway.post("/api/v1/api-keys", json!({})).await;
    assert_eq!(answer.json["error"], "name is missing");

    for (query, sentence) in [
        ("limit=ten", format!("limit (in the query) {number}")),
        ("limit=", format!("limit (in the query) {number}")),
        (
            "limit=99999999999",
            "limit (in the query) is too large".to_owned(),
        ),
        (
            "pages=2",
            "pages (in the query) is not known here; known: limit, cursor".to_owned(),
        ),
    ] {
        let answer = gateway.get(&format!("/api/v1/sessions?{query}")).await;
        answer.fails(422, "invalid_field");
        assert_eq!(answer.json["error"], sentence);
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let gateway = Gateway::start().await;
    let body = json!({ "to": PEER, "text": "x" }).to_string();
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "json",
    ] {
        let answer = gateway
            .request("POST", SEND)
            .raw(kind, body.clone())
            .go()
            .await;
        answer.fails(415, "unsupported_media_type");
        // Nor where a body may be left out.
        let create = gateway.request("POST", "/api/v1/sessions");
        let answer = create.raw(kind, "{}").go().await;
        answer.fails(415, "unsupported_media_type");
    }
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
    ] {
        let answer = gateway
            .request("POST", SEND)
            .raw(kind, body.clone())
            .go()
            .await;
        answer.fails(404, "session_not_found");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let gateway = Gateway::start().await;
    let body = json!({ "to": PEER, "text": "x".repeat(256 * 1024) }).to_string();
    for length in [None, Some(body.len().to_string())] {
        let mut call = gateway
            .request("POST", SEND)
            .raw("application/json", body.clone());
        if let Some(length) = &length {
            call = call.header("content-length", length);
        }
        call.go().await.fails(413, "body_too_large");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_failures_of_the_same_shape() {
    let gateway = Gateway::start().await;
    for path in [
        "/nothing",
        "/api/v1",
        "/api/v1/sessions/s/nothing",
        "/api/v2/sessions",
    ] {
        gateway.get(path).await.fails(404, "not_found");
    }
    let answer = gateway.request("PUT", "/api/v1/sessions").go().await;
    answer.fails(405, "method_not_allowed");
    assert!(answer.header("allow").contains("POST"));
    gateway
        .request("PATCH", "/health")
        .go()
        .await
        .fails(405, "method_not_allowed");
}

#[tokio::test]
async fn a_request_id_is_kept_when_it_is_plain_and_made_otherwise() {
    let gateway = Gateway::start().await;
    let kept = gateway
        .anonymous("GET", "/health")
        .header("x-request-id", "abc-123")
        .go()
        .await;
    assert_eq!(kept.header("x-request-id"), "abc-123");
    let long = "x".repeat(129);
    for odd in ["a b", &long, ""] {
        let made = gateway
            .anonymous("GET", "/nothing")
            .header("x-request-id", odd)
            .go()
            .await;
        made.fails(404, "not_found");
        assert!(made.header("x-request-id").starts_with("req_"), "{odd}");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_next_request_is_served() {
    let gateway = Gateway::with(|options| {
        options.metrics = std::sync::Arc::new(|| panic!("a secret of ours"));
    });
    let gateway = gateway.await;
    let answer = gateway.worker_request("GET", "/metrics").go().await;
    answer.fails(500, "internal_error");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
    gateway
        .anonymous("GET", "/health")
        .go()
        .await
        .is(StatusCode::OK);
}

#[tokio::test]
async fn origins_are_allowed_as_configured() {
    let gateway = Gateway::with(|options| {
        options.cors_origins = vec!["https://app.example".to_owned()];
    });
    let gateway = gateway.await;
    let ask = |origin: &'static str| {
        gateway
            .anonymous("OPTIONS", "/api/v1/sessions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-api-key,content-type")
            .go()
    };
    let allowed = ask("https://app.example").await;
    allowed.is(StatusCode::OK);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://app.example"
    );
    let refused = ask("https://evil.example").await;
    assert!(refused.headers.get("access-control-allow-origin").is_none());
    let failing = gateway
        .anonymous("GET", "/api/v1/sessions")
        .header("origin", "https://app.example");
    let failing = failing.go().await;
    failing.fails(401, "unauthorized");
    assert_eq!(
        failing.header("access-control-allow-origin"),
        "https://app.example"
    );
}

#[tokio::test]
async fn every_origin_is_allowed_by_a_star_and_none_may_send_cookies() {
    for origins in [vec!["*"], vec!["https://app.example", "*"]] {
        let gateway = Gateway::with(|options| {
            options.cors_origins = origins.into_iter().map(str::to_owned).collect();
        });
        let gateway = gateway.await;
        let answer = gateway
            .anonymous("GET", "/health")
            .header("origin", "https://anybody.example")
            .go()
            .await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let credentials = "access-control-allow-credentials";
        assert!(answer.headers.get(credentials).is_none());
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_says_when_to_come_again() {
    let gateway = Gateway::start().await;
    gateway.get("/api/v1/sessions").await.is(StatusCode::OK);
    gateway.db.clone().close().await;
    let answer = gateway.get("/api/v1/sessions").await;
    answer.fails(503, "database_unavailable");
    assert_eq!(answer.header("retry-after"), "2");
    gateway
        .post(SEND, json!({ "to": PEER, "text": "x" }))
        .await
        .fails(503, "database_unavailable");
    gateway
        .anonymous("GET", "/ready")
        .go()
        .await
        .is(StatusCode::SERVICE_UNAVAILABLE);
    gateway
        .anonymous("GET", "/health")
        .go()
        .await
        .is(StatusCode::OK);
}

#[tokio::test]
async fn a_full_disk_is_refused_before_anything_is_accepted() {
    let gateway = Gateway::with_database(|_| {}, |db| db.pages_max = Some(400)).await;
    gateway.connected("s").await;
    let mut accepted = 0;
    let refused = loop {
        let body = json!({ "to": PEER, "text": "x".repeat(60_000), "wait": 0 });
        let answer = gateway.post(SEND, body).await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "the file is bounded");
    };
    refused.fails(507, "storage_full");
    let listed = gateway.get(&format!("{SEND}?limit=200")).await;
    listed.is(StatusCode::OK);
    assert_eq!(listed.json["data"].as_array().unwrap().len(), accepted);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let key = prop_oneof![
            Just("to".to_owned()),
            Just("type".to_owned()),
            Just("message".to_owned()),
            Just("text".to_owned()),
            Just("wait".to_owned()),
            Just("media".to_owned()),
            "[a-z]{1,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Posts to every route that takes a body, and expects a refusal in the usual shape or a success.
async fn survives(gateway: &Gateway, body: &[u8]) -> Result<(), TestCaseError> {
    for path in [
        SEND,
        "/api/v1/sessions/s/connect?wait=0",
        "/api/v1/api-keys",
        "/api/sessions/s/send",
    ] {
        let answer = gateway
            .request("POST", path)
            .raw("application/json", body.to_vec())
            .go()
            .await;
        prop_assert!(answer.status.as_u16() < 500, "{path}: {}", answer.json);
        prop_assert!(
            answer.json["success"].is_boolean(),
            "{path}: {}",
            answer.json
        );
    }
    Ok(())
}

#[test]
fn no_body_breaks_a_route() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let gateway = runtime.block_on(async {
        let gateway = Gateway::with(|options| options.send_wait = std::time::Duration::ZERO).await;
        gateway
            .post("/api/v1/sessions", json!({ "id": "s" }))
            .await
            .is(StatusCode::CREATED);
        gateway
    });
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&any_json(), |value| {
            runtime.block_on(survives(&gateway, value.to_string().as_bytes()))
        })
        .unwrap();
    runner
        .run(&prop::collection::vec(any::<u8>(), 0..200), |bytes| {
            runtime.block_on(survives(&gateway, &bytes))
        })
        .unwrap();
    drop(runtime.enter());
}
