//! Goal: limits hold, WhatsApp's wishes are heeded, and nothing fails that can wait. Method: settings over
//! HTTP, refusals of the network, a kill in the middle of a day's budget; phones and events judge.

use reqwest::Method;
use serde_json::{Value, json};
use wagate_e2e::Harness;
use wagate_network::faults::{Action, FaultRule, Match, StanzaMatch};

use crate::support::{FRIEND, OTHER, OWNER, harness, harness_with};

/// Adds a rule to the network; gives its number.
fn fault(harness: &Harness, rule: FaultRule) {
    let added = harness
        .network
        .with_world(|world, _, _| world.faults.add(rule));
    added.unwrap();
}

fn nack(code: u16) -> FaultRule {
    let matches = Match::from_device("message").account(OWNER);
    FaultRule::new(matches, Action::Nack { code }).once()
}

async fn set(harness: &Harness, session: &str, change: Value) -> Value {
    let path = format!("/api/v1/sessions/{session}/pacing");
    let client = harness.client();
    let answer = client.call(Method::PATCH, &path, Some(&change), &[]).await;
    answer.unwrap().data().clone()
}

async fn pacing(harness: &Harness, session: &str) -> Value {
    let path = format!("/api/v1/sessions/{session}/pacing");
    harness.client().get(&path).await.unwrap().data().clone()
}

async fn names_of_events(harness: &Harness) -> Vec<String> {
    let events = harness.events().await.unwrap();
    let name = |event: &Value| event["type"].as_str().unwrap().to_owned();
    events.iter().map(name).collect()
}

/// Only what the test names.
fn only(mut change: Value) -> Value {
    let bare = json!({
        "enabled": true, "gapMs": 0, "gapJitterPercent": 0, "perMinute": null, "perDay": null,
        "strangersPerDay": null, "warmUpDays": 0, "typing": false,
    });
    for (name, value) in bare.as_object().unwrap() {
        let fields = change.as_object_mut().unwrap();
        fields.entry(name.clone()).or_insert(value.clone());
    }
    change
}

