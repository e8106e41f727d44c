//! Goal: a message goes through every state, and the answers tell the truth about it.
//! Method: link one session, send through HTTP, look at the friend's phone and at what is recorded.

use serde_json::json;
use wagate_e2e::{Harness, Setup};
use wagate_network::faults::{Action, FaultRule, Match};
use wagate_network::world::AccountSpec;

use crate::support::{FRIEND, GATEWAY, OTHER, OWNER, harness};

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_sent_delivered_and_read() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let status = harness.link("first", &owner).await.unwrap();
    assert_eq!(status["phoneNumber"], OWNER);

    // Nobody can have it yet: the answer is what WhatsApp's server said, no more and no less.
    friend.go_offline().unwrap();
    let answer = harness
        .post_text("first", FRIEND, "Hello", "10")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.data()["status"], "sent");
    assert_eq!(answer.data()["sessionId"], "first");
    let id = answer.data()["id"].as_str().unwrap().to_owned();
    let message = harness.message(&id).await.unwrap();
    assert_eq!(message["status"], "sent");

    friend.go_online().unwrap();
    friend.expect_text("Hello").await.unwrap();
    let message = harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(message["status"], "delivered");
    friend.read(OWNER).await.unwrap();
    let message = harness.until_message(&id, "read").await.unwrap();
    let steps: Vec<&str> = message["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["status"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["queued", "sending", "sent", "delivered", "read"]);
    // The owner's own phone shows what the gateway sent.
    owner.expect_text("Hello").await.unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_receipt_has_overtaken_says_so() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("first", &owner).await.unwrap();
    // The server's own word comes long after that of the friend's phone.
    let matches = Match::from_device("message").account(OWNER.trim_start_matches('+'));
    let late = FaultRule::new(matches, Action::LateAck { ms: 4_000 });
    harness
        .network
        .with_world(|world, _, _| world.faults.add(late))
        .unwrap();
    let answer = harness
        .post_text("first", FRIEND, "Hello", "20")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.data()["status"], "delivered");
    friend.expect_text("Hello").await.unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_does_not_wait_is_accepted_with_202() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("first", &owner).await.unwrap();
    let answer = harness
        .post_text("first", FRIEND, "Hello", "0")
        .await
        .unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.data()["status"], "queued");
    friend.expect_text("Hello").await.unwrap();
    let id = answer.data()["id"].as_str().unwrap().to_owned();
    harness.until_message(&id, "delivered").await.unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_one_chat_keep_their_order() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let other = harness.account(OTHER, "Citra").unwrap();
    harness.link("first", &owner).await.unwrap();
    let mut last = Vec::new();
    for n in 0..30 {
        harness
            .send("first", &friend, &format!("friend {n}"))
            .await
            .unwrap();
        last.push(
            harness
                .send("first", &other, &format!("other {n}"))
                .await
                .unwrap(),
        );
    }
    for id in &last {
        harness.until_message(id, "delivered").await.unwrap();
    }
    friend.expect_text("friend 29").await.unwrap();
    for (phone, name) in [(&friend, "friend"), (&other, "other")] {
        let shown: Vec<String> = phone
            .texts()
            .into_iter()
            .filter(|text| text.starts_with(name))
            .collect();
        let wanted: Vec<String> = (0..30).map(|n| format!("{name} {n}")).collect();
        assert_eq!(shown, wanted);
    }
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_idempotency_key_sends_once() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("first", &owner).await.unwrap();
    let body = json!({ "to": FRIEND, "type": "text", "message": "once" });
    let path = "/api/v1/sessions/first/messages?wait=0";
    let key = [("idempotency-key", "order-7")];
    let post = reqwest::Method::POST;
    let one = harness
        .client()
        .call(post.clone(), path, Some(&body), &key)
        .await
        .unwrap();
    let two = harness
        .client()
        .call(post.clone(), path, Some(&body), &key)
        .await
        .unwrap();
    assert_eq!(one.data()["id"], two.data()["id"]);
    let other = json!({ "to": FRIEND, "type": "text", "message": "twice" });
    let refused = harness
        .client()
        .call(post, path, Some(&other), &key)
        .await
        .unwrap_err();
    assert_eq!(refused.status(), Some(409));
    harness
        .until_message(one.data()["id"].as_str().unwrap(), "delivered")
        .await
        .unwrap();
    friend.expect_text("once").await.unwrap();
    assert_eq!(friend.texts(), ["once"]);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_not_on_whatsapp_fails_with_the_reason() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("first", &owner).await.unwrap();
    let refused = harness
        .post_text("first", OTHER, "Anybody?", "20")
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        Some("recipient_not_registered"),
        "{refused}"
    );
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_moved_to_lids_sends_and_receives() {
    let harness = Harness::start(GATEWAY, Setup::default()).await.unwrap();
    let spec = |phone: &str, lid: &str| AccountSpec {
        phone: phone.to_owned(),
        lid: Some(lid.to_owned()),
        migrated_to_lid: true,
        ..AccountSpec::default()
    };
    let owner = harness.account_with(spec(OWNER, "900100000001")).unwrap();
    let friend = harness.account_with(spec(FRIEND, "900200000002")).unwrap();
    harness.link("first", &owner).await.unwrap();
    let id = harness.send("first", &friend, "Hello LID").await.unwrap();
    friend.expect_text("Hello LID").await.unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    friend.send(OWNER, "Hello back").await.unwrap();
    let received = harness.until_received("first", 1).await.unwrap();
    assert_eq!(received[0]["text"], "Hello back");
    harness.check().unwrap();
}
