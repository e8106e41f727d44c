//! Queues by the canonical routes: priorities and times of a send, lists, figures, settings, clearing,
//! trying again. The hand plays the worker, and the clock stands where the test puts it.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use wagate_domain::{Clock as _, LinkState};
use wagate_store::queue;

use crate::support::{Answer, Gateway, PEER};

const SEND: &str = "/api/v1/sessions/s/messages?wait=0";

async fn send(gateway: &Gateway, more: Value) -> Answer {
    let mut body = json!({ "to": PEER, "text": "Hello!" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    gateway.post(SEND, body).await
}

async fn sent_id(gateway: &Gateway, more: Value) -> String {
    let answer = send(gateway, more).await;
    answer.is(StatusCode::ACCEPTED);
    answer.data()["id"].as_str().unwrap().to_owned()
}

async fn status(gateway: &Gateway, id: &str) -> Value {
    let answer = gateway.get(&format!("/api/v1/messages/{id}")).await;
    answer.data()["status"].clone()
}

/// What a worker's tick does.
async fn expire(gateway: &Gateway) -> usize {
    let now = gateway.clock.now();
    let ended = gateway.db.write(move |tx| {
        let mut ended = 0;
        for overdue in queue::overdue(tx, now, 100)? {
            ended += queue::expire(tx, &overdue, now)?.len();
        }
        Ok(ended)
    });
    ended.await.unwrap()
}

fn ids(answer: &Answer) -> Vec<&str> {
    let rows = answer.data().as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn priority_and_times_are_taken_and_shown() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let more = json!({ "priority": "high", "sendAt": "2026-11-21T09:00:00Z", "expiresIn": 600 });
    let answer = send(&gateway, more).await;
    answer.is(StatusCode::ACCEPTED);
    assert_eq!(answer.data()["priority"], "high");
    assert_eq!(answer.data()["sendAt"], "2026-11-21T09:00:00.000Z");
    assert_eq!(answer.data()["expiresAt"], "2026-11-21T09:10:00.000Z");
    let plain = send(&gateway, json!({})).await;
    assert_eq!(plain.data()["priority"], "normal");
    assert_eq!(plain.data()["sendAt"], Value::Null);
    assert_eq!(plain.data()["expiresAt"], Value::Null);
    // The dialects take the same fields.
    let body = json!({
        "to": PEER, "message": "x", "priority": "low", "expiresAt": "2026-11-21T08:00:01Z", "wait": 0,
    });
    let answer = gateway.post("/api/sessions/s/send", body).await;
    let id = answer.data()["messageId"].as_str().unwrap();
    let read = gateway.get(&format!("/api/v1/messages/{id}")).await;
    assert_eq!(read.data()["priority"], "low");
    assert_eq!(read.data()["expiresAt"], "2026-11-21T08:00:01.000Z");
}

#[tokio::test]
async fn impossible_priorities_and_times_are_refused_by_name() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    for (more, path) in [
        (json!({ "priority": "urgent" }), "priority"),
        (json!({ "priority": 1 }), "priority"),
        (json!({ "sendAt": "2026-11-21T07:59:59Z" }), "sendAt"),
        (json!({ "sendAt": "2027-11-23T08:00:00Z" }), "sendAt"),
        (json!({ "sendAt": "tomorrow" }), "sendAt"),
        (json!({ "expiresAt": "2026-11-21T08:00:00Z" }), "expiresAt"),
        (json!({ "expiresAt": "2028-01-01T00:00:00Z" }), "expiresAt"),
        (json!({ "expiresIn": 0 }), "expiresIn"),
        (json!({ "expiresIn": 40_000_000 }), "expiresIn"),
        (json!({ "expiresIn": u64::MAX }), "expiresIn"),
        (json!({ "expiresIn": -1 }), "expiresIn"),
        (
            json!({ "expiresIn": 5, "expiresAt": "2026-11-21T09:00:00Z" }),
            "expiresIn",
        ),
        (
            json!({ "sendAt": "2026-11-21T09:00:00Z", "expiresAt": "2026-11-21T09:00:00Z" }),
            "expiresAt",
        ),
    ] {
        let answer = send(&gateway, more).await;
        answer.fails(422, "invalid_field").names(path);
    }
    let listed = gateway.get("/api/v1/queue").await;
    assert!(ids(&listed).is_empty(), "refused means not stored");
}

#[tokio::test]
async fn an_idempotency_key_covers_priority_and_times_and_outlives_them() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let post = |more: Value| {
        let mut body = json!({ "to": PEER, "text": "once" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let call = gateway.request("POST", SEND);
        call.header("idempotency-key", "k").json(&body).go()
    };
    let at = json!({ "sendAt": "2026-11-21T08:00:10Z", "expiresIn": 5, "priority": "low" });
    let first = post(at.clone()).await;
    first.is(StatusCode::ACCEPTED);
    for more in [
        json!({ "sendAt": "2026-11-21T08:00:10Z", "expiresIn": 5 }),
        json!({ "sendAt": "2026-11-21T08:00:11Z", "expiresIn": 5, "priority": "low" }),
        json!({ "sendAt": "2026-11-21T08:00:10Z", "expiresIn": 6, "priority": "low" }),
    ] {
        post(more).await.fails(409, "idempotency_conflict");
    }
    // The time has passed, and the repeat still gets the first answer.
    gateway.clock.advance(Duration::from_secs(60));
    let again = post(at).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.data()["id"], first.data()["id"]);
}

#[tokio::test]
async fn high_goes_first_and_a_scheduled_one_waits_for_its_time() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let low = sent_id(
        &gateway,
        json!({ "to": "6281111111111", "priority": "low" }),
    )
    .await;
    let high = sent_id(
        &gateway,
        json!({ "to": "6281111111112", "priority": "high" }),
    )
    .await;
    let later = sent_id(&gateway, json!({ "sendAt": "2026-11-21T08:01:00Z" })).await;
    let (lease, now) = (hand.lease.clone(), gateway.clock.now());
    let order = gateway
        .db
        .write(move |tx| queue::claim(tx, &lease, 10, now))
        .await
        .unwrap();
    let order: Vec<String> = order.iter().map(|one| one.message.to_string()).collect();
    assert_eq!(order, [high.clone(), low.clone()]);
    let list = |state: &'static str| {
        let path = format!("/api/v1/queue?state={state}");
        let gateway = &gateway;
        async move { gateway.get(&path).await }
    };
    assert_eq!(ids(&list("active").await), [low, high]);
    let scheduled = list("scheduled").await;
    assert_eq!(ids(&scheduled), [later.as_str()]);
    assert_eq!(scheduled.data()[0]["dueAt"], "2026-11-21T08:01:00.000Z");
    assert_eq!(scheduled.data()[0]["state"], "scheduled");
    // A request does not wait for what is not even due.
    let more = json!({ "to": PEER, "text": "x", "wait": 20, "sendAt": "2026-11-21T08:01:00Z" });
    let started = tokio::time::Instant::now();
    let answer = gateway.post("/api/v1/sessions/s/messages", more).await;
    answer.is(StatusCode::ACCEPTED);
    assert!(started.elapsed() < Duration::from_secs(10));
    gateway.clock.advance(Duration::from_secs(60));
    hand.send_all().await;
    assert_eq!(status(&gateway, &later).await, "sent");
}

