//! Connections that break or fall silent, and what is not shown to others.

use std::time::Duration;

use wagate_domain::{Backoff, Clock as _, Jid, SystemClock};
use wagate_engine::{EngineEvent, Liveness};
use wagate_network::faults::{Action, Direction, FaultRule, Match, When};
use wagate_network::phone::PhoneEvent;
use wagate_network::transcript::{Entry, Note};
use wagate_network::world::NetworkEvent;

use crate::harness::{A, B, BOUND, Companion, Harness, content};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).drop_companions();
    companion
        .expect("the disconnection", |event| match event {
            EngineEvent::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
    companion.connected().await;
    let id = companion.send(B, "back").await;
    assert_eq!(companion.ack(&id).await, None);
    assert_eq!(companion.device.stats().logins, 2);
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_noticed_and_replaced() {
    let quick = Liveness {
        probe_after: Duration::from_millis(600),
        answer_within: Duration::from_secs(2),
    };
    let harness = Harness::start_with(|options| options.liveness = quick).await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).silence_companions();
    companion
        .expect("the silence", |event| match event {
            EngineEvent::Silent => Some(()),
            _ => None,
        })
        .await;
    companion.connected().await;
    let id = companion.send(B, "heard again").await;
    assert_eq!(companion.ack(&id).await, None);
    companion.stop().await;
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_goodbye_and_stays_is_left() {
    let quick = Liveness {
        probe_after: Duration::from_secs(30),
        answer_within: Duration::from_millis(600),
    };
    let harness = Harness::start_with(|options| options.liveness = quick).await;
    let (_, mut companion) = harness.linked(A).await;
    let goodbye = Action::StreamError {
        code: Some(503),
        detail: None,
        close: false,
    };
    let rule = FaultRule::new(Match::from_device("message").account(A), goodbye).when(When {
        times: Some(1),
        ..When::default()
    });
    harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = companion.send(B, "lost in the goodbye").await;
    companion
        .expect("the end of the connection", |event| match event {
            EngineEvent::Disconnected { .. } => Some(()),
            _ => None,
        })
        .await;
    // The end of the connection speaks for it: no time-out follows.
    assert_eq!(companion.device.stats().awaiting_ack, 0);
    companion.connected().await;
    companion
        .device
        .send(&id, &Jid::pn(B), &content("lost in the goodbye"))
        .await
        .unwrap();
    assert_eq!(companion.ack(&id).await, None);
    companion.stop().await;
    harness.judge().await;
}

/// Says goodbye to the companions of A, and gives the wait until the next attempt.
async fn wait_after(harness: &Harness, companion: &mut Companion, goodbye: &str) -> Duration {
    let before = SystemClock.now();
    harness.phone(A).stream_error(goodbye).await.unwrap();
    let retry_at = companion
        .expect("the end of the connection", |event| match event {
            EngineEvent::Disconnected { retry_at, .. } => Some(*retry_at),
            _ => None,
        })
        .await;
    retry_at.since(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_for_too_many_requests_costs_a_long_wait() {
    let waits = Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(3600),
        jitter_percent: 0,
    };
    let harness = Harness::start_with(|options| options.reconnect = waits).await;
    let (_, mut companion) = harness.linked(A).await;
    let usual = wait_after(&harness, &mut companion, "500").await;
    assert!(usual < Duration::from_secs(20), "{usual:?}");
    companion.device.reconnect_now();
    companion.connected().await;
    // As after five failures more.
    let long = wait_after(&harness, &mut companion, "429").await;
    assert!(long >= Duration::from_secs(32), "{long:?}");
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_for_too_many_requests_is_not_tried_for_minutes() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).refuse_connect("429").await.unwrap();
    let before = SystemClock.now();
    harness.phone(A).drop_companions();
    companion
        .expect("a long wait", |event| match event {
            EngineEvent::Disconnected { retry_at, .. } => {
                (retry_at.since(before) >= Duration::from_secs(300)).then_some(())
            }
            _ => None,
        })
        .await;
    harness.phone(A).accept_connects();
    companion.device.reconnect_now();
    companion.connected().await;
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_not_taken_for_dead() {
    let quick = Liveness {
        probe_after: Duration::from_millis(200),
        answer_within: Duration::from_secs(5),
    };
    let harness = Harness::start_with(|options| options.liveness = quick).await;
    let (_, mut companion) = harness.linked(A).await;
    // Several probes are answered in this time.
    let quiet = tokio::time::timeout(Duration::from_secs(2), async {
        companion
            .expect("silence or disconnection", |event| match event {
                EngineEvent::Silent | EngineEvent::Disconnected { .. } => Some(()),
                _ => None,
            })
            .await;
    });
    assert!(quiet.await.is_err());
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_is_shown_as_online_only_when_asked() {
    let harness = Harness::start().await;
    let mut events = harness.network.subscribe();
    let peer = harness.phone(B);
    peer.subscribe_presence(A).unwrap();
    let (_, mut companion) = harness.linked(A).await;
    // The engine says "unavailable" after each login, whatever the library said.
    let said = tokio::time::timeout(BOUND, async {
        loop {
            let last = harness.network.with_world(|world, _, _| {
                let said = world.transcript.entries(0).filter_map(companions_presence);
                said.last()
            });
            match last {
                Some(kind) => return kind,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    assert_eq!(
        said.await.expect("a presence of the companion"),
        "unavailable"
    );
    for online in [true, false] {
        companion.device.set_online(online).await.unwrap();
        peer.expect_event(&mut events, "A's presence", |event| match event {
            NetworkEvent::Phone(PhoneEvent::Presence { available, .. }) => {
                (*available == online).then_some(())
            }
            _ => None,
        })
        .await
        .unwrap();
    }
    companion.stop().await;
    harness.judge().await;
}

/// What kind of presence a companion of A sent, if the entry is one.
fn companions_presence(entry: &Entry) -> Option<String> {
    let Note::Stanza(stanza) = &entry.note else {
        return None;
    };
    let from_companion = stanza.direction == Direction::FromDevice && stanza.device != 0;
    (from_companion && stanza.phone == A && stanza.tag == "presence")
        .then(|| stanza.type_.clone())?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_while_everything_is_down_is_quick() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.network.stop().await;
    companion
        .expect("the disconnection", |event| match event {
            EngineEvent::Disconnected { .. } => Some(()),
            _ => None,
        })
        .await;
    let stop = tokio::time::timeout(Duration::from_secs(10), companion.stop());
    assert!(stop.await.is_ok());
    tokio::time::timeout(BOUND, harness.engine.shutdown())
        .await
        .expect("all tasks ended");
}
