//! `/api/v1/events`: order, cursors, filters, and waiting for news.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, PEER};

fn names(answer: &Answer) -> Vec<&str> {
    let rows = answer.json["data"].as_array().unwrap();
    rows.iter()
        .map(|row| row["type"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn events_come_in_order_from_the_cursor_on() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let body = json!({ "to": PEER, "text": "Hello!", "wait": 0 });
    gateway
        .post("/api/v1/sessions/s/messages", body)
        .await
        .is(StatusCode::ACCEPTED);
    hand.send_all().await;
    hand.receive("IN1", "answer").await;

    let all = gateway.get("/api/v1/events").await;
    all.is(StatusCode::OK);
    let names = names(&all);
    assert_eq!(names.first(), Some(&"session.created"));
    assert!(names.contains(&"session.connected"), "{names:?}");
    assert!(names.contains(&"message.queued"), "{names:?}");
    assert_eq!(names.last(), Some(&"message.received"));
    let rows = all.json["data"].as_array().unwrap();
    let seqs: Vec<_> = rows
        .iter()
        .map(|row| row["seq"].as_i64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let last = rows.last().unwrap();
    assert_eq!(
        last["data"]["content"],
        json!({ "type": "text", "text": "answer" })
    );
    assert_eq!(last["at"], "2026-11-21T08:00:00.000Z");

    let mut paged = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = gateway
            .get(&format!("/api/v1/events?limit=2&after={after}"))
            .await;
        page.is(StatusCode::OK);
        let rows = page.json["data"].as_array().unwrap();
        after = page.json["page"]["next"].as_str().unwrap().to_owned();
        if rows.is_empty() {
            break;
        }
        paged.extend(rows.clone());
    }
    assert_eq!(Value::from(paged), all.json["data"]);
}

#[tokio::test]
async fn types_are_filtered_by_name() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let answer = gateway
        .get("/api/v1/events?types=session.created,session.connected")
        .await;
    assert_eq!(names(&answer), ["session.created", "session.connected"]);
}

#[tokio::test]
async fn a_wait_ends_with_the_first_event() {
    let gateway = Gateway::start().await;
    let waiting = gateway.request("GET", "/api/v1/events?wait=60");
    let create = gateway.post("/api/v1/sessions", json!({ "id": "s" }));
    let (answer, _) = tokio::join!(waiting.go(), create);
    assert_eq!(names(&answer), ["session.created"]);
}

#[tokio::test]
async fn a_wait_without_news_ends_empty_with_the_same_cursor() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/v1/events?after=7&wait=1").await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.json["data"], json!([]));
    assert_eq!(answer.json["page"]["next"], "7");
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let gateway = Gateway::start().await;
    for (query, path) in [
        ("after=-1", "after"),
        ("after=x", "after"),
        ("limit=0", "limit"),
        ("wait=61", "wait"),
        ("aftr=1", "aftr"),
    ] {
        let answer = gateway.get(&format!("/api/v1/events?{query}")).await;
        answer.fails(422, "invalid_field").names(path);
    }
}

#[tokio::test]
async fn another_tenants_events_are_out_of_sight() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let other = gateway.other_tenant().await;
    let answer = gateway
        .anonymous("GET", "/api/v1/events")
        .header("x-api-key", &other)
        .go()
        .await;
    answer.is(StatusCode::OK);
    assert_eq!(answer.json["data"], json!([]));
}

#[tokio::test]
async fn a_type_that_no_event_has_is_refused() {
    let gateway = Gateway::start().await;
    let known = gateway
        .get("/api/v1/events?types=message.status,%20session.qr,")
        .await;
    known.is(StatusCode::OK);
    gateway
        .get("/api/v1/events?types=message.status,message.sent")
        .await
        .fails(422, "invalid_field")
        .names("types");
}