#[tokio::test]
async fn what_expired_is_not_sent_and_can_be_tried_again() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let id = sent_id(&gateway, json!({ "expiresIn": 10 })).await;
    let next = sent_id(&gateway, json!({})).await;
    gateway.clock.advance(Duration::from_secs(10));
    assert_eq!(
        hand.send_all().await,
        0,
        "the next of the chat waits for the tick"
    );
    assert_eq!(expire(&gateway).await, 1);
    assert_eq!(status(&gateway, &id).await, "expired");
    assert_eq!(hand.send_all().await, 1);
    assert_eq!(status(&gateway, &next).await, "sent");
    let failed = gateway.get("/api/v1/queue/failed").await;
    assert_eq!(ids(&failed), [id.as_str()]);
    assert_eq!(failed.data()[0]["code"], "expired");
    let waited = gateway
        .request("POST", &format!("/api/v1/messages/{id}/retry"))
        .json(&json!({ "expiresIn": 60 }))
        .go()
        .await;
    waited.is(StatusCode::ACCEPTED);
    assert_eq!(waited.data()["status"], "queued");
    assert_eq!(waited.data()["expiresAt"], "2026-11-21T08:01:10.000Z");
    assert_eq!(hand.send_all().await, 1);
    assert_eq!(status(&gateway, &id).await, "sent");
}

