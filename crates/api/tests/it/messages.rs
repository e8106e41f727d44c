//! Sending, reading and cancelling messages by the canonical routes.

use http::StatusCode;
use serde_json::{Value, json};
use wagate_domain::message::MessageInput;
use wagate_domain::session::LinkReason;
use wagate_domain::{LinkState, ReceiptKind};
use wagate_store::bus::{BusMessage, Heard};
use wagate_store::messages::{self, MessageFilter};
use wagate_store::sessions;

use crate::support::{Answer, Gateway, PEER};

const PATH: &str = "/api/v1/sessions/s/messages";

fn text(to: &str) -> Value {
    json!({ "to": to, "type": "text", "text": "Hello!" })
}

async fn queued(gateway: &Gateway) -> Answer {
    let answer = gateway.post(&format!("{PATH}?wait=0"), text(PEER)).await;
    answer.is(StatusCode::ACCEPTED);
    answer
}

#[tokio::test]
async fn a_send_that_waits_answers_sent_after_the_servers_acknowledgement() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await.keep_working();
    let answer = gateway.post(PATH, text(PEER)).await;
    answer.is(StatusCode::OK);
    let data = answer.data();
    assert_eq!(data["status"], "sent");
    assert_eq!(data["sessionId"], "s");
    assert_eq!(data["direction"], "outbound");
    assert_eq!(data["chat"], format!("{PEER}@s.whatsapp.net"));
    assert_eq!(data["type"], "text");
    assert_eq!(data["text"], "Hello!");
    assert_eq!(data["fromMe"], true);
    assert_eq!(data["sentAt"], "2026-11-21T08:00:00.000Z");
    assert!(data["waMessageId"].as_str().unwrap().starts_with("3EB0"));
    assert!(data["id"].as_str().unwrap().starts_with("msg_"));
}

/// Its worker may be told before the commit, but what it then asks of the database comes after.
#[tokio::test]
async fn whoever_hears_of_a_message_finds_it_in_the_next_transaction() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let (db, mut orders) = (gateway.db.clone(), gateway.bus.subscribe_to_orders());
    let listener = async {
        for heard in 1..=20 {
            let Heard::Message(BusMessage::QueueReady { session }) = orders.recv().await else {
                panic!("an order of another kind");
            };
            let found = db.write(move |tx| {
                let tenant = sessions::find(tx, &session)?.tenant;
                messages::count(tx, &tenant, &session, &MessageFilter::default())
            });
            assert!(found.await.unwrap() >= heard);
        }
    };
    let senders = async {
        for _ in 0..20 {
            queued(&gateway).await;
        }
    };
    tokio::join!(listener, senders);
}

#[tokio::test]
async fn without_a_wait_or_a_worker_the_message_is_queued_and_goes_on() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let answer = queued(&gateway).await;
    assert_eq!(answer.data()["status"], "queued");
    let waited = gateway
        .post(&format!("{PATH}?wait=1"), text("6281111111111"))
        .await;
    waited.is(StatusCode::ACCEPTED);
    assert_eq!(hand.send_all().await, 2);
    let id = answer.data()["id"].as_str().unwrap();
    let read = gateway.get(&format!("/api/v1/messages/{id}")).await;
    assert_eq!(read.data()["status"], "sent");
}

#[tokio::test]
async fn a_session_that_is_away_takes_messages_and_one_that_needs_somebody_does_not() {
    let gateway = Gateway::start().await;
    gateway
        .post("/api/v1/sessions", json!({ "id": "new" }))
        .await
        .is(StatusCode::CREATED);
    let answer = gateway
        .post("/api/v1/sessions/new/messages", text(PEER))
        .await;
    answer.fails(409, "session_not_linked");
    let answer = gateway
        .post("/api/v1/sessions/nobody/messages", text(PEER))
        .await;
    answer.fails(404, "session_not_found");

    let hand = gateway.connected("s").await;
    let reason = LinkReason::new("x", "y");
    let until = wagate_domain::Clock::now(&gateway.clock);
    for state in [
        LinkState::Backoff {
            until,
            reason: reason.clone(),
        },
        LinkState::Connecting,
    ] {
        hand.state(state).await;
        queued(&gateway).await;
    }
    for (state, code) in [
        (
            LinkState::Banned {
                until: None,
                reason: reason.clone(),
            },
            "session_banned",
        ),
        (LinkState::Replaced, "session_replaced"),
        (LinkState::Outdated, "client_outdated"),
        (LinkState::LoggedOut { reason }, "session_not_linked"),
    ] {
        hand.state(state).await;
        gateway.post(PATH, text(PEER)).await.fails(409, code);
    }
    hand.link().await;
    gateway
        .request("POST", "/api/v1/sessions/s/disconnect")
        .go()
        .await
        .is(StatusCode::ACCEPTED);
    gateway
        .post(PATH, text(PEER))
        .await
        .fails(409, "session_stopped");
    let listed = gateway.get(PATH).await;
    assert_eq!(
        listed.json["data"].as_array().unwrap().len(),
        2,
        "refused means not stored"
    );
}

