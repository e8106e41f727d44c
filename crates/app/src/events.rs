//! The outbox, read from a cursor (EV-1), waiting for news where the caller wants that.

use std::time::Duration;

use wagate_domain::EventSeq;
use wagate_store::outbox::{self, EventFilter, StoredEvent};

use crate::app::{App, deadline};
use crate::caller::Caller;
use crate::error::AppError;
use crate::waits::Topic;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventsRequest {
    /// Events behind this one.
    pub after: EventSeq,
    /// At most this many.
    pub limit: u32,
    /// Names of events; empty means all.
    pub types: Vec<String>,
    /// How long to wait for the first one.
    pub wait: Duration,
}

impl App {
    /// The tenant's events behind a cursor, in order; waits, bounded, when there are none.
    pub async fn events(
        &self,
        caller: &Caller,
        request: EventsRequest,
    ) -> Result<Vec<StoredEvent>, AppError> {
        let filter = EventFilter {
            session: None,
            types: request.types,
        };
        let mut waiter = self.wait_on(Topic::Events(caller.tenant().clone()));
        let found = waiter
            .until(deadline(request.wait), || async {
                let (tenant, filter) = (caller.tenant().clone(), filter.clone());
                let (after, limit) = (request.after, request.limit);
                let read = move |tx: &mut wagate_store::Tx<'_>| {
                    outbox::after(tx, &tenant, after, &filter, limit)
                };
                let events = self.db().read(read).await?;
                Ok::<_, AppError>((!events.is_empty()).then_some(events))
            })
            .await?;
        Ok(found.unwrap_or_default())
    }
}
