//! Goal: `kill -9` between any two steps of the message path loses nothing and doubles nothing.
//! Method: the gateway aborts at a named point, is started again, and the network is the judge.

use std::time::Duration;

use crate::support::{FRIEND, OWNER, harness};

/// Sends three texts into a gateway that dies at `point` under the first, second or third of them.
///
/// What was sent before has been delivered by then, and the rest goes out after the restart: so each is
/// `delivered` in the end. Only the text under which the gateway dies may be less, and only where
/// `receipt_at_risk` says that its receipt can have been acknowledged to WhatsApp before the crash.
async fn outbound(point: &str, receipt_at_risk: bool) {
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
            if n < skip {
                let (_, id) = &accepted[n];
                harness.until_message(id, "delivered").await.unwrap();
            }
        }
        harness
            .gateway()
            .ended(Duration::from_secs(30))
            .await
            .unwrap();
        harness.restart().await.unwrap();
        for (n, id) in &accepted {
            let at_risk = receipt_at_risk && *n == skip;
            let status = if at_risk { "sent" } else { "delivered" };
            harness.until_message(id, status).await.unwrap();
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
    outbound("accepted_committed", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_claim() {
    outbound("claimed", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_write_and_before_the_acknowledgement() {
    // The write may be told of after WhatsApp's answer and the friend's receipt: then both can have come,
    // the answer be committed, and the receipt be acknowledged by the library and not committed.
    outbound("written_not_acked", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_acknowledgement_and_before_its_commit() {
    // Without its acknowledgement the text goes out again, and the friend's phone confirms it again.
    outbound("acked_not_committed", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_decrypting_and_before_the_commit() {
    inbound("inbound_decrypted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_and_before_acknowledging() {
    inbound("inbound_committed").await;
}