#[tokio::test]
async fn a_send_that_waits_hears_that_its_message_expired() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let body = json!({ "to": PEER, "text": "x", "expiresIn": 1 });
    let call = gateway.request("POST", "/api/v1/sessions/s/messages");
    let call = call.json(&body);
    let end = async {
        while gateway.get("/api/v1/queue").await.data()[0].is_null() {}
        gateway.clock.advance(Duration::from_secs(2));
        assert_eq!(expire(&gateway).await, 1);
    };
    let (answer, ()) = tokio::join!(call.go(), end);
    answer.fails(422, "message_expired");
    assert_eq!(answer.data()["status"], "expired");
}

#[tokio::test]
async fn a_session_shows_its_own_setting_and_only_what_waits_for_a_time_has_one() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    gateway.connected("t").await;
    for body in [
        json!({ "concurrency": 5 }),
        json!({ "session": "t", "concurrency": 2 }),
    ] {
        let call = gateway.request("PATCH", "/api/v1/queue/config");
        call.json(&body).go().await.is(StatusCode::OK);
    }
    let stats = gateway.get("/api/v1/queue/stats").await;
    assert_eq!(stats.data()["concurrency"], 5);
    assert_eq!(stats.data()["sessions"][0]["concurrency"], 5);
    assert_eq!(stats.data()["sessions"][1]["concurrency"], 2);

    sent_id(&gateway, json!({})).await;
    sent_id(&gateway, json!({ "sendAt": "2026-11-21T09:00:00Z" })).await;
    let listed = gateway.get("/api/v1/queue").await;
    assert_eq!(listed.data()[0]["state"], "waiting");
    assert_eq!(listed.data()[0].get("dueAt"), None);
    assert_eq!(listed.data()[1]["dueAt"], "2026-11-21T09:00:00.000Z");
}

#[tokio::test]
async fn failed_ones_are_listed_retried_and_deleted() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let mut failed = Vec::new();
    for _ in 0..3 {
        failed.push(sent_id(&gateway, json!({})).await);
    }
    assert_eq!(hand.fail_all("recipient_not_registered").await, 3);
    let page = gateway.get("/api/v1/queue/failed?limit=2").await;
    assert_eq!(ids(&page), [failed[2].as_str(), failed[1].as_str()]);
    assert_eq!(page.data()[0]["code"], "recipient_not_registered");
    assert_eq!(page.data()[0]["reason"], "for a test");
    assert_eq!(page.data()[0]["state"], "failed");
    let next = page.json["page"]["next"].as_str().unwrap();
    let rest = gateway
        .get(&format!("/api/v1/queue?state=failed&cursor={next}"))
        .await;
    assert_eq!(ids(&rest), [failed[0].as_str()]);
    let other = gateway.get("/api/v1/queue/failed?code=timeout").await;
    assert!(ids(&other).is_empty());

    let before = gateway
        .get(&format!("/api/v1/messages/{}", failed[0]))
        .await;
    let again = gateway
        .request("POST", &format!("/api/v1/messages/{}/retry", failed[0]))
        .go()
        .await;
    again.is(StatusCode::ACCEPTED);
    assert_eq!(again.data()["waMessageId"], before.data()["waMessageId"]);
    assert_eq!(hand.send_all().await, 1);
    let refused = gateway
        .request("POST", &format!("/api/v1/messages/{}/retry", failed[0]))
        .go()
        .await;
    refused.fails(409, "message_not_retryable");
    assert!(refused.json["error"].as_str().unwrap().contains("sent"));

    let path = format!("/api/v1/messages/{}", failed[1]);
    let deleted = gateway.request("DELETE", &path).go().await;
    deleted.is(StatusCode::OK);
    assert_eq!(deleted.data()["deleted"], true);
    gateway.get(&path).await.fails(404, "message_not_found");

    let body = json!({ "session": "s", "code": "recipient_not_registered" });
    let many = gateway.post("/api/v1/queue/failed/retry", body).await;
    let all = json!({ "count": 1, "skippedSessions": 0, "more": false });
    assert_eq!(*many.data(), all);
    assert_eq!(status(&gateway, &failed[2]).await, "queued");
    let events = gateway.get("/api/v1/events?types=message.deleted").await;
    assert_eq!(events.data()[0]["data"]["message"], failed[1].as_str());
}

