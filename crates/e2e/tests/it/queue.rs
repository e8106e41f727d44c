//! Goal: the queue does what was asked of it: order, times, validity, trying again, settings at run time.
//! Method: pause the queue or the network, let messages pile up, look at what goes out and in which order.

use reqwest::Method;
use serde_json::{Value, json};
use wagate_e2e::Harness;
use wagate_network::faults::{Action, FaultRule, Match};

use crate::support::{FRIEND, OTHER, OWNER, harness};

async fn send(harness: &Harness, to: &str, text: &str, more: Value) -> Value {
    let mut body = json!({ "to": to, "text": text, "wait": 0 });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let path = "/api/v1/sessions/main/messages";
    let answer = harness.client().post(path, &body).await.unwrap();
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.data().clone()
}

fn id(message: &Value) -> &str {
    message["id"].as_str().unwrap()
}

async fn post(harness: &Harness, path: &str) -> Value {
    let answer = harness.client().post(path, &json!({})).await.unwrap();
    answer.data().clone()
}

async fn concurrency(harness: &Harness, most: u32) {
    let body = json!({ "session": "main", "concurrency": most });
    let path = "/api/v1/queue/config";
    let answer = harness
        .client()
        .call(Method::PATCH, path, Some(&body), &[])
        .await
        .unwrap();
    assert_eq!(answer.data()["concurrency"], most);
}

/// Waits until so many messages are being sent.
async fn until_active(harness: &Harness, count: u64) -> Value {
    let path = "/api/v1/queue/stats?session=main";
    harness
        .until(&format!("{count} messages being sent"), || async {
            let seen = harness.client().get(path).await?.data()["sessions"][0].clone();
            Ok((seen["active"] == count, seen))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn high_overtakes_low_and_low_is_not_starved() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("main", &owner).await.unwrap();
    post(&harness, "/api/v1/sessions/main/queue/pause").await;
    let low = send(&harness, FRIEND, "low", json!({ "priority": "low" })).await;
    for n in 0..20 {
        let text = format!("high {n}");
        send(&harness, FRIEND, &text, json!({ "priority": "high" })).await;
    }
    assert_eq!(harness.message(id(&low)).await.unwrap()["status"], "queued");
    post(&harness, "/api/v1/sessions/main/queue/resume").await;
    friend.expect_text("high 19").await.unwrap();
    harness.until_message(id(&low), "delivered").await.unwrap();
    let texts = friend.texts();
    let high: Vec<&String> = texts.iter().filter(|text| *text != "low").collect();
    let wanted: Vec<String> = (0..20).map(|n| format!("high {n}")).collect();
    assert_eq!(high, wanted.iter().collect::<Vec<_>>(), "{texts:?}");
    let place = texts.iter().position(|text| text == "low").unwrap();
    assert!((1..=8).contains(&place), "low was sent as number {place}");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_message_goes_out_at_its_time_and_one_withdrawn_never() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("main", &owner).await.unwrap();
    let first = send(&harness, FRIEND, "at once", json!({})).await;
    let at: jiff::Timestamp = first["timestamp"].as_str().unwrap().parse().unwrap();
    let at = format!("{:.3}", at + std::time::Duration::from_secs(4));
    let later = send(&harness, FRIEND, "later", json!({ "sendAt": at })).await;
    let never = send(&harness, FRIEND, "never", json!({ "sendAt": at })).await;
    let canceled = harness
        .client()
        .delete(&format!("/api/v1/messages/{}", id(&never)))
        .await
        .unwrap();
    assert_eq!(canceled.data()["status"], "canceled");
    // What was accepted after it and is due now does not wait for it.
    let next = send(&harness, FRIEND, "next", json!({})).await;
    harness.until_message(id(&next), "delivered").await.unwrap();
    let sent = harness
        .until_message(id(&later), "delivered")
        .await
        .unwrap();
    // WhatsApp's own stamps are in whole seconds; this one is ours.
    let steps = sent["history"].as_array().unwrap();
    let taken = steps.iter().find(|step| step["status"] == "sending");
    assert!(
        taken.unwrap()["at"].as_str().unwrap() >= at.as_str(),
        "{sent}"
    );
    assert_eq!(friend.texts(), ["at once", "next", "later"]);
    let refused = harness
        .client()
        .delete(&format!("/api/v1/messages/{}", id(&later)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("message_not_cancelable"), "{refused}");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_the_session_is_away_never_goes_out() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("main", &owner).await.unwrap();
    owner.refuse_connect("503").await.unwrap();
    owner.drop_companions();
    harness.until_session("main", "disconnected").await.unwrap();
    let short = send(&harness, FRIEND, "too late", json!({ "expiresIn": 1 })).await;
    let long = send(&harness, FRIEND, "in time", json!({ "expiresIn": 600 })).await;
    harness.until_message(id(&short), "expired").await.unwrap();
    let failed = harness.client().get("/api/v1/queue/failed").await.unwrap();
    assert_eq!(failed.data()[0]["code"], "expired");
    owner.accept_connects();
    harness.until_message(id(&long), "delivered").await.unwrap();
    assert_eq!(friend.texts(), ["in time"]);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_again_and_delivered() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("main", &owner).await.unwrap();
    let sent = send(&harness, OTHER, "Anybody?", json!({})).await;
    harness.until_message(id(&sent), "failed").await.unwrap();
    let failed = harness.client().get("/api/v1/queue/failed").await.unwrap();
    assert_eq!(failed.data()[0]["id"], sent["id"]);
    assert_eq!(failed.data()[0]["code"], "recipient_not_registered");
    let other = harness.account(OTHER, "Citra").unwrap();
    let again = post(&harness, &format!("/api/v1/messages/{}/retry", id(&sent))).await;
    assert_eq!(again["waMessageId"], sent["waMessageId"]);
    harness.until_message(id(&sent), "delivered").await.unwrap();
    other.expect_text("Anybody?").await.unwrap();
    let failed = harness.client().get("/api/v1/queue/failed").await.unwrap();
    assert_eq!(failed.data(), &json!([]));
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_changed_while_messages_go_out() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("main", &owner).await.unwrap();
    concurrency(&harness, 1).await;
    let acks = Match::to_device("ack").account(OWNER);
    let slow = FaultRule::new(acks, Action::Delay { ms: 5_000 });
    let added = harness
        .network
        .with_world(|world, _, _| world.faults.add(slow));
    added.unwrap();
    let mut ids = Vec::new();
    for n in 0..12 {
        let number = format!("+62814000000{n:02}");
        // A receipt would prove what the acknowledgement says, and end the wait for it.
        let somebody = harness.account(&number, "Somebody").unwrap();
        somebody.go_offline().unwrap();
        let sent = send(&harness, &number, "Hello", json!({})).await;
        ids.push(id(&sent).to_owned());
    }
    let one = until_active(&harness, 1).await;
    assert_eq!(one["concurrency"], 1);
    concurrency(&harness, 4).await;
    until_active(&harness, 4).await;
    concurrency(&harness, 2).await;
    until_active(&harness, 2).await;
    harness
        .network
        .with_world(|world, _, _| world.faults.clear());
    for id in &ids {
        harness.until_message(id, "sent").await.unwrap();
    }
    harness.check().unwrap();
}
