//! The first steps: link, send, see it delivered and read, receive the answer; all through the
//! gateway's HTTP API and the real protocol, as a user's program would do it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use wagate::client::Client;
use wagate_network::handle::PhoneHandle;

use crate::say;

/// The session that the first steps make.
pub(crate) const SESSION: &str = "first-steps";
/// How long any one step may take.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Walks through the first steps; `owner` owns the number that is linked, `friend` gets the message.
pub(crate) async fn walk(client: &Client, owner: &PhoneHandle, friend: &PhoneHandle) -> Result<()> {
    let after = newest_event(client).await?;
    link(client, owner).await.context("linking failed")?;
    let sent = send(client, friend, after)
        .await
        .context("sending failed")?;
    receive(client, friend, sent)
        .await
        .context("receiving failed")
}

async fn link(client: &Client, owner: &PhoneHandle) -> Result<()> {
    say::step("A session is created, and asked for a QR code to link it with.");
    say::call("POST", "/api/v1/sessions", Some(&json!({ "id": SESSION })));
    client
        .post("/api/v1/sessions", &json!({ "id": SESSION }))
        .await?;
    let path = format!("/api/v1/sessions/{SESSION}/connect");
    say::call("POST", &path, Some(&json!({ "method": "qr" })));
    client.post(&path, &json!({ "method": "qr" })).await?;
    let qr = client
        .get(&format!("/api/v1/sessions/{SESSION}/qr"))
        .await?;
    let text = qr.data()["qrString"]
        .as_str()
        .context("the answer has no QR code")?
        .to_owned();
    let drawn = client
        .text(&format!("/api/v1/sessions/{SESSION}/qr?format=text"))
        .await?;
    say::block(&drawn);

    say::step(&format!("The simulated phone {} scans it.", owner.number()));
    owner
        .scan(&text)
        .await
        .context("the phone could not scan the QR code")?;
    let status = wait_for(client, "status of the session", |status| {
        status["status"] == "connected"
    })
    .await?;
    say::done(&format!(
        "linked and connected as {}",
        status["phoneNumber"].as_str().unwrap_or("?")
    ));
    Ok(())
}

/// Sends, and shows each state as its event comes; returns the cursor behind the last event.
async fn send(client: &Client, friend: &PhoneHandle, mut after: i64) -> Result<i64> {
    say::step(&format!("A text goes to {}.", friend.number()));
    let body = json!({ "to": friend.number(), "type": "text", "message": "Hello from wagate!" });
    let path = format!("/api/v1/sessions/{SESSION}/messages");
    say::call("POST", &path, Some(&body));
    let answer = client.post(&path, &body).await?;
    let message = answer.data()["id"]
        .as_str()
        .context("the answer has no id")?
        .to_owned();

    let started = Instant::now();
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("read") {
        let events = next_events(client, &mut after, started)
            .await
            .with_context(|| {
                format!(
                    "the message should have been read; it went through {}",
                    seen.join(" → ")
                )
            })?;
        for event in events
            .iter()
            .filter(|event| event["data"]["message"] == message.as_str())
        {
            let state = match event["type"].as_str() {
                Some("message.queued") => "queued",
                Some("message.status") => event["data"]["status"].as_str().unwrap_or("?"),
                _ => continue,
            };
            if state == "failed" {
                bail!("the message failed: {}", event["data"]["failure"]);
            }
            say::state(state, event["at"].as_str().unwrap_or(""));
            seen.push(state.to_owned());
        }
    }
    friend
        .expect_text("Hello from wagate!")
        .await
        .context("the friend's phone shows no message")?;
    say::done("the friend's phone shows it");
    Ok(after)
}

async fn receive(client: &Client, friend: &PhoneHandle, mut after: i64) -> Result<()> {
    say::step("The friend's phone answers.");
    let owner = wait_for(client, "the session's number", |status| {
        status["phoneNumber"].is_string()
    })
    .await?["phoneNumber"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    friend.send(&owner, "Hello yourself! 👋").await?;
    let started = Instant::now();
    loop {
        let events = next_events(client, &mut after, started)
            .await
            .context("the answer should have come in")?;
        let inbound = events
            .iter()
            .find(|event| event["type"] == "message.received");
        if let Some(event) = inbound {
            say::call("GET", "/api/v1/events", None);
            say::block(&serde_json::to_string_pretty(event)?);
            say::done("received, stored, and only then acknowledged");
            return Ok(());
        }
    }
}

/// The next events after the cursor, waiting for them within what is left of the step's time.
async fn next_events(client: &Client, after: &mut i64, started: Instant) -> Result<Vec<Value>> {
    let left = STEP_MAX.saturating_sub(started.elapsed());
    if left.is_zero() {
        bail!("nothing more happened within {} s", STEP_MAX.as_secs());
    }
    let wait = left.as_secs().clamp(1, 10);
    let answer = client
        .get(&format!("/api/v1/events?after={after}&wait={wait}"))
        .await?;
    let events = answer.data().as_array().cloned().unwrap_or_default();
    if let Some(seq) = events.last().and_then(|event| event["seq"].as_i64()) {
        *after = seq;
    }
    Ok(events)
}

async fn newest_event(client: &Client) -> Result<i64> {
    let mut after = 0;
    loop {
        let answer = client.get(&format!("/api/v1/events?after={after}")).await?;
        match answer.data().as_array().and_then(|events| events.last()) {
            Some(event) => after = event["seq"].as_i64().context("an event has no seq")?,
            None => return Ok(after),
        }
    }
}

/// Asks for the session's status until it is as wanted.
async fn wait_for(client: &Client, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = format!("/api/v1/sessions/{SESSION}/status");
    let mut last = Value::Null;
    let asked = timeout(STEP_MAX, async {
        loop {
            last = client.get(&path).await?.data().clone();
            if wanted(&last) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match asked.await {
        Ok(result) => result.map(|()| last),
        Err(_) => bail!(
            "{what}: not as expected within {} s; last seen: {} {}",
            STEP_MAX.as_secs(),
            last["status"],
            last["reason"]
        ),
    }
}
