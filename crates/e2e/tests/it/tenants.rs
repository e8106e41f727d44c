//! Goal: what one tenant sends does not depend on how much another has waiting.
//! Method: a share of one message, a backlog over several chats, and a tenant that goes on sending beside it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use wagate::client::Client;
use wagate_e2e::{Harness, people};

use crate::support::{OWNER, harness_with};

const TOKEN: &str = "the-token-for-the-metrics-of-this-test";
/// More than one claim takes.
const CHATS: usize = 6;
const MESSAGES: usize = 24;

/// Lets a backlog of the first tenant go; ends when all of it is delivered.
async fn drain(harness: &Harness, name: &str) {
    let client = harness.client();
    let queue = "/api/v1/sessions/main/queue";
    client
        .post(&format!("{queue}/pause"), &json!({}))
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        let to = people::contact_number(n % CHATS);
        let body = json!({ "to": to, "text": format!("{name} {n}"), "wait": 0 });
        let path = "/api/v1/sessions/main/messages";
        let accepted = client.post(path, &body).await.unwrap();
        ids.push(accepted.data()["id"].as_str().unwrap().to_owned());
    }
    client
        .post(&format!("{queue}/resume"), &json!({}))
        .await
        .unwrap();
    for id in ids {
        harness.until_message(&id, "delivered").await.unwrap();
    }
}

/// How often a session got fewer places than it wanted.
async fn held_back(harness: &Harness) -> u64 {
    let metrics = harness.client().with_key(TOKEN);
    let metrics = metrics.text("/metrics").await.unwrap();
    let mut lines = metrics.lines();
    lines
        .find_map(|line| line.strip_prefix("wagate_sends_held_back_total "))
        .map_or(0, |value| value.trim().parse().unwrap())
}

/// Sends again and again, until it is told to stop.
async fn go_on(client: Client, stop: &AtomicBool) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = json!({ "to": people::contact_number(0), "text": "beside", "wait": 20 });
        let path = "/api/v1/sessions/other/messages";
        let answer = client.post(path, &body).await.unwrap();
        assert_ne!(answer.data()["status"], Value::from("failed"));
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_held_back_while_another_tenant_sends_and_only_then() {
    let harness = harness_with(&[
        ("WAGATE_WORKER__TENANT_SHARE", "1"),
        ("WAGATE_SECURITY__METRICS_TOKEN", TOKEN),
    ])
    .await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("main", &owner).await.unwrap();
    for n in 0..CHATS {
        harness
            .account(&people::contact_number(n), "Contact")
            .unwrap();
    }
    let key = harness.program.tenant("another").await.unwrap();
    let another = harness.client().with_key(key);
    let phone = harness.account(&people::owner_number(1), "Other").unwrap();
    people::link(&another, "other", &phone).await.unwrap();

    drain(&harness, "alone").await;
    assert_eq!(held_back(&harness).await, 0);

    let stop = AtomicBool::new(false);
    let backlog = async {
        drain(&harness, "beside").await;
        stop.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(go_on(another, &stop), backlog);
    assert!(sent > 0);
    assert!(held_back(&harness).await > 0);
    harness.check().unwrap();
}
