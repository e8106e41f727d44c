//! `/api/v1/sessions`: shapes, statuses, names, pages, and what a worker that is away changes.

use http::StatusCode;
use serde_json::json;
use wagate_domain::LinkState;
use wagate_domain::session::LinkReason;

use crate::support::{Gateway, OWN};

#[tokio::test]
async fn a_session_is_created_read_listed_and_shows_where_it_stands() {
    let gateway = Gateway::start().await;
    let body = json!({ "id": "user123-personal", "sessionName": "Personal", "userId": "user123" });
    let made = gateway.post("/api/v1/sessions", body).await;
    made.is(StatusCode::CREATED);
    assert_eq!(
        *made.data(),
        json!({
            "id": "user123-personal", "sessionName": "Personal", "userId": "user123",
            "status": "initializing", "linkState": "idle", "reason": null, "linked": false,
            "phoneNumber": null, "jid": null, "lid": null, "pushName": null, "lastActivity": null,
            "createdAt": "2026-11-21T08:00:00.000Z",
        })
    );
    let read = gateway.get("/api/v1/sessions/user123-personal").await;
    read.is(StatusCode::OK);
    assert_eq!(read.data(), made.data());
    let listed = gateway.get("/api/v1/sessions").await;
    assert_eq!(listed.json["data"], json!([made.data()]));
    assert_eq!(listed.json["page"], json!({ "next": null }));

    gateway.connected("linked").await;
    let status = gateway.get("/api/v1/sessions/linked/status").await;
    status.is(StatusCode::OK);
    assert_eq!(status.data()["status"], "connected");
    assert_eq!(status.data()["phoneNumber"], format!("+{OWN}"));
    assert_eq!(status.data()["jid"], format!("{OWN}@s.whatsapp.net"));
    assert_eq!(status.data()["lid"], "99123@lid");
    assert_eq!(status.data()["pushName"], "Owner");
    assert_eq!(status.data()["lastActivity"], "2026-11-21T08:00:00.000Z");
    assert_eq!(status.data()["counters"]["queued"], 0);
    assert!(status.data().get("qrCode").is_none(), "{}", status.json);
}

#[tokio::test]
async fn without_an_id_the_session_gets_one_and_an_empty_body_is_enough() {
    let gateway = Gateway::start().await;
    let made = gateway.request("POST", "/api/v1/sessions").go().await;
    made.is(StatusCode::CREATED);
    let id = made.data()["id"].as_str().unwrap();
    assert!(id.starts_with("ses_"), "{id}");
    gateway
        .get(&format!("/api/v1/sessions/{id}"))
        .await
        .is(StatusCode::OK);
    let null = gateway.post("/api/v1/sessions", json!(null)).await;
    null.is(StatusCode::CREATED);
    let array = gateway.post("/api/v1/sessions", json!(["a", "b"])).await;
    array.fails(422, "invalid_field").names("body");
}

#[tokio::test]
async fn a_taken_id_is_a_conflict_and_an_impossible_one_is_refused() {
    let gateway = Gateway::start().await;
    gateway
        .post("/api/v1/sessions", json!({ "id": "a" }))
        .await
        .is(StatusCode::CREATED);
    gateway
        .post("/api/v1/sessions", json!({ "id": "a" }))
        .await
        .fails(409, "session_exists");
    for bad in ["", "a b", "a/b", "..", "ä", &"x".repeat(65)] {
        let answer = gateway.post("/api/v1/sessions", json!({ "id": bad })).await;
        answer.fails(422, "invalid_field").names("id");
    }
    let label = "x".repeat(201);
    let answer = gateway
        .post("/api/v1/sessions", json!({ "sessionName": label }))
        .await;
    answer.fails(422, "invalid_field").names("sessionName");
}

