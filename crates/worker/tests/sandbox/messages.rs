//! Goal: messages go out once each and in order, whatever is lost or refused on the way. Method: faults in
//! the network, wake-ups withheld.

use std::time::Duration;

use wagate_domain::MessageState;
use wagate_network::faults::{Action, FaultRule, Match, StreamErrorDetail, When};
use wagate_worker::WorkerOptions;

use crate::harness::{FRIEND, Harness, OWNER, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_wake_up_was_lost_is_sent() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("deaf")).await;
    let session = harness.linked("unheard", &owner).await;
    let message = harness.accept(&session, FRIEND, "nobody rang").await;
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert_eq!(friend.texts(), ["nobody rang"]);
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retried_is_not_overtaken_in_its_chat() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("patient")).await;
    let session = harness.linked("ordered", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let rule = FaultRule::new(matches, Action::Nack { code: 503 }).once();
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(harness.send(&session, FRIEND, &format!("text {n}")).await);
    }
    for id in &ids {
        harness.until_message(id, MessageState::Delivered).await;
    }
    assert_eq!(harness.message(&ids[0]).await.attempts, 2);
    assert_eq!(
        friend.texts(),
        ["text 0", "text 1", "text 2", "text 3", "text 4"]
    );
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_on_its_way_arrive() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("leaving")).await;
    let session = harness.linked("drained", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let late = Action::LateAck { ms: 800 };
    harness
        .network
        .with_world(|world, _, _| world.faults.add(FaultRule::new(matches, late)))
        .unwrap();
    let message = harness.send(&session, FRIEND, "on its way").await;
    friend.expect_text("on its way").await.unwrap();
    assert!(worker.stop(Duration::from_secs(10)).await);
    assert!(harness.message(&message).await.state.is_sent());
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_acknowledged_before_the_stop_goes_out_again_once_with_its_id() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let hasty = WorkerOptions {
        drain_within: Duration::from_millis(100),
        ..options("leaving")
    };
    let worker = harness.worker(hasty).await;
    let session = harness.linked("doubtful", &owner).await;
    owner.lose_acks(1);
    let message = harness.send(&session, FRIEND, "in doubt").await;
    friend.expect_text("in doubt").await.unwrap();
    assert!(worker.stop(Duration::from_secs(10)).await);
    let again = harness.worker(options("leaving")).await;
    harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert_eq!(friend.texts(), ["in doubt"]);
    assert!(again.stop(Duration::from_secs(10)).await);
    harness.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_doubt_when_the_device_is_unlinked_fails_as_unconfirmed() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    harness.phone(FRIEND, "Budi");
    let worker = harness.worker(options("unlinked")).await;
    let session = harness.linked("gone", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let unlink = Action::StreamError {
        code: Some(401),
        detail: Some(StreamErrorDetail::ConflictDeviceRemoved),
        close: true,
    };
    let rule = FaultRule::new(matches, unlink).once();
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let message = harness.send(&session, FRIEND, "did it arrive?").await;
    let seen = harness.until_message(&message, MessageState::Failed).await;
    let failure = seen.failure.map(|failure| failure.code);
    assert_eq!(failure.as_deref(), Some("unconfirmed"));
    assert!(worker.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_connection_costs_a_message_no_attempt() {
    let harness = Harness::start().await;
    let owner = harness.phone(OWNER, "Ayu");
    let friend = harness.phone(FRIEND, "Budi");
    let patient = WorkerOptions {
        retries_max: 0,
        ..options("patient")
    };
    let worker = harness.worker(patient).await;
    let session = harness.linked("flapping", &owner).await;
    let matches = Match::from_device("message").account(OWNER);
    let close = Action::Close { abrupt: true };
    let rule = FaultRule::new(matches, close).when(When {
        times: Some(4),
        ..When::default()
    });
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let message = harness.send(&session, FRIEND, "again and again").await;
    let seen = harness
        .until_message(&message, MessageState::Delivered)
        .await;
    assert_eq!(seen.state, MessageState::Delivered, "{:?}", seen.failure);
    assert_eq!(friend.texts(), ["again and again"]);
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}

/// Nine chats, acknowledgements late, lost or refused, connections cut in between.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_faults_everything_arrives_once_and_in_order() {
    const SESSIONS: usize = 3;
    const FRIENDS: usize = 3;
    const TEXTS: usize = 6;
    let harness = Harness::start().await;
    let worker = harness.worker(options("stormy")).await;
    let friends: Vec<_> = (0..FRIENDS)
        .map(|n| harness.phone(&format!("628220000000{n}"), "Friend"))
        .collect();
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let owner = harness.phone(&format!("628110000000{n}"), "Owner");
        let session = harness.linked(&format!("s{n}"), &owner).await;
        sessions.push((owner, session));
    }
    for (action, probability) in [
        (Action::NoAck, 0.06),
        (Action::LateAck { ms: 300 }, 0.2),
        (Action::Nack { code: 503 }, 0.06),
        (Action::Close { abrupt: true }, 0.06),
    ] {
        let when = When {
            probability: Some(probability),
            ..When::default()
        };
        let rule = FaultRule::new(Match::from_device("message"), action).when(when);
        harness
            .network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
    }
    let mut ids = Vec::new();
    for text in 0..TEXTS {
        for (n, (owner, session)) in sessions.iter().enumerate() {
            for friend in &friends {
                ids.push(
                    harness
                        .send(session, &friend.number(), &format!("s{n} {text}"))
                        .await,
                );
            }
            if text == n + 1 {
                owner.drop_companions();
            }
        }
    }
    for id in &ids {
        harness.until_message(id, MessageState::Delivered).await;
    }
    for friend in &friends {
        for n in 0..SESSIONS {
            let from: Vec<String> = friend
                .texts()
                .into_iter()
                .filter(|text| text.starts_with(&format!("s{n} ")))
                .collect();
            let wanted: Vec<String> = (0..TEXTS).map(|text| format!("s{n} {text}")).collect();
            assert_eq!(from, wanted);
        }
    }
    assert!(worker.stop(Duration::from_secs(10)).await);
    harness.check();
}
