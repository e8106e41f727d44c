//! Goal: whatever WhatsApp does to a session becomes a state with a reason; the verbs do what they say.
//! Method: the phone, another holder of the link or a fault ends the connection; status is read.

use serde_json::json;

use crate::support::{FRIEND, OWNER, harness};

#[tokio::test(flavor = "multi_thread")]
async fn unlinked_on_the_phone_becomes_logged_out_and_can_be_linked_again() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("gone", &owner).await.unwrap();
    owner.unlink_all().await.unwrap();
    let status = harness.until_session("gone", "logged_out").await.unwrap();
    assert!(status["reason"]["code"].is_string(), "{status}");
    let refused = harness
        .post_text("gone", FRIEND, "Hello", "0")
        .await
        .unwrap_err();
    assert_eq!(refused.status(), Some(409), "{refused}");
    harness.link_again("gone", &owner).await.unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_unlinks_at_whatsapp_and_forgets_the_keys() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("leaving", &owner).await.unwrap();
    assert_eq!(owner.companions(), 1);
    harness
        .client()
        .post("/api/v1/sessions/leaving/logout", &json!({}))
        .await
        .unwrap();
    let status = harness
        .until_session("leaving", "logged_out")
        .await
        .unwrap();
    assert_eq!(status["linked"], false);
    assert_eq!(owner.companions(), 0);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_keeps_the_keys_and_connect_needs_no_qr() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("pausing", &owner).await.unwrap();
    harness
        .client()
        .post("/api/v1/sessions/pausing/disconnect", &json!({}))
        .await
        .unwrap();
    let status = harness
        .until_session("pausing", "disconnected")
        .await
        .unwrap();
    assert_eq!(status["linked"], true);
    assert_eq!(owner.companions(), 1);
    harness
        .client()
        .post(
            "/api/v1/sessions/pausing/connect",
            &json!({ "method": "qr" }),
        )
        .await
        .unwrap();
    harness.until_session("pausing", "connected").await.unwrap();
    harness
        .client()
        .post("/api/v1/sessions/pausing/restart", &json!({}))
        .await
        .unwrap();
    let id = harness
        .send("pausing", &friend, "after the restart")
        .await
        .unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(owner.companions(), 1);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_removes_the_session_and_unlinks_it() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("going", &owner).await.unwrap();
    harness
        .client()
        .delete("/api/v1/sessions/going")
        .await
        .unwrap();
    harness
        .until("the session to be gone", || async {
            let answer = harness.client().get("/api/v1/sessions/going").await;
            let gone = answer
                .as_ref()
                .is_err_and(|error| error.status() == Some(404));
            Ok((gone, json!(format!("{answer:?}"))))
        })
        .await
        .unwrap();
    harness
        .until("the phone to show no companion", || async {
            Ok((owner.companions() == 0, json!(owner.companions())))
        })
        .await
        .unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_holder_of_the_device_is_not_fought_over() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("shared", &owner).await.unwrap();
    owner.stream_error("conflict_replaced").await.unwrap();
    let status = harness.until_session("shared", "error").await.unwrap();
    assert_eq!(status["linkState"], "replaced");
    let connects = harness.network.counters().connections_opened;
    // A restart asked for is a new wish, and is tried.
    harness
        .client()
        .post("/api/v1/sessions/shared/restart", &json!({}))
        .await
        .unwrap();
    harness.until_session("shared", "connected").await.unwrap();
    assert_eq!(harness.network.counters().connections_opened, connects + 1);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_and_an_outdated_client_become_states_with_a_reason() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("judged", &owner).await.unwrap();
    for (failure, link_state) in [("ban", "banned"), ("outdated", "outdated")] {
        owner.refuse_connect(failure).await.unwrap();
        harness
            .client()
            .post("/api/v1/sessions/judged/restart", &json!({}))
            .await
            .unwrap();
        let status = harness.until_session("judged", "error").await.unwrap();
        assert_eq!(status["linkState"], link_state, "{status}");
        owner.accept_connects();
        harness
            .client()
            .post("/api/v1/sessions/judged/restart", &json!({}))
            .await
            .unwrap();
        harness.until_session("judged", "connected").await.unwrap();
    }
    harness.check().unwrap();
}