#[tokio::test]
async fn pages_follow_their_cursor_and_a_foreign_cursor_is_refused() {
    let gateway = Gateway::start().await;
    for name in ["a", "b", "c"] {
        gateway
            .post("/api/v1/sessions", json!({ "id": name }))
            .await
            .is(StatusCode::CREATED);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/sessions?limit=2".to_owned();
    loop {
        let page = gateway.get(&path).await;
        page.is(StatusCode::OK);
        let rows = page.json["data"].as_array().unwrap();
        assert!(rows.len() <= 2);
        seen.extend(
            rows.iter()
                .map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.json["page"]["next"].as_str() else {
            break;
        };
        path = format!("/api/v1/sessions?limit=2&cursor={next}");
    }
    // What was created in the same millisecond has no order.
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
    gateway
        .get("/api/v1/sessions?cursor=xyz")
        .await
        .fails(422, "invalid_field")
        .names("cursor");
    gateway
        .get("/api/v1/sessions?limit=0")
        .await
        .fails(422, "invalid_field")
        .names("limit");
    gateway
        .get("/api/v1/sessions?limit=201")
        .await
        .fails(422, "invalid_field")
        .names("limit");
    gateway
        .get("/api/v1/sessions?limit=x")
        .await
        .fails(422, "invalid_field")
        .names("limit");
    gateway
        .get("/api/v1/sessions?limt=1")
        .await
        .fails(422, "invalid_field")
        .names("limt");
}

#[tokio::test]
async fn requests_to_the_worker_are_done_with_one_and_accepted_without() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let late = gateway
        .request("POST", "/api/v1/sessions/s/disconnect")
        .go()
        .await;
    late.is(StatusCode::ACCEPTED);
    assert_eq!(late.data()["done"], false);

    hand.keep_working();
    let done = gateway
        .request("POST", "/api/v1/sessions/s/disconnect")
        .go()
        .await;
    done.is(StatusCode::OK);
    assert_eq!(done.data()["done"], true);
    assert_eq!(done.data()["status"], "disconnected");
    assert_eq!(done.data()["linked"], true, "disconnecting keeps the link");

    let again = gateway
        .request("POST", "/api/v1/sessions/s/connect")
        .go()
        .await;
    again.is(StatusCode::OK);
    assert_eq!(
        again.data()["status"],
        "connected",
        "with no QR code: {}",
        again.json
    );

    let out = gateway
        .request("POST", "/api/v1/sessions/s/logout")
        .go()
        .await;
    out.is(StatusCode::OK);
    assert_eq!(out.data()["status"], "logged_out");
    assert_eq!(out.data()["linked"], false);
    assert_eq!(out.data()["reason"]["code"], "requested");

    let gone = gateway.request("DELETE", "/api/v1/sessions/s").go().await;
    gone.is(StatusCode::OK);
    gateway
        .get("/api/v1/sessions/s")
        .await
        .fails(404, "session_not_found");
    gateway
        .post("/api/v1/sessions", json!({ "id": "s" }))
        .await
        .is(StatusCode::CREATED);
}

#[tokio::test]
async fn a_deleted_session_is_out_of_sight_before_a_worker_has_removed_it() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let accepted = gateway.request("DELETE", "/api/v1/sessions/s").go().await;
    accepted.is(StatusCode::ACCEPTED);
    assert_eq!(*accepted.data(), json!({ "id": "s", "done": false }));
    gateway
        .get("/api/v1/sessions/s")
        .await
        .fails(404, "session_not_found");
    gateway
        .request("DELETE", "/api/v1/sessions/s")
        .go()
        .await
        .fails(404, "session_not_found");
    assert_eq!(
        gateway.get("/api/v1/sessions").await.json["data"],
        json!([])
    );
}

#[tokio::test]
async fn a_restart_is_accepted_and_keeps_the_link() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let answer = gateway
        .request("POST", "/api/v1/sessions/s/restart")
        .go()
        .await;
    answer.is(StatusCode::ACCEPTED);
    assert_eq!(answer.data()["linked"], true);
    assert_eq!(
        answer.data()["status"],
        "connecting",
        "before the worker has heard of it"
    );
    hand.link().await;
    assert_eq!(
        gateway.get("/api/v1/sessions/s").await.data()["status"],
        "connected"
    );

    // What was shown before the restart is not shown after it.
    gateway
        .post("/api/v1/sessions", json!({ "id": "t" }))
        .await
        .is(StatusCode::CREATED);
    gateway
        .post("/api/v1/sessions/t/connect?wait=0", json!({}))
        .await
        .is(StatusCode::ACCEPTED);
    let hand = gateway.hand("t").await;
    hand.show_qr("2@before").await;
    gateway
        .get("/api/v1/sessions/t/qr")
        .await
        .is(StatusCode::OK);
    let answer = gateway
        .request("POST", "/api/v1/sessions/t/restart")
        .go()
        .await;
    assert_eq!(answer.data()["status"], "initializing");
    gateway
        .get("/api/v1/sessions/t/qr")
        .await
        .fails(409, "qr_not_available");
    hand.show_qr("2@after").await;
    let shown = gateway.get("/api/v1/sessions/t/qr").await;
    assert_eq!(shown.data()["qrString"], "2@after");
}

#[tokio::test]
async fn each_state_has_its_word_and_its_reason() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let reason = LinkReason::new("stream_error", "the stream ended");
    let until = wagate_domain::Clock::now(&gateway.clock);
    for (state, word, code) in [
        (LinkState::Connecting, "connecting", None),
        (
            LinkState::Backoff {
                until,
                reason: reason.clone(),
            },
            "disconnected",
            Some("stream_error"),
        ),
        (LinkState::Stopped, "disconnected", None),
        (
            LinkState::Banned {
                until: None,
                reason: reason.clone(),
            },
            "error",
            Some("stream_error"),
        ),
        (LinkState::Replaced, "error", None),
        (LinkState::Outdated, "error", None),
        (
            LinkState::LoggedOut { reason },
            "logged_out",
            Some("stream_error"),
        ),
    ] {
        hand.state(state).await;
        let answer = gateway.get("/api/v1/sessions/s").await;
        assert_eq!(answer.data()["status"], word, "{}", answer.json);
        assert_eq!(
            answer.data()["reason"]["code"].as_str(),
            code,
            "{}",
            answer.json
        );
    }
}
