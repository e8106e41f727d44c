//! The scenarios, one a file.

pub(crate) mod active_memory;
pub(crate) mod campaign;
pub(crate) mod connect_storm;
pub(crate) mod fairness;
pub(crate) mod growth_history;
pub(crate) mod growth_queue;
pub(crate) mod idle_memory;
pub(crate) mod inbound;
pub(crate) mod saturated;
pub(crate) mod sync_send;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Duration;
use wagate::client::Client;

use crate::events::Feed;
use crate::report;
use crate::rig::{self, Rig};

/// How many sessions write to how many contacts each.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Load {
    /// The number of the first session.
    #[arg(skip)]
    first: usize,
    #[arg(long, default_value_t = 50)]
    pub(crate) sessions: usize,
    #[arg(long, default_value_t = 20)]
    pub(crate) contacts: usize,
}

impl Load {
    pub(crate) fn new(sessions: usize, contacts: usize) -> Self {
        Self {
            first: 0,
            sessions,
            contacts,
        }
    }

    fn to_json(self) -> Value {
        json!({ "sessions": self.sessions, "contacts": self.contacts })
    }

    /// Path and body of message number `n`: sessions in turn, and each session's contacts in turn.
    fn message(self, n: usize, wait: &str) -> (String, Value) {
        let session = self.first + n % self.sessions;
        let contact = (n / self.sessions) % self.contacts;
        message(session, &rig::contact_number(contact), n, wait)
    }

    /// Links the sessions, makes the contacts, and sends each contact one message from each session:
    /// afterwards device lists and Signal sessions exist, as in a gateway that has been up for a while.
    async fn prepare(self, rig: &Rig) -> Result<()> {
        rig.link(0, self.sessions).await?;
        make_contacts(rig, self.contacts)?;
        self.meet(&rig.client).await
    }

    /// Sends the first messages from sessions that are linked, to contacts that exist.
    async fn meet(self, client: &Client) -> Result<()> {
        let all = self.sessions * self.contacts;
        eprintln!("first messages to {} contacts a session …", self.contacts);
        let mut feed = Feed::from_now(client).await?;
        for n in 0..all {
            let (path, body) = self.message(n, "0");
            client.post(&path, &body).await?;
        }
        feed.until_delivered(all, Duration::from_secs(300)).await
    }
}

/// Path and body of a request to send text number `n`, of 160 bytes.
fn message(session: usize, to: &str, n: usize, wait: &str) -> (String, Value) {
    let path = format!(
        "/api/v1/sessions/{}/messages?wait={wait}",
        rig::session_name(session)
    );
    (
        path,
        json!({ "to": to, "type": "text", "message": text(n) }),
    )
}

/// Text number `n`, of 160 bytes.
fn text(n: usize) -> String {
    format!("{n:08} {}", "x".repeat(151))
}

fn make_contacts(rig: &Rig, count: usize) -> Result<()> {
    for n in 0..count {
        rig.account(&rig::contact_number(n), "Contact")?;
    }
    Ok(())
}

/// KiB a session between the first point and the last, both a number of sessions and the KiB they need.
pub(crate) fn slope(points: &[(usize, u64)]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let sessions = last.0.checked_sub(first.0).filter(|more| *more > 0)?;
    Some(report::ratio(
        last.1.saturating_sub(first.1),
        sessions as u64,
    ))
}
