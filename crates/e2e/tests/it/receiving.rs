//! Goal: what comes in is stored once and reported, whatever happens on the way.
//! Method: phones write to a linked session; messages and events are read through HTTP.

use serde_json::json;

use crate::support::{FRIEND, OWNER, harness};

#[tokio::test(flavor = "multi_thread")]
async fn an_inbound_text_is_stored_and_reported_once() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("inbox", &owner).await.unwrap();
    friend.send(OWNER, "Are you there?").await.unwrap();
    let received = harness.until_received("inbox", 1).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["text"], "Are you there?");
    assert_eq!(received[0]["status"], "received");
    let events = harness.events().await.unwrap();
    let inbound: Vec<_> = events
        .iter()
        .filter(|e| e["type"] == "message.received")
        .collect();
    assert_eq!(inbound.len(), 1);
    assert_eq!(
        inbound[0]["data"]["content"],
        json!({ "type": "text", "text": "Are you there?" })
    );
    assert_eq!(inbound[0]["data"]["fromMe"], false);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_writes_on_the_phone_appears_too() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("inbox", &owner).await.unwrap();
    owner.send(FRIEND, "From my own phone").await.unwrap();
    friend.expect_text("From my own phone").await.unwrap();
    let seen = harness
        .until("the owner's own message", || async {
            let events = harness.events().await?;
            let own = events
                .iter()
                .find(|event| event["data"]["fromMe"] == true)
                .cloned();
            Ok((own.is_some(), own.unwrap_or_default()))
        })
        .await
        .unwrap();
    assert_eq!(seen["data"]["content"]["text"], "From my own phone");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_sent_while_the_gateway_was_away_arrive_after_its_return() {
    let mut harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("inbox", &owner).await.unwrap();
    friend.send(OWNER, "before").await.unwrap();
    harness.until_received("inbox", 1).await.unwrap();
    harness.gateway().kill().await.unwrap();
    for n in 0..20 {
        friend.send(OWNER, &format!("away {n}")).await.unwrap();
    }
    harness.restart().await.unwrap();
    let received = harness.until_received("inbox", 21).await.unwrap();
    let mut texts: Vec<&str> = received
        .iter()
        .map(|message| message["text"].as_str().unwrap())
        .collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 21);
    assert_eq!(received.len(), 21);
    harness.check().unwrap();
}