#[tokio::test]
async fn a_failure_within_the_wait_is_a_failing_answer_that_names_the_message() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    for (failure, status, code) in [
        ("recipient_not_registered", 422, "recipient_not_registered"),
        ("recipient_blocked", 422, "recipient_blocked"),
        ("unconfirmed", 504, "send_unconfirmed"),
        ("anything_else", 422, "send_failed"),
    ] {
        let send = gateway.request("POST", PATH).json(&text(PEER));
        let fail = async {
            while hand.fail_all(failure).await == 0 {
                tokio::task::yield_now().await;
            }
        };
        let (answer, ()) = tokio::join!(send.go(), fail);
        answer.fails(status, code);
        assert_eq!(answer.data()["status"], "failed");
        assert_eq!(answer.data()["failure"]["code"], failure);
        let id = answer.data()["id"].as_str().unwrap();
        let read = gateway.get(&format!("/api/v1/messages/{id}")).await;
        assert_eq!(read.data()["status"], "failed");
    }
}

#[tokio::test]
async fn a_shutdown_answers_those_who_wait_and_keeps_their_messages() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let send = gateway
        .request("POST", &format!("{PATH}?wait=60"))
        .json(&text(PEER))
        .go();
    let end = async {
        loop {
            let listed = gateway.get(PATH).await;
            if !listed.json["data"].as_array().unwrap().is_empty() {
                break gateway.app.end_waits();
            }
        }
    };
    let started = tokio::time::Instant::now();
    let (answer, ()) = tokio::join!(send, end);
    answer.is(StatusCode::ACCEPTED);
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
    assert_eq!(hand.send_all().await, 1);
}

#[tokio::test]
async fn one_idempotency_key_used_at_once_makes_one_message() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let path = format!("{PATH}?wait=0");
    let sends = (0..20).map(|_| {
        gateway
            .request("POST", &path)
            .header("idempotency-key", "k")
            .json(&text(PEER))
            .go()
    });
    let answers = futures::future::join_all(sends).await;
    let mut ids: Vec<_> = answers
        .iter()
        .map(|answer| answer.data()["id"].as_str().unwrap())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let replayed = |answer: &&Answer| answer.headers.contains_key("idempotency-replayed");
    assert_eq!(answers.iter().filter(replayed).count(), 19);
    assert_eq!(hand.send_all().await, 1);
}

#[tokio::test]
async fn recipients_are_read_in_every_form() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    for to in [
        "6289876543210",
        "+6289876543210",
        "+62 898-7654-3210",
        "(62) 898.7654.3210",
        "6289876543210@s.whatsapp.net",
        "6289876543210@c.us",
    ] {
        let answer = gateway.post(&format!("{PATH}?wait=0"), text(to)).await;
        answer.is(StatusCode::ACCEPTED);
        assert_eq!(
            answer.data()["chat"],
            "6289876543210@s.whatsapp.net",
            "{to}"
        );
    }
    let answer = gateway
        .post(&format!("{PATH}?wait=0"), text("991234@lid"))
        .await;
    assert_eq!(answer.data()["chat"], "991234@lid");
    for bad in [
        "",
        "abc",
        "12",
        "1@b",
        "@s.whatsapp.net",
        "1234567890123456789012345",
    ] {
        let answer = gateway.post(PATH, text(bad)).await;
        answer.fails(400, "invalid_recipient").names("to");
    }
    for other in ["1203630000-55@g.us", "status@broadcast", "123@newsletter"] {
        gateway
            .post(PATH, text(other))
            .await
            .fails(422, "unsupported_recipient")
            .names("to");
    }
}

