//! Goal: a session comes back by itself, with no QR, after every kind of lost connection.
//! Method: restart the gateway, drop, refuse or silence its connections, then send.

use crate::support::{FRIEND, OWNER, harness, harness_with};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_restored_after_a_restart_with_no_qr() {
    let mut harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("kept", &owner).await.unwrap();
    harness.restart().await.unwrap();
    harness.until_session("kept", "connected").await.unwrap();
    let id = harness.send("kept", &friend, "still here").await.unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(owner.companions(), 1);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_comes_back_and_nothing_is_lost() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("dropped", &owner).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(
            harness
                .send("dropped", &friend, &format!("text {n}"))
                .await
                .unwrap(),
        );
        if n % 3 == 0 {
            owner.drop_companions();
        }
    }
    for id in &ids {
        harness.until_message(id, "delivered").await.unwrap();
    }
    assert_eq!(
        friend.texts(),
        (0..10).map(|n| format!("text {n}")).collect::<Vec<_>>()
    );
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_is_answered_by_the_same_id_again() {
    let harness = harness_with(&[("WAGATE_WORKER__ACK_TIMEOUT", "1s")]).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("unheard", &owner).await.unwrap();
    owner.lose_acks(1);
    let id = harness
        .send("unheard", &friend, "heard once")
        .await
        .unwrap();
    harness.until_message(&id, "sent").await.unwrap();
    friend.expect_text("heard once").await.unwrap();
    assert_eq!(friend.texts(), ["heard once"]);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_noticed_and_replaced() {
    let harness = harness_with(&[("WAGATE_WORKER__ACK_TIMEOUT", "3s")]).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("silent", &owner).await.unwrap();
    owner.silence_companions();
    let id = harness
        .send("silent", &friend, "into the silence")
        .await
        .unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(friend.texts(), ["into the silence"]);
    // The tenant is told, once for this silence.
    let events = harness.events().await.unwrap();
    let silent: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "session.silent")
        .collect();
    assert_eq!(silent.len(), 1, "{events:?}");
    assert_eq!(silent[0]["data"]["session"], "silent");
    harness.check().unwrap();
}
