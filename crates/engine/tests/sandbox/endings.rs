//! Every reason that ends a device for good, as the state that the actor stores.

use wagate_domain::Clock as _;
use wagate_domain::SystemClock;
use wagate_engine::{Ended, EngineError, EngineEvent};
use wagate_network::faults::{Action, FaultRule, Match};
use wagate_store::StoreError;

use crate::harness::{A, B, BOUND, Companion, Harness};

/// Refuses the logins of A in this way and cuts the connection.
async fn refused(how: &str) -> (Harness, Companion, Ended) {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).refuse_connect(how).await.unwrap();
    harness.phone(A).drop_companions();
    let ended = companion.ended().await;
    (harness, companion, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_connection_takes_over() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness
        .phone(A)
        .stream_error("conflict_replaced")
        .await
        .unwrap();
    assert_eq!(companion.ended().await, Ended::Replaced);
    companion.device.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_unlinks_the_device() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).unlink_all().await.unwrap();
    let ended = companion.ended().await;
    assert!(matches!(ended, Ended::LoggedOut { .. }), "{ended:?}");
    assert!(ended.is_permanent());
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlinked_while_away_is_found_at_the_next_login() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    companion.stop().await;
    drop(companion);
    harness.phone(A).unlink_all().await.unwrap();
    let mut companion = harness.open(&lease).await;
    let ended = companion.ended().await;
    assert!(matches!(ended, Ended::LoggedOut { .. }), "{ended:?}");
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_says_until_when() {
    let before = SystemClock.now();
    let (harness, _, ended) = refused("ban").await;
    let Ended::Banned {
        until: Some(until),
        code: 101,
    } = ended
    else {
        panic!("{ended:?}")
    };
    let lasts = until.since(before).as_secs();
    assert!((3600..3700).contains(&lasts), "{lasts}");
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outdated_version_ends() {
    let (harness, _, ended) = refused("outdated").await;
    assert_eq!(ended, Ended::Outdated);
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_account_is_no_logout() {
    let (harness, _, ended) = refused("locked").await;
    assert!(matches!(ended, Ended::Locked { .. }), "{ended:?}");
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_trying_again_does_not_cure_ends() {
    let (harness, _, ended) = refused("409").await;
    assert!(
        matches!(ended, Ended::Refused { code: 409, .. }),
        "{ended:?}"
    );
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_trouble_is_tried_again() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    harness.phone(A).refuse_connect("503").await.unwrap();
    harness.phone(A).drop_companions();
    for _ in 0..2 {
        companion
            .expect("a failed attempt", |event| match event {
                EngineEvent::Disconnected { .. } => Some(()),
                _ => None,
            })
            .await;
    }
    harness.phone(A).accept_connects();
    companion.connected().await;
    companion.stop().await;
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_out_unlinks_at_whatsapp() {
    let harness = Harness::start().await;
    let (_, mut companion) = harness.linked(A).await;
    let device = companion.device.clone();
    let logout = async move { device.logout().await };
    let (ended, told) = tokio::join!(companion.ended(), logout);
    assert!(told);
    assert!(matches!(ended, Ended::LoggedOut { .. }), "{ended:?}");
    harness.phone(A).expect_companions(0).await.unwrap();
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_out_connects_first_when_it_must() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    companion.stop().await;
    drop(companion);
    let mut companion = harness.open_stopped(&lease).await;
    let device = companion.device.clone();
    let logout = async move { device.logout().await };
    let (ended, told) = tokio::join!(companion.ended(), logout);
    assert!(
        told && matches!(ended, Ended::LoggedOut { .. }),
        "{told} {ended:?}"
    );
    harness.phone(A).expect_companions(0).await.unwrap();
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_stops_the_device() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    let later = lease.expires.plus(std::time::Duration::from_secs(1));
    let theirs = harness.acquire("two", later).await;
    assert_eq!(theirs.session, lease.session);
    // SL-1: the next thing that it has to remember, it may not.
    let id = wagate_domain::WaMessageId::generate();
    let to = wagate_domain::Jid::pn(B);
    let sent = companion
        .device
        .send(&id, &to, &crate::harness::content("stale"))
        .await;
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(companion.ended().await, Ended::LeaseLost);
    assert!(harness.phone(B).texts().is_empty());
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_waits_for_an_answer_ends_with_the_lease() {
    let harness = Harness::start().await;
    let (lease, mut companion) = harness.linked(A).await;
    let mut asks = Match::from_device("iq").account(A);
    asks.stanza.xmlns = Some("encrypt".to_owned());
    let rule = FaultRule::new(asks, Action::Drop);
    let rule = harness
        .network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let device = companion.device.clone();
    let mut sends = tokio::task::JoinSet::new();
    sends.spawn(async move {
        let id = wagate_domain::WaMessageId::generate();
        let to = wagate_domain::Jid::pn(B);
        let text = crate::harness::content("stale");
        device.send(&id, &to, &text).await
    });
    let asked = || {
        let report = harness
            .network
            .with_world(|world, _, _| world.faults.get(rule));
        report.is_some_and(|report| report.hits > 0)
    };
    let asking = async {
        while !asked() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, asking)
        .await
        .expect("a question for keys");
    let later = lease.expires.plus(std::time::Duration::from_secs(1));
    harness.acquire("two", later).await;
    // What comes in has to be remembered, and may not be (SL-1).
    harness.phone(B).send(A, "hello").await.unwrap();
    let sent = tokio::time::timeout(BOUND, sends.join_next()).await;
    let sent = sent
        .expect("the send ends with the lease")
        .unwrap()
        .unwrap();
    let lost = EngineError::Store(StoreError::LeaseLost);
    assert_eq!(sent.unwrap_err().to_string(), lost.to_string());
    assert_eq!(companion.ended().await, Ended::LeaseLost);
    harness.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_never_started_ends_too() {
    let harness = Harness::start().await;
    let lease = harness.session().await;
    let mut companion = harness.open_stopped(&lease).await;
    assert_eq!(companion.stop().await, Ended::Stopped);
    let mut companion = harness.open_stopped(&lease).await;
    let device = companion.device.clone();
    let logout = async move { device.logout().await };
    let (ended, told) = tokio::join!(companion.ended(), logout);
    assert!(
        !told && matches!(ended, Ended::LoggedOut { .. }),
        "{ended:?}"
    );
    harness.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_device_lets_go() {
    let harness = Harness::start().await;
    let (_, companion) = harness.linked(A).await;
    drop(companion);
    let done = tokio::time::timeout(BOUND, harness.engine.shutdown());
    done.await.expect("its tasks ended");
    harness.phone(A).expect_companions_online(0).await.unwrap();
    harness.judge().await;
}
