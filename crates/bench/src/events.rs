//! Follows the gateway's event feed: what it has recorded is what counts, not what was on the wire.

use std::collections::HashSet;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::{Duration, Instant};
use wagate::client::Client;

use crate::load::Senders;

/// A reader of one tenant's events.
#[derive(Debug)]
pub(crate) struct Feed {
    client: Client,
    after: i64,
    /// Messages recorded as delivered (or further).
    pub(crate) delivered: HashSet<String>,
    /// Messages recorded as failed, with the reason.
    pub(crate) failed: Vec<String>,
    /// What came in: the numbers that the texts begin with, and when each was read here.
    pub(crate) received: Vec<(usize, Instant)>,
}

impl Feed {
    /// Starts behind what has happened so far.
    pub(crate) async fn from_now(client: &Client) -> Result<Self> {
        let mut feed = Self {
            client: client.clone(),
            after: 0,
            delivered: HashSet::new(),
            failed: Vec::new(),
            received: Vec::new(),
        };
        while feed.read(0).await? > 0 {}
        feed.delivered.clear();
        feed.failed.clear();
        feed.received.clear();
        Ok(feed)
    }

    /// Reads one page, waiting up to `wait` seconds for the first event; returns its length.
    pub(crate) async fn read(&mut self, wait: u64) -> Result<usize> {
        let path = format!("/api/v1/events?after={}&limit=200&wait={wait}", self.after);
        let answer = self.client.get(&path).await?;
        let Some(events) = answer.data().as_array() else {
            bail!("the events are not a list")
        };
        for event in events {
            self.after = event["seq"].as_i64().unwrap_or(self.after);
            self.take(event);
        }
        Ok(events.len())
    }

    fn take(&mut self, event: &Value) {
        let data = &event["data"];
        if event["type"] == "message.received" && data["fromMe"] != true {
            let text = data["content"]["text"].as_str().unwrap_or_default();
            let number = text.split(' ').next().and_then(|word| word.parse().ok());
            self.received.extend(number.map(|n| (n, Instant::now())));
        }
        if event["type"] != "message.status" {
            return;
        }
        let message = data["message"].as_str().unwrap_or_default().to_owned();
        match data["status"].as_str() {
            Some("delivered" | "read" | "played") => {
                self.delivered.insert(message);
            }
            Some("failed") => self.failed.push(format!("{message}: {}", data["failure"])),
            _ => {}
        }
    }

    /// Reads until `count` messages of a closed loop are recorded as delivered, and keeps it going.
    pub(crate) async fn follow(
        &mut self,
        senders: &Senders,
        count: usize,
        bound: Duration,
    ) -> Result<()> {
        let started = Instant::now();
        while self.delivered.len() < count {
            let had = self.delivered.len();
            self.read(1).await?;
            senders.seen(self.delivered.len() - had);
            self.still_well(started, count, bound)?;
        }
        Ok(())
    }

    fn still_well(&self, started: Instant, count: usize, bound: Duration) -> Result<()> {
        if let Some(failed) = self.failed.first() {
            bail!(
                "{} message(s) failed, the first: {failed}",
                self.failed.len()
            );
        }
        if started.elapsed() > bound {
            bail!(
                "{} of {count} messages recorded as delivered within {} s",
                self.delivered.len(),
                bound.as_secs()
            );
        }
        Ok(())
    }

    /// Reads until `count` messages are recorded as delivered.
    pub(crate) async fn until_delivered(&mut self, count: usize, bound: Duration) -> Result<()> {
        let started = Instant::now();
        while self.delivered.len() < count {
            self.still_well(started, count, bound)?;
            self.read(2).await?;
        }
        Ok(())
    }
}
