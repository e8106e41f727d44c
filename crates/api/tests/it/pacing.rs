//! How a session is paced, over HTTP: settings and their ranges, what is used, pauses in the status.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use wagate_domain::Clock as _;
use wagate_domain::pacing::{Pacing, Reason, Scope};
use wagate_store::pacing;

use crate::support::{Answer, Gateway, PEER};

const PATH: &str = "/api/v1/sessions/s/pacing";

async fn set(gateway: &Gateway, change: Value) -> Answer {
    gateway.request("PATCH", PATH).json(&change).go().await
}

#[tokio::test]
async fn settings_change_one_by_one_and_go_back() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let first = gateway.get(PATH).await;
    first.is(StatusCode::OK);
    assert_eq!(
        *first.data(),
        json!({
            "enabled": false, "gapMs": 0, "gapJitterPercent": 0, "perMinute": null, "perDay": null,
            "strangersPerDay": null, "warmUpDays": 0, "warmUpStartPercent": 100, "typing": false,
            "changed": [], "used": { "minute": 0, "day": 0, "strangers": 0, "warmUpPercent": 100 },
            "waits": null, "strangersWait": null, "pauses": [],
        })
    );
    let change = json!({ "enabled": true, "gapMs": 1500, "perDay": 100, "typing": true });
    let set_once = set(&gateway, change).await;
    set_once.is(StatusCode::OK);
    assert_eq!(set_once.data()["gapMs"], 1500);
    let set_twice = set(&gateway, json!({ "perDay": null, "perMinute": 20 })).await;
    let now = set_twice.data();
    assert_eq!(
        (&now["perDay"], &now["perMinute"]),
        (&json!(null), &json!(20))
    );
    assert_eq!(now["gapMs"], 1500, "what was not named stays");
    let names = json!(["enabled", "gapMs", "perDay", "perMinute", "typing"]);
    assert_eq!(now["changed"], names);
    assert_eq!(gateway.get(PATH).await.data(), now);
    let reset = set(&gateway, json!({ "reset": true, "gapMs": 10 })).await;
    assert_eq!(reset.data()["changed"], json!(["gapMs"]));
    assert_eq!(reset.data()["enabled"], false);
    let events = gateway.get("/api/v1/events?types=pacing.configured").await;
    assert_eq!(events.data().as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_share_of_a_young_number_is_shown() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let young = json!({ "enabled": true, "warmUpDays": 10, "warmUpStartPercent": 25 });
    let answer = set(&gateway, young).await;
    assert_eq!(answer.data()["used"]["warmUpPercent"], 25);
}

#[tokio::test]
async fn what_is_out_of_range_is_refused_by_name_and_changes_nothing() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    for (field, value) in [
        ("gapMs", json!(3_600_001)),
        ("gapJitterPercent", json!(101)),
        ("perMinute", json!(0)),
        ("perDay", json!(1_000_001)),
        ("strangersPerDay", json!(0)),
        ("warmUpDays", json!(91)),
        ("warmUpStartPercent", json!(0)),
        ("perMinute", json!(-1)),
        ("perDay", json!("many")),
        ("gapMs", json!(1.5)),
        ("enabled", json!("yes")),
        ("gap", json!(1)),
    ] {
        let refused = set(&gateway, json!({ (field): value })).await;
        refused.fails(422, "invalid_field").names(field);
    }
    let both = set(&gateway, json!({ "perDay": 0, "perMinute": 0 })).await;
    both.fails(422, "invalid_field")
        .names("perDay")
        .names("perMinute");
    assert_eq!(gateway.get(PATH).await.data()["changed"], json!([]));
    let elsewhere = "/api/v1/sessions/nowhere/pacing";
    gateway.get(elsewhere).await.fails(404, "session_not_found");
}

#[tokio::test]
async fn a_pause_and_what_is_used_can_be_seen() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let now = gateway.clock.now();
    let mut state = Pacing::default();
    state.count(now, true, 0.0);
    let named = Some(Duration::from_secs(60));
    state.signal(now, Scope::NewChats, Reason::ReachOutLimited, named);
    let lease = hand.lease.clone();
    gateway
        .db
        .write(move |tx| pacing::save(tx, &lease, &state))
        .await
        .unwrap();
    let seen = gateway.get(PATH).await;
    assert_eq!(seen.data()["used"]["strangers"], 1);
    let until = now.plus(Duration::from_secs(60)).to_string();
    let held = json!({ "reason": "reach_out_limited", "until": until });
    assert_eq!(seen.data()["strangersWait"], held);
    let status = gateway.get("/api/v1/sessions/s/status").await;
    let pause = &status.data()["pauses"][0];
    assert_eq!(pause["scope"], "new_chats");
    assert_eq!(pause["until"], until.as_str());
    gateway.clock.advance(Duration::from_secs(60));
    let status = gateway.get("/api/v1/sessions/s/status").await;
    assert_eq!(status.data()["pauses"], json!([]));
}

#[tokio::test]
async fn what_no_device_confirms_is_counted_after_a_minute() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let body = json!({ "to": PEER, "text": "anybody there?", "wait": 0 });
    gateway.post("/api/v1/sessions/s/messages", body).await;
    hand.send_all().await;
    let undelivered = async || {
        let status = gateway.get("/api/v1/sessions/s/status").await;
        status.data()["undelivered"].clone()
    };
    assert_eq!(undelivered().await, 0);
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(undelivered().await, 1);
}