#[tokio::test]
async fn only_text_is_sent_and_everything_else_says_so() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let media = json!({ "url": "https://example.com/image.jpg" });
    for (mut body, path) in [
        (json!({ "type": "image", "media": media }), "type"),
        (json!({ "type": "document" }), "type"),
        (json!({ "type": "hologram" }), "type"),
        (json!({ "media": "data:image/png;base64,AA" }), "media"),
        (json!({ "caption": "c" }), "caption"),
        (json!({ "filename": "f" }), "filename"),
    ] {
        body["to"] = json!(PEER);
        body["text"] = json!("x");
        let answer = gateway.post(PATH, body).await;
        answer.fails(422, "unsupported_type").names(path);
        assert!(
            answer.json["error"]
                .as_str()
                .unwrap()
                .contains("supported now: text")
        );
    }
    // What is to come is told from what there is not.
    for (kind, sentence) in [
        ("image", "`image` cannot be sent yet"),
        ("hologram", "is not a type of message"),
    ] {
        let body = json!({ "to": PEER, "text": "x", "type": kind });
        let answer = gateway.post(PATH, body).await;
        let error = answer.json["error"].as_str().unwrap();
        assert!(error.contains(sentence), "{error}");
    }
}

#[tokio::test]
async fn a_field_that_is_missing_wrong_or_unknown_is_named() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    let long = "x".repeat(65_537);
    for (body, path) in [
        (json!({ "to": PEER }), "message"),
        (json!({ "to": PEER, "text": "" }), "text"),
        (json!({ "to": PEER, "message": "  " }), "message"),
        (json!({ "to": PEER, "text": "a", "message": "b" }), "text"),
        (json!({ "to": PEER, "text": "a\u{0}b" }), "text"),
        (json!({ "to": PEER, "text": long }), "text"),
        (
            json!({ "to": PEER, "text": "x", "sessionId": "t" }),
            "sessionId",
        ),
        (json!({ "to": PEER, "text": "x", "wait": 61 }), "wait"),
        (json!({ "text": "x" }), "to"),
        (json!({ "to": 62, "text": "x" }), "to"),
        (
            json!({ "to": PEER, "text": "x", "priorty": "high" }),
            "priorty",
        ),
    ] {
        gateway
            .post(PATH, body)
            .await
            .fails(422, "invalid_field")
            .names(path);
    }
    let twice = json!({ "to": PEER, "text": "x", "wait": 1 });
    gateway
        .post(&format!("{PATH}?wait=2"), twice)
        .await
        .fails(422, "invalid_field")
        .names("wait");
    assert_eq!(gateway.get(PATH).await.json["data"], json!([]));
    let same = json!({ "to": PEER, "text": "x", "message": "x", "media": null, "sessionId": "s" });
    gateway
        .post(&format!("{PATH}?wait=0"), same)
        .await
        .is(StatusCode::ACCEPTED);
    let longest = json!({ "to": PEER, "text": "x".repeat(65_536), "wait": 0 });
    gateway.post(PATH, longest).await.is(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_same_idempotency_key_and_body_get_the_first_answer_and_another_body_is_refused() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let path = format!("{PATH}?wait=0");
    let send = |body: Value| {
        gateway
            .request("POST", &path)
            .header("idempotency-key", "k-1")
            .json(&body)
    };
    let first = send(text(PEER)).go().await;
    first.is(StatusCode::ACCEPTED);
    assert!(first.headers.get("idempotency-replayed").is_none());
    // Written in another way, and the same in meaning.
    let again = send(json!({ "to": "+62 898 7654 3210", "message": "Hello!" }))
        .go()
        .await;
    again.is(StatusCode::ACCEPTED);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.data()["id"], first.data()["id"]);
    assert_eq!(again.data()["waMessageId"], first.data()["waMessageId"]);
    for other in [
        json!({ "to": PEER, "text": "Bye!" }),
        json!({ "to": "+62 898 7654 3211", "text": "Hello!" }),
    ] {
        let refused = send(other).go().await;
        refused.fails(409, "idempotency_conflict");
    }

    assert_eq!(hand.send_all().await, 1, "one message");
    let sent = send(text(PEER)).go().await;
    sent.is(StatusCode::OK);
    assert_eq!(sent.data()["status"], "sent");

    // A repeat gets the first answer even when the session takes nothing new.
    hand.state(LinkState::Replaced).await;
    send(text(PEER)).go().await.is(StatusCode::OK);
    let new = gateway
        .request("POST", &path)
        .header("idempotency-key", "k-2")
        .json(&text(PEER));
    new.go().await.fails(409, "session_replaced");
    assert_eq!(
        gateway.get(PATH).await.json["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_idempotency_key_has_1_to_255_visible_characters() {
    let gateway = Gateway::start().await;
    gateway.connected("s").await;
    for bad in ["", "a b", "ä", &"k".repeat(256)] {
        let send = gateway
            .request("POST", PATH)
            .header("idempotency-key", bad)
            .json(&text(PEER));
        send.go()
            .await
            .fails(422, "invalid_field")
            .names("Idempotency-Key");
    }
    let twice = gateway
        .request("POST", PATH)
        .header("idempotency-key", "a")
        .header("idempotency-key", "b")
        .json(&text(PEER));
    twice
        .go()
        .await
        .fails(422, "invalid_field")
        .names("Idempotency-Key");
    let longest = "k".repeat(255);
    let path = format!("{PATH}?wait=0");
    let send = gateway
        .request("POST", &path)
        .header("idempotency-key", &longest)
        .json(&text(PEER));
    send.go().await.is(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_message_tells_the_history_of_its_status() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let made = queued(&gateway).await;
    let (id, wa_id) = (
        made.data()["id"].as_str().unwrap(),
        made.data()["waMessageId"].as_str(),
    );
    hand.send_all().await;
    hand.receipt(
        wa_id.unwrap(),
        MessageInput::Receipt(ReceiptKind::Delivered),
    )
    .await;
    hand.receipt(wa_id.unwrap(), MessageInput::Receipt(ReceiptKind::Read))
        .await;
    let read = gateway.get(&format!("/api/v1/messages/{id}")).await;
    read.is(StatusCode::OK);
    assert_eq!(read.data()["status"], "read");
    assert_eq!(read.data()["attempts"], 1);
    let steps = read.data()["history"].as_array().unwrap();
    let words: Vec<_> = steps
        .iter()
        .map(|step| step["status"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["queued", "sending", "sent", "delivered", "read"]);
    for unknown in ["msg_01arz3ndektsv4rrffq69g5fav", "msg_", "x", "ses_1"] {
        gateway
            .get(&format!("/api/v1/messages/{unknown}"))
            .await
            .fails(404, "message_not_found");
    }
}

#[tokio::test]
async fn a_queued_message_is_canceled_and_a_sent_one_is_not() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    let made = queued(&gateway).await;
    let path = format!("/api/v1/messages/{}", made.data()["id"].as_str().unwrap());
    let canceled = gateway.request("DELETE", &path).go().await;
    canceled.is(StatusCode::OK);
    assert_eq!(canceled.data()["status"], "canceled");
    assert_eq!(hand.send_all().await, 0, "it is not sent");

    let made = queued(&gateway).await;
    hand.send_all().await;
    let path = format!("/api/v1/messages/{}", made.data()["id"].as_str().unwrap());
    gateway
        .request("DELETE", &path)
        .go()
        .await
        .fails(409, "message_not_cancelable");
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_filtered() {
    let gateway = Gateway::start().await;
    let hand = gateway.connected("s").await;
    for n in 0..3 {
        let body = json!({ "to": PEER, "text": format!("out {n}"), "wait": 0 });
        gateway.post(PATH, body).await.is(StatusCode::ACCEPTED);
    }
    hand.send_all().await;
    gateway.clock.advance(std::time::Duration::from_secs(1));
    hand.receive("IN1", "in").await;

    let all = gateway.get(PATH).await;
    let texts = |answer: &Answer| -> Vec<String> {
        let rows = answer.json["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts(&all), ["in", "out 2", "out 1", "out 0"]);
    let inbound = &all.json["data"][0];
    assert_eq!(inbound["direction"], "inbound");
    assert_eq!(inbound["status"], "received");
    assert_eq!(inbound["sender"], format!("{PEER}@s.whatsapp.net"));
    assert_eq!(inbound["pushName"], "Peer");
    assert_eq!(inbound["fromMe"], false);

    let first = gateway.get(&format!("{PATH}?limit=3")).await;
    let next = first.json["page"]["next"].as_str().unwrap();
    let rest = gateway.get(&format!("{PATH}?limit=3&cursor={next}")).await;
    assert_eq!([texts(&first), texts(&rest)].concat(), texts(&all));
    assert_eq!(rest.json["page"]["next"], Value::Null);

    for (filter, want) in [
        ("direction=inbound", 1),
        ("status=sent", 3),
        ("status=failed", 0),
        ("chat=%2B62%20898-7654-3210", 4),
        ("chat=6281111111111", 0),
    ] {
        let answer = gateway.get(&format!("{PATH}?{filter}")).await;
        answer.is(StatusCode::OK);
        assert_eq!(texts(&answer).len(), want, "{filter}");
    }
    for (bad, path) in [
        ("chat=x", "chat"),
        ("limit=201", "limit"),
        ("cursor=xyz", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
    ] {
        gateway
            .get(&format!("{PATH}?{bad}"))
            .await
            .fails(422, "invalid_field")
            .names(path);
    }
    gateway
        .get(&format!("{PATH}?status=lost"))
        .await
        .fails(422, "invalid_field");
}
