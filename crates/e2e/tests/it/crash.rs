//! Goal: `kill -9` between any two steps of the message path loses nothing and doubles nothing.
//! Method: the gateway aborts at a named point, is started again, and the network is the judge.

use std::time::Duration;

use crate::support::{FRIEND, OWNER, harness};

/// Sends three texts into a gateway that dies at `point` under the first, second or third of them.
async fn outbound(point: &str) {
    for skip in 0..3 {
        let mut harness = harness().await;
        let owner = harness.account(OWNER, "Ayu").unwrap();
        let friend = harness.account(FRIEND, "Budi").unwrap();
        harness.link("crash", &owner).await.unwrap();
        let point = format!("{point}:{skip}");
        harness
            .restart_with(&[("WAGATE_TESTING__ABORT_AT", &point)])
            .await
            .unwrap();
        harness.until_session("crash", "connected").await.unwrap();
        let mut accepted = Vec::new();
        for n in 0..3 {
            match harness.send("crash", &friend, &format!("text {n}")).await {
                Ok(id) => accepted.push((n, id)),
                Err(_) => break,
            }
        }
        harness
            .gateway()
            .ended(Duration::from_secs(30))
            .await
            .unwrap();
        harness.restart().await.unwrap();
        for (n, id) in &accepted {
            // Not `delivered`: a receipt that came in the instant of the crash may be lost, the
            // message may not.
            harness.until_message(id, "sent").await.unwrap();
            friend.expect_text(&format!("text {n}")).await.unwrap();
        }
        let shown = friend.texts();
        let mut once = shown.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), shown.len(), "{point}: shown twice: {shown:?}");
        harness.check().unwrap();
    }
}

/// A phone writes to a gateway that dies at `point`.
async fn inbound(point: &str) {
    let mut harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("crash", &owner).await.unwrap();
    harness
        .restart_with(&[("WAGATE_TESTING__ABORT_AT", point)])
        .await
        .unwrap();
    harness.until_session("crash", "connected").await.unwrap();
    friend.send(OWNER, "do not lose me").await.unwrap();
    harness
        .gateway()
        .ended(Duration::from_secs(30))
        .await
        .unwrap();
    harness.restart().await.unwrap();
    let received = harness.until_received("crash", 1).await.unwrap();
    assert_eq!(received[0]["text"], "do not lose me");
    friend.send(OWNER, "nor me").await.unwrap();
    let received = harness.until_received("crash", 2).await.unwrap();
    assert_eq!(received.len(), 2);
    let events = harness.events().await.unwrap();
    assert_eq!(
        events
            .iter()
            .filter(|event| event["type"] == "message.received")
            .count(),
        2
    );
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_and_before_the_answer() {
    outbound("accepted_committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_claim() {
    outbound("claimed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_write_and_before_the_acknowledgement() {
    outbound("written_not_acked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_acknowledgement_and_before_its_commit() {
    outbound("acked_not_committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_decrypting_and_before_the_commit() {
    inbound("inbound_decrypted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_and_before_acknowledging() {
    inbound("inbound_committed").await;
}