#[tokio::test]
async fn a_session_that_takes_no_messages_takes_none_back() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let id = sent_id(&gateway, json!({})).await;
    hand.fail_all("timeout").await;
    hand.state(LinkState::Replaced).await;
    let path = format!("/api/v1/messages/{id}/retry");
    let answer = gateway.request("POST", &path).go().await;
    answer.fails(409, "session_replaced");
    let all = "/api/v1/queue/failed/retry";
    let answer = gateway.post(all, json!({ "session": "s" })).await;
    answer.fails(409, "session_replaced");
    let answer = gateway.post(all, json!({})).await;
    assert_eq!(answer.data()["skippedSessions"], 1);
    assert_eq!(status(&gateway, &id).await, "failed");
}

#[tokio::test]
async fn only_what_waits_is_canceled_and_the_refusal_says_the_state() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let id = sent_id(&gateway, json!({})).await;
    let path = format!("/api/v1/messages/{id}");
    let canceled = gateway.request("DELETE", &path).go().await;
    canceled.is(StatusCode::OK);
    assert_eq!(canceled.data()["status"], "canceled");
    assert_eq!(canceled.data()["deleted"], false);
    let id = sent_id(&gateway, json!({})).await;
    hand.send_all().await;
    let path = format!("/api/v1/messages/{id}");
    let refused = gateway.request("DELETE", &path).go().await;
    refused.fails(409, "message_not_cancelable");
    assert!(refused.json["error"].as_str().unwrap().contains("sent"));
}

#[tokio::test]
async fn a_queue_is_cleared_by_state_and_never_of_what_is_being_sent() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let active = sent_id(&gateway, json!({})).await;
    let (lease, now) = (hand.lease.clone(), gateway.clock.now());
    let claimed = gateway
        .db
        .write(move |tx| queue::claim(tx, &lease, 1, now))
        .await;
    assert_eq!(claimed.unwrap().len(), 1);
    let waiting = sent_id(&gateway, json!({})).await;
    let scheduled = sent_id(&gateway, json!({ "sendAt": "2026-11-21T09:00:00Z" })).await;
    let clear = |body: Value| gateway.post("/api/v1/queue/clear", body);
    for state in ["active", "everything"] {
        let answer = clear(json!({ "state": state })).await;
        answer.fails(422, "invalid_field").names("state");
    }
    let answer = clear(json!({ "session": "nobody" })).await;
    answer.fails(404, "session_not_found");
    let answer = clear(json!({ "session": "s", "state": "scheduled" })).await;
    let one = json!({ "count": 1, "skippedSessions": 0, "more": false });
    assert_eq!(*answer.data(), one);
    assert_eq!(status(&gateway, &scheduled).await, "canceled");
    assert_eq!(status(&gateway, &waiting).await, "queued");
    let answer = gateway.request("POST", "/api/v1/queue/clear").go().await;
    assert_eq!(answer.data()["count"], 1);
    assert_eq!(status(&gateway, &waiting).await, "canceled");
    assert_eq!(status(&gateway, &active).await, "sending");
    let events = gateway.get("/api/v1/events?types=message.status").await;
    let canceled = events.data().as_array().unwrap().iter();
    let canceled = canceled.filter(|event| event["data"]["status"] == "canceled");
    assert_eq!(canceled.count(), 2);
}

