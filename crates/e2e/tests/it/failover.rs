//! Goal: two gateways on one database: whatever becomes of one, the other goes on with its sessions, with
//! no QR, nothing lost, nothing doubled, and one holder of a device at a time (SL-1).
//! Method: the one that holds the sessions is killed, or stopped past its leases and woken again.

use serde_json::json;
use wagate_e2e::process::Signal;
use wagate_e2e::{Database, Harness, Setup};
use wagate_network::check::Rule;
use wagate_network::handle::PhoneHandle;

use crate::postgres::database;
use crate::support::{FRIEND, GATEWAY, OWNER};

/// A gateway that holds a connected session; leases are short, so that they end soon.
async fn holder(name: &str) -> (Harness, PhoneHandle, PhoneHandle) {
    let (_, url) = database(name).await;
    let settings = [
        ("WAGATE_WORKER__LEASE_TTL", "3s"),
        ("WAGATE_WORKER__TICK", "250ms"),
        ("WAGATE_WORKER__ACK_TIMEOUT", "3s"),
    ];
    let setup = Setup {
        database: Database::Postgres(url),
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Setup::default()
    };
    let harness = Harness::start(GATEWAY, setup).await.unwrap();
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("shared", &owner).await.unwrap();
    (harness, owner, friend)
}

/// Accepts so many texts at the gateway that is asked now; returns their ids.
async fn accept(harness: &Harness, friend: &PhoneHandle, name: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let text = format!("{name}-{n}");
        // A sleeper holds the locks of its transaction until the server ends that: refused meanwhile.
        ids.push(harness.insist("shared", friend, &text).await.unwrap().0);
    }
    ids
}

/// Each text is on the friend's phone once, in the order of acceptance.
fn all_once(friend: &PhoneHandle, wanted: &[(&str, usize)]) {
    let texts = |(name, count): &(&str, usize)| -> Vec<String> {
        (0..*count).map(|n| format!("{name}-{n}")).collect()
    };
    let wanted: Vec<String> = wanted.iter().flat_map(texts).collect();
    assert_eq!(friend.texts(), wanted);
}

async fn until_logins(harness: &Harness, count: u64) {
    harness
        .until("the session at the other gateway", || async {
            let logins = harness.network.counters().logins;
            Ok((logins >= count, json!(logins)))
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_killed_gateways_sessions_go_on_at_the_other() {
    let (mut harness, owner, friend) = holder("killed").await;
    let links = harness.network.counters().links;
    let second = harness.second().await.unwrap();
    let mut first = harness.replace(second);
    let logins = harness.network.counters().logins;
    // Asked of the second, done by the first, which dies in the middle of it.
    let mut ids = accept(&harness, &friend, "before", 15).await;
    harness.until_message(&ids[2], "sent").await.unwrap();
    assert_eq!(harness.network.counters().logins, logins);
    first.kill().await.unwrap();
    ids.extend(accept(&harness, &friend, "after", 15).await);
    friend.send(OWNER, "meanwhile").await.unwrap();
    for id in &ids {
        harness.until_message(id, "sent").await.unwrap();
    }
    friend.expect_text("after-14").await.unwrap();
    harness.until_session("shared", "connected").await.unwrap();
    let received = harness.until_received("shared", 1).await.unwrap();
    assert_eq!(received.len(), 1);
    all_once(&friend, &[("before", 15), ("after", 15)]);
    assert_eq!(owner.companions(), 1);
    assert_eq!(harness.network.counters().links, links, "linked anew");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_gateway_that_slept_past_its_leases_does_no_harm() {
    let (mut harness, owner, friend) = holder("slept").await;
    let second = harness.second().await.unwrap();
    let first = harness.replace(second);
    let logins = harness.network.counters().logins;
    let mut ids = accept(&harness, &friend, "before", 10).await;
    harness.until_message(&ids[2], "sent").await.unwrap();
    // In the middle of its work: what it had claimed it still believes in when it wakes.
    first.signal(Signal::STOP).unwrap();
    ids.extend(accept(&harness, &friend, "asleep", 10).await);
    until_logins(&harness, logins + 1).await;
    for id in &ids {
        harness.until_message(id, "sent").await.unwrap();
    }
    first.signal(Signal::CONT).unwrap();
    harness
        .until("the sleeper to see that it lost its leases", || async {
            let output = first.output();
            let seen = output.contains("lease is lost") || output.contains("leases have ended");
            Ok((seen, json!(output)))
        })
        .await
        .unwrap();
    // It serves on, and what it accepts the holder sends.
    first.client().get("/ready").await.unwrap();
    let sleeper = harness.replace(first);
    accept(&harness, &friend, "awake", 10).await;
    let holder = harness.replace(sleeper);
    friend.expect_text("awake-9").await.unwrap();
    all_once(&friend, &[("before", 10), ("asleep", 10), ("awake", 10)]);
    friend.send(OWNER, "Hello").await.unwrap();
    assert_eq!(harness.until_received("shared", 1).await.unwrap().len(), 1);
    let status = harness.until_session("shared", "connected").await.unwrap();
    assert_eq!(status["reason"], json!(null), "{status}");
    // The device was taken over once and never taken back.
    assert_eq!(harness.network.counters().logins, logins + 1);
    assert_eq!(owner.companions(), 1);
    drop(holder);
    // A sleeper cannot hang up, so the network saw its connection replaced: once, and nothing else.
    let violations = harness.network.check();
    let replaced = |rule: &Rule| matches!(rule, Rule::OneConnection);
    assert!(
        violations.len() <= 1 && violations.iter().all(|one| replaced(&one.rule)),
        "{violations:#?}"
    );
}
