//! Goal: what a device of the recipient cannot decrypt at first is shown in the end, whatever becomes of
//! the protocol library's own answer to the request.
//! Method: a phone loses the keys that it shares with the gateway; then the answer is refused, swallowed
//! by a crash, or not possible since it comes much later.

use std::time::Duration;

use serde_json::json;
use wagate_e2e::Harness;
use wagate_network::faults::{Action, FaultRule, Match, When};
use wagate_network::handle::PhoneHandle;

use crate::support::{FRIEND, OWNER, harness_with};

const SOON: (&str, &str) = ("WAGATE_WORKER__RESEND_AFTER", "300ms");

/// Two who have written to each other, so that messages carry no prekeys any more.
async fn acquainted(harness: &Harness) -> PhoneHandle {
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("main", &owner).await.unwrap();
    let first = harness.send("main", &friend, "hello").await.unwrap();
    harness.until_message(&first, "delivered").await.unwrap();
    friend.send(OWNER, "hello yourself").await.unwrap();
    harness.until_received("main", 1).await.unwrap();
    let second = harness.send("main", &friend, "good").await.unwrap();
    harness.until_message(&second, "delivered").await.unwrap();
    friend
}

async fn is_shown_once(harness: &Harness, friend: &PhoneHandle, id: &str) {
    harness.until_message(id, "delivered").await.unwrap();
    friend.expect_text("precious").await.unwrap();
    let times = friend.texts().iter().filter(|t| *t == "precious").count();
    assert_eq!(times, 1);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_that_whatsapp_refuses_is_made_again() {
    let harness = harness_with(&[SOON]).await;
    let friend = acquainted(&harness).await;
    assert_eq!(friend.lose_keys(OWNER).unwrap(), 2, "phone and gateway");
    // The message itself is taken; the library's answer to the request is the second of its kind.
    let matches = Match::from_device("message").account(OWNER);
    let refusal = FaultRule::new(matches, Action::Nack { code: 500 }).when(When {
        nth: Some(2),
        ..When::default()
    });
    let added = harness
        .network
        .with_world(|world, _, _| world.faults.add(refusal));
    added.unwrap();
    let id = harness.send("main", &friend, "precious").await.unwrap();
    is_shown_once(&harness, &friend, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_before_it_repeats_a_message_does_so_later() {
    let mut harness = harness_with(&[SOON]).await;
    let friend = acquainted(&harness).await;
    harness
        .restart_with(&[("WAGATE_TESTING__ABORT_AT", "asked_again")])
        .await
        .unwrap();
    harness.until_session("main", "connected").await.unwrap();
    friend.lose_keys(OWNER).unwrap();
    let body = json!({ "to": FRIEND, "text": "precious", "wait": 0 });
    let path = "/api/v1/sessions/main/messages";
    let answer = harness.client().post(path, &body).await.unwrap();
    let id = answer.data()["id"].as_str().unwrap().to_owned();
    harness
        .gateway()
        .ended(Duration::from_secs(30))
        .await
        .unwrap();
    harness.restart().await.unwrap();
    is_shown_once(&harness, &friend, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_be_asked_for_as_long_as_it_is_stored() {
    let mut harness = harness_with(&[("WAGATE_WORKER__RESEND_AFTER", "1h")]).await;
    let friend = acquainted(&harness).await;
    friend.lose_keys(OWNER).unwrap();
    // Its phone is off meanwhile, and the gateway forgets what it had in memory.
    friend.go_offline().unwrap();
    let id = harness.send("main", &friend, "precious").await.unwrap();
    harness.until_message(&id, "sent").await.unwrap();
    harness.restart().await.unwrap();
    harness.until_session("main", "connected").await.unwrap();
    friend.go_online().unwrap();
    is_shown_once(&harness, &friend, &id).await;
}