#[tokio::test]
async fn figures_are_told_in_all_and_for_each_session() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    for _ in 0..3 {
        sent_id(&gateway, json!({})).await;
    }
    hand.send_all().await;
    sent_id(&gateway, json!({})).await;
    hand.fail_all("timeout").await;
    sent_id(&gateway, json!({})).await;
    sent_id(&gateway, json!({ "sendAt": "2026-11-21T09:00:00Z" })).await;
    gateway.connected("another").await;
    gateway.clock.advance(Duration::from_secs(30));
    let stats = gateway.get("/api/v1/queue/stats").await;
    let figures = json!({
        "active": 0, "waiting": 1, "delayed": 0, "scheduled": 1, "pending": 2, "failed": 1,
        "completed": 3, "successRate": 75.0, "oldestWaitingSeconds": 30,
    });
    assert_eq!(stats.data()["total"], figures);
    assert_eq!(stats.data()["concurrency"], 3);
    let mut session = figures;
    session["sessionId"] = json!("s");
    session["status"] = json!("processing");
    session["concurrency"] = json!(3);
    session["paused"] = json!(false);
    assert_eq!(stats.data()["sessions"][0], session);
    assert_eq!(stats.data()["sessions"][1]["successRate"], Value::Null);
    assert_eq!(stats.data()["sessions"][1]["status"], "idle");
    let first = gateway.get("/api/v1/queue/stats?limit=1").await;
    let next = first.json["page"]["next"].as_str().unwrap();
    let second = gateway
        .get(&format!("/api/v1/queue/stats?limit=1&cursor={next}"))
        .await;
    assert_eq!(second.data()["sessions"][0]["sessionId"], "another");
    assert_eq!(second.json["page"]["next"], Value::Null);
    let one = gateway.get("/api/v1/queue/stats?session=another").await;
    assert_eq!(one.data()["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn settings_are_read_changed_and_taken_back() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let path = "/api/v1/queue/config";
    let patch = |body: Value| gateway.request("PATCH", path).json(&body).go();
    let default =
        json!({ "sessionId": null, "concurrency": 3, "configured": null, "paused": false });
    assert_eq!(*gateway.get(path).await.data(), default);
    for (body, field) in [
        (json!({ "concurrency": 0 }), "concurrency"),
        (json!({ "concurrency": 21 }), "concurrency"),
        (json!({ "concurrency": "many" }), "concurrency"),
        (json!({ "paused": true }), "paused"),
        (json!({}), "concurrency"),
        (json!({ "speed": 3 }), "speed"),
    ] {
        patch(body).await.fails(422, "invalid_field").names(field);
    }
    let nobody = json!({ "session": "nobody", "concurrency": 3 });
    patch(nobody).await.fails(404, "session_not_found");
    let set = patch(json!({ "concurrency": 7 })).await;
    assert_eq!(set.data()["concurrency"], 7);
    let own = patch(json!({ "session": "s", "concurrency": 1 })).await;
    let want = json!({ "sessionId": "s", "concurrency": 1, "configured": 1, "paused": false });
    assert_eq!(*own.data(), want);
    let back = patch(json!({ "session": "s", "concurrency": null })).await;
    let want = json!({ "sessionId": "s", "concurrency": 7, "configured": null, "paused": false });
    assert_eq!(*back.data(), want);
    assert_eq!(
        *gateway.get(&format!("{path}?session=s")).await.data(),
        want
    );
    let events = gateway.get("/api/v1/events?types=queue.configured").await;
    assert_eq!(events.data().as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_paused_queue_takes_messages_and_sends_none() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let paused = gateway
        .request("POST", "/api/v1/sessions/s/queue/pause")
        .go()
        .await;
    assert_eq!(paused.data()["paused"], true);
    let id = sent_id(&gateway, json!({})).await;
    assert_eq!(hand.send_all().await, 0);
    let stats = gateway.get("/api/v1/queue/stats?session=s").await;
    assert_eq!(stats.data()["sessions"][0]["status"], "paused");
    let resumed = gateway
        .request("POST", "/api/v1/sessions/s/queue/resume")
        .go()
        .await;
    assert_eq!(resumed.data()["paused"], false);
    assert_eq!(hand.send_all().await, 1);
    assert_eq!(status(&gateway, &id).await, "sent");
}

#[tokio::test]
async fn lists_page_over_sessions_and_refuse_strange_cursors() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    gateway.connected("t").await;
    let mut all = Vec::new();
    for session in ["s", "t"] {
        for _ in 0..3 {
            let path = format!("/api/v1/sessions/{session}/messages?wait=0");
            let answer = gateway
                .post(&path, json!({ "to": PEER, "text": "x" }))
                .await;
            all.push(answer.data()["id"].as_str().unwrap().to_owned());
        }
    }
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = gateway.get(&format!("/api/v1/queue?limit=2{cursor}")).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page.json["page"]["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let of_t = gateway.get("/api/v1/queue?session=t&state=waiting").await;
    assert_eq!(ids(&of_t), all[3..]);
    for (path, field) in [
        ("/api/v1/queue?cursor=x", "cursor"),
        ("/api/v1/queue/failed?cursor=x", "cursor"),
        ("/api/v1/queue/stats?cursor=x", "cursor"),
        ("/api/v1/queue?state=lost", "state"),
        ("/api/v1/queue?limit=0", "limit"),
        ("/api/v1/queue?session=%20", "session"),
    ] {
        let answer = gateway.get(path).await;
        answer.fails(422, "invalid_field").names(field);
    }
    let nobody = gateway.get("/api/v1/queue?session=nobody").await;
    nobody.fails(404, "session_not_found");
}

#[tokio::test]
async fn another_tenants_queue_is_out_of_sight_and_out_of_reach() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let dead = sent_id(&gateway, json!({})).await;
    hand.fail_all("timeout").await;
    let waiting = sent_id(&gateway, json!({})).await;
    let other = gateway.other_tenant().await;
    let call = |method: &str, path: &str, body: Value| {
        let call = gateway.anonymous(method, path).header("x-api-key", &other);
        call.json(&body).go()
    };
    for (method, path, body) in [
        ("POST", "/api/v1/queue/clear", json!({ "session": "s" })),
        (
            "POST",
            "/api/v1/queue/failed/retry",
            json!({ "session": "s" }),
        ),
        (
            "PATCH",
            "/api/v1/queue/config",
            json!({ "session": "s", "concurrency": 1 }),
        ),
        ("POST", "/api/v1/sessions/s/queue/pause", json!({})),
    ] {
        call(method, path, body)
            .await
            .fails(404, "session_not_found");
    }
    for (method, path) in [
        ("POST", format!("/api/v1/messages/{dead}/retry")),
        ("DELETE", format!("/api/v1/messages/{dead}")),
        ("DELETE", format!("/api/v1/messages/{waiting}")),
    ] {
        let answer = call(method, &path, json!({})).await;
        answer.fails(404, "message_not_found");
    }
    for state in ["all", "failed"] {
        let cleared = call("POST", "/api/v1/queue/clear", json!({ "state": state })).await;
        assert_eq!(cleared.data()["count"], 0);
    }
    let retried = call("POST", "/api/v1/queue/failed/retry", json!({})).await;
    assert_eq!(retried.data()["count"], 0);
    // A cursor of another tenant's list shows nothing of it.
    let page = gateway.get("/api/v1/queue?limit=1").await;
    assert_eq!(ids(&page), [waiting.as_str()]);
    let cursor = format!("{}.0", hand.lease.session);
    let spied = call("GET", &format!("/api/v1/queue?cursor={cursor}"), json!({})).await;
    assert!(ids(&spied).is_empty());
    assert_eq!(status(&gateway, &waiting).await, "queued");
    assert_eq!(status(&gateway, &dead).await, "failed");
}
