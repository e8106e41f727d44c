//! Goal: the same promises on PostgreSQL, also when the server is restarted under load.
//! Method: a database of its own for each test; its connections are ended while messages are sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::{Client, NoTls};
use wagate_e2e::{Database, Harness, Setup};

use crate::cluster::Cluster;
use crate::support::{FRIEND, GATEWAY, OTHER, OWNER};

/// Makes a database for one test; returns its URL.
#[expect(clippy::disallowed_methods, reason = "xtask says where the server is")]
pub(crate) async fn database(name: &str) -> (String, String) {
    let server = std::env::var("WAGATE_TEST_POSTGRES_URL").expect("run it by `cargo xtask test`");
    let name = format!("e2e_{name}_{}", std::process::id());
    let (base, _) = server.rsplit_once('/').unwrap();
    let url = format!("{base}/{name}");
    let create = format!("CREATE DATABASE {name}");
    execute(&server, create).await;
    (server, url)
}

async fn execute(server: &str, statement: String) {
    let server = server.to_owned();
    tokio::task::spawn_blocking(move || {
        Client::connect(&server, NoTls)
            .unwrap()
            .batch_execute(&statement)
            .unwrap();
    })
    .await
    .unwrap();
}

async fn harness(url: &str) -> Harness {
    let setup = Setup {
        database: Database::Postgres(url.to_owned()),
        ..Setup::default()
    };
    Harness::start(GATEWAY, setup).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn links_sends_and_receives_on_postgresql() {
    let (_, url) = database("first").await;
    let mut harness = harness(&url).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("pg", &owner).await.unwrap();
    let answer = harness
        .post_text("pg", FRIEND, "Hello PostgreSQL", "10")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    friend.expect_text("Hello PostgreSQL").await.unwrap();
    friend.send(OWNER, "Hello gateway").await.unwrap();
    harness.until_received("pg", 1).await.unwrap();
    harness.restart().await.unwrap();
    harness.until_session("pg", "connected").await.unwrap();
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_goes_away_under_load_loses_nothing() {
    let (server, url) = database("away").await;
    let harness = harness(&url).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("pg", &owner).await.unwrap();
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let mut accepted = Vec::new();
    for n in 0..40 {
        if n % 10 == 5 {
            // What a restart of the server does to its clients, without disturbing other tests.
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = '{name}' AND pid <> pg_backend_pid()"
            );
            execute(&server, end).await;
        }
        match harness.send("pg", &friend, &format!("text {n}")).await {
            Ok(id) => accepted.push((n, id)),
            // Refused honestly, or unanswered: then it may or may not have been accepted.
            Err(error) => eprintln!("text {n}: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        accepted.len() >= 20,
        "only {} of 40 accepted",
        accepted.len()
    );
    for (n, id) in &accepted {
        // Also a receipt that came while the database was away: it waits in the gateway.
        harness.until_message(id, "delivered").await.unwrap();
        friend.expect_text(&format!("text {n}")).await.unwrap();
    }
    let shown = friend.texts();
    let mut once = shown.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), shown.len(), "shown twice: {shown:?}");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_crashes_and_restarts_under_load_loses_and_doubles_nothing() {
    let cluster = Cluster::start().await;
    let harness = harness(&cluster.url()).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let other = harness.account(OTHER, "Citra").unwrap();
    harness.link("pg", &owner).await.unwrap();
    let stop = AtomicBool::new(false);
    // One sends, one writes to the session, until the server has crashed twice.
    let sender = async {
        let (mut ids, mut refusals) = (Vec::new(), Vec::new());
        // A phone's screen holds a thousand messages; a quick machine would send more meanwhile.
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.load(Ordering::SeqCst) {
            pace.tick().await;
            let text = format!("out-{}", ids.len());
            let (id, refused) = harness.insist("pg", &friend, &text).await.unwrap();
            ids.push(id);
            refusals.extend(refused);
        }
        (ids, refusals)
    };
    let writer = async {
        let mut written = 0;
        while !stop.load(Ordering::SeqCst) {
            other.send(OWNER, &format!("in-{written}")).await.unwrap();
            written += 1;
            // Two hundred are a page, and are not reached.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        written
    };
    let crashes = async {
        for _ in 0..2 {
            let shown = friend.texts().len();
            harness
                .until("messages on their way", || async {
                    let now = friend.texts().len();
                    Ok((now >= shown + 5, now.into()))
                })
                .await
                .unwrap();
            cluster.crash_and_restart().await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let ((ids, refusals), written, ()) = tokio::join!(sender, writer, crashes);
    for refused in &refusals {
        assert_eq!(refused.status(), Some(503), "not honest: {refused}");
    }
    for id in &ids {
        harness.until_message(id, "delivered").await.unwrap();
    }
    friend
        .expect_text(&format!("out-{}", ids.len() - 1))
        .await
        .unwrap();
    let wanted: Vec<String> = (0..ids.len()).map(|n| format!("out-{n}")).collect();
    assert_eq!(friend.texts(), wanted);
    assert!(written <= 200, "more than a page: {written}");
    let received = harness.until_received("pg", written).await.unwrap();
    let mut texts: Vec<&str> = received
        .iter()
        .map(|message| message["text"].as_str().unwrap())
        .collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((texts.len(), received.len()), (written, written));
    harness.until_session("pg", "connected").await.unwrap();
    harness.check().unwrap();
}