/// When a message was claimed, in milliseconds of its day.
fn claimed_ms(message: &Value) -> i64 {
    let steps = message["history"].as_array().unwrap();
    let sending = steps.iter().find(|step| step["status"] == "sending");
    let at = sending.unwrap()["at"].as_str().unwrap();
    let number = |range: std::ops::Range<usize>| at[range].parse::<i64>().unwrap();
    let minutes = number(11..13) * 60 + number(14..16);
    (minutes * 60 + number(17..19)) * 1000 + number(20..23)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gap_is_kept_and_what_waits_can_be_withdrawn() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let other = harness.account(OTHER, "Citra").unwrap();
    harness.link("slow", &owner).await.unwrap();
    set(&harness, "slow", only(json!({ "gapMs": 1500 }))).await;
    let mut ids = Vec::new();
    for to in [&friend, &other, &friend] {
        ids.push(harness.send("slow", to, "in time").await.unwrap());
    }
    // The last one waits for two gaps: time enough.
    let last = harness.send("slow", &other, "withdrawn").await.unwrap();
    let client = harness.client();
    let path = format!("/api/v1/messages/{last}");
    client.call(Method::DELETE, &path, None, &[]).await.unwrap();
    let mut times = Vec::new();
    for id in &ids {
        times.push(claimed_ms(
            &harness.until_message(id, "delivered").await.unwrap(),
        ));
    }
    times.sort_unstable();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 1500),
        "{times:?}"
    );
    assert_eq!(harness.message(&last).await.unwrap()["status"], "canceled");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reach_out_limit_holds_back_strangers_only() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    let other = harness.account(OTHER, "Citra").unwrap();
    harness.link("limited", &owner).await.unwrap();
    let known = harness.send("limited", &friend, "known").await.unwrap();
    harness.until_message(&known, "delivered").await.unwrap();
    fault(&harness, nack(463));
    let held = harness.send("limited", &other, "held").await.unwrap();
    let paused = harness
        .until("the pause in the status", || async {
            let seen = harness.session("limited").await?;
            Ok((
                seen["pauses"].as_array().is_some_and(|p| !p.is_empty()),
                seen,
            ))
        })
        .await
        .unwrap();
    assert_eq!(paused["pauses"][0]["scope"], "new_chats");
    assert_eq!(paused["pauses"][0]["reason"], "reach_out_limited");
    for n in 0..3 {
        let text = format!("goes on {n}");
        let id = harness.send("limited", &friend, &text).await.unwrap();
        harness.until_message(&id, "delivered").await.unwrap();
    }
    let message = harness.message(&held).await.unwrap();
    assert_eq!(message["status"], "queued", "{message}");
    assert!(other.texts().is_empty());
    let names = names_of_events(&harness).await;
    assert!(names.iter().any(|name| name == "session.paused"));
    let settings = pacing(&harness, "limited").await;
    assert_eq!(settings["strangersWait"]["reason"], "reach_out_limited");
    assert_eq!(settings["waits"], Value::Null);
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_questions_wait_for_the_time_that_whatsapp_names() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("asked", &owner).await.unwrap();
    let matches = Match::from_device("iq")
        .account(OWNER)
        .stanza(StanzaMatch::iq("usync", Some("usync")));
    let action = Action::IqError {
        code: 429,
        text: Some("rate-overlimit".to_owned()),
        backoff: Some(2),
    };
    fault(&harness, FaultRule::new(matches, action).once());
    let id = harness.send("asked", &friend, "patiently").await.unwrap();
    let message = harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(message["attempts"], 2, "{message}");
    let names = names_of_events(&harness).await;
    let place = |wanted: &str| names.iter().position(|name| name == wanted);
    let (paused, resumed) = (place("session.paused"), place("session.resumed"));
    assert!(paused.is_some() && paused < resumed, "{names:?}");
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_for_too_many_requests_pauses_the_session() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("hurried", &owner).await.unwrap();
    owner.stream_error("429").await.unwrap();
    let paused = harness
        .until("the pause in the status", || async {
            let seen = harness.session("hurried").await?;
            let there = seen["pauses"].as_array().is_some_and(|p| !p.is_empty());
            Ok((there, seen))
        })
        .await
        .unwrap();
    assert_eq!(paused["pauses"][0]["scope"], "all", "{paused}");
    assert_eq!(paused["pauses"][0]["reason"], "rate_limited", "{paused}");
    let id = harness.send("hurried", &friend, "can wait").await.unwrap();
    // The connection comes back long before the pause ends, and nothing goes out.
    harness.until_session("hurried", "connected").await.unwrap();
    let answer = harness
        .post_text("hurried", FRIEND, "this too", "1")
        .await
        .unwrap();
    assert_eq!(answer.data()["status"], "queued");
    assert_eq!(harness.message(&id).await.unwrap()["status"], "queued");
    assert!(friend.texts().is_empty());
    let names = names_of_events(&harness).await;
    assert!(names.iter().any(|name| name == "session.paused"));
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_for_a_time_ends_by_itself() {
    let harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("banned", &owner).await.unwrap();
    let action = Action::Failure {
        reason: 402,
        code: Some(101),
        expire: Some(4),
        location: None,
        message: None,
        url: None,
    };
    let matches = Match::connect().account(OWNER);
    fault(&harness, FaultRule::new(matches, action).once());
    owner.drop_companions();
    let status = harness.until_session("banned", "error").await.unwrap();
    assert_eq!(status["linkState"], "banned", "{status}");
    assert_eq!(status["pauses"][0]["reason"], "banned", "{status}");
    harness.until_session("banned", "connected").await.unwrap();
    let id = harness.send("banned", &friend, "back").await.unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    let names = names_of_events(&harness).await;
    assert!(names.iter().any(|name| name == "session.resumed"));
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_a_day_survives_a_kill() {
    let mut harness = harness().await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("daily", &owner).await.unwrap();
    set(&harness, "daily", only(json!({ "perDay": 3 }))).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let text = format!("{n}");
        ids.push(harness.send("daily", &friend, &text).await.unwrap());
    }
    for id in &ids[..3] {
        harness.until_message(id, "delivered").await.unwrap();
    }
    harness.restart().await.unwrap();
    harness.until_session("daily", "connected").await.unwrap();
    // Accepted after the restart as well; the answer comes when its wait is over.
    let answer = harness.post_text("daily", FRIEND, "5", "2").await.unwrap();
    assert_eq!(answer.data()["status"], "queued");
    let seen = pacing(&harness, "daily").await;
    assert_eq!(seen["used"]["day"], 3, "{seen}");
    assert_eq!(seen["waits"]["reason"], "per_day", "{seen}");
    assert_eq!(friend.texts(), ["0", "1", "2"]);
    set(&harness, "daily", json!({ "perDay": null })).await;
    for id in &ids {
        harness.until_message(id, "delivered").await.unwrap();
    }
    harness.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_strangers_are_asked_about_at_once_and_nobody_twice() {
    let harness = harness_with(&[("WAGATE_WORKER__CONCURRENCY", "20")]).await;
    let owner = harness.account(OWNER, "Ayu").unwrap();
    harness.link("many", &owner).await.unwrap();
    let mut friends = Vec::new();
    for n in 0..12 {
        let number = format!("+62815000000{n:02}");
        friends.push(harness.account(&number, "Friend").unwrap());
    }
    let pause = "/api/v1/sessions/many/queue/pause";
    harness.client().post(pause, &json!({})).await.unwrap();
    let nobody = "+6281599999999";
    let absent = harness.post_text("many", nobody, "hello?", "0").await;
    let absent = absent.unwrap().data()["id"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for friend in &friends {
        ids.push(harness.send("many", friend, "hello").await.unwrap());
    }
    let iqs = |xmlns: &str, child: &str| {
        let stanza = StanzaMatch::iq(xmlns, Some(child));
        let matches = Match::from_device("iq").account(OWNER).stanza(stanza);
        let mut rule = FaultRule::new(matches, Action::Delay { ms: 1 });
        rule.name = Some(xmlns.to_owned());
        rule
    };
    fault(&harness, iqs("usync", "usync"));
    fault(&harness, iqs("encrypt", "key"));
    let hits = |name: &str| {
        harness.network.with_world(|world, _, _| {
            let reports = world.faults.list();
            let mine = reports
                .iter()
                .find(|r| r.rule.name.as_deref() == Some(name));
            mine.unwrap().matched
        })
    };
    let resume = "/api/v1/sessions/many/queue/resume";
    harness.client().post(resume, &json!({})).await.unwrap();
    for id in &ids {
        harness.until_message(id, "delivered").await.unwrap();
    }
    let failed = harness.until_message(&absent, "failed").await.unwrap();
    assert_eq!(failed["failure"]["code"], "recipient_not_registered");
    // One by one it would be two and one for each.
    let (questions, keys) = (hits("usync"), hits("encrypt"));
    assert!(questions <= 8 && keys <= 4, "{questions} and {keys}");
    // Who has no account is not asked about again.
    let again = harness.post_text("many", nobody, "still?", "0").await;
    let again = again.unwrap().data()["id"].as_str().unwrap().to_owned();
    harness.until_message(&again, "failed").await.unwrap();
    assert_eq!(hits("usync"), questions);
    harness.check().unwrap();
}
