//! Follows each tenant's events as a client would, across everything that breaks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::clients::Clients;
use super::evidence::Event;

const AGAIN: Duration = Duration::from_millis(100);

/// What was read so far and not taken yet.
#[derive(Debug, Default)]
pub struct Seen {
    pub events: Vec<Event>,
    /// The newest status of each message.
    pub status: HashMap<String, String>,
    /// The texts of what came in.
    pub received: HashSet<String>,
}

/// All tenants' feeds.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Arc<Mutex<Seen>>);

impl Feeds {
    /// Begins to follow; each tenant by a task of its own.
    pub fn follow(clients: &Clients, tenants: usize, tasks: &mut JoinSet<()>) -> Self {
        let feeds = Self::default();
        for tenant in 0..tenants {
            let (clients, feeds) = (clients.clone(), feeds.clone());
            tasks.spawn(async move {
                let mut after = 0;
                loop {
                    let path = format!("/api/v1/events?after={after}&limit=200&wait=5");
                    match clients.read(tenant, &path).await {
                        Ok(page) => feeds.take(tenant, &page["data"], &mut after),
                        Err(_) => sleep(AGAIN).await,
                    }
                }
            });
        }
        feeds
    }

    fn take(&self, tenant: usize, page: &serde_json::Value, after: &mut i64) {
        let mut seen = self.open();
        for value in page.as_array().into_iter().flatten() {
            let event = Event::of(tenant, value);
            *after = event.seq;
            match event.kind.as_str() {
                "message.queued" => {
                    seen.status
                        .insert(event.message.clone(), "queued".to_owned());
                }
                "message.status" => {
                    seen.status
                        .insert(event.message.clone(), event.status.clone());
                }
                "message.received" => {
                    seen.received.insert(event.text.clone());
                }
                _ => {}
            }
            seen.events.push(event);
        }
    }

    pub fn open(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was seen since the last time.
    pub fn turn(&self) -> Seen {
        std::mem::take(&mut *self.open())
    }
}
