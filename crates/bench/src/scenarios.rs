//! The scenarios, one a file.

pub(crate) mod active_memory;
pub(crate) mod connect_storm;
pub(crate) mod idle_memory;
pub(crate) mod saturated;
pub(crate) mod sync_send;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::events::Feed;
use crate::report;
use crate::rig::{self, Rig};

/// How many sessions write to how many contacts each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: usize,
    pub(crate) contacts: usize,
}

impl Load {
    fn to_json(self) -> Value {
        json!({ "sessions": self.sessions, "contacts": self.contacts })
    }

    /// Path and body of message number `n`: sessions in turn, and each session's contacts in turn.
    fn message(self, n: usize, wait: &str) -> (String, Value) {
        let session = n % self.sessions;
        let contact = (n / self.sessions) % self.contacts;
        let text = format!("{n:08} {}", "x".repeat(151));
        (
            format!(
                "/api/v1/sessions/{}/messages?wait={wait}",
                rig::session_name(session)
            ),
            json!({ "to": rig::contact_number(contact), "type": "text", "message": text }),
        )
    }

    /// Links the sessions, makes the contacts, and sends each contact one message from each session:
    /// afterwards device lists and Signal sessions exist, as in a gateway that has been up for a while.
    async fn prepare(self, rig: &Rig) -> Result<()> {
        rig.link(0, self.sessions).await?;
        self.meet(rig).await
    }

    /// The same for sessions that are linked.
    async fn meet(self, rig: &Rig) -> Result<()> {
        for n in 0..self.contacts {
            rig.account(&rig::contact_number(n), "Contact")?;
        }
        eprintln!("first messages to {} contacts a session …", self.contacts);
        let mut feed = Feed::from_now(&rig.client).await?;
        let all = self.sessions * self.contacts;
        for n in 0..all {
            let (path, body) = self.message(n, "0");
            rig.client.post(&path, &body).await?;
        }
        feed.until_delivered(all, Duration::from_secs(300)).await
    }
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
