//! Commits what a device received, before WhatsApp is told that it arrived (IN-1).
//!
//! Called by the engine inside the device's receive path, so it waits for nothing but the database.
//! What it refuses stays unacknowledged, and WhatsApp delivers it again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wagate_domain::{failpoint, plant};
use wagate_engine::{InboundMessage, InboundSink, SinkError};
use wagate_store::bus::BusMessage;
use wagate_store::messages::{self, Inserted, NewInbound};
use wagate_store::{Lease, StoreError, Tx, When};

use crate::worker::Shared;

/// How often a commit is tried while the database is busy; afterwards WhatsApp keeps the messages.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(150);

/// The sink of one session's device.
pub(crate) struct Sink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lease: Lease,
    pub(crate) lost: CancellationToken,
}

#[async_trait::async_trait]
impl InboundSink for Sink {
    async fn commit(&self, messages: Vec<InboundMessage>) -> Result<(), SinkError> {
        failpoint::hit("inbound_decrypted");
        let rows: Arc<Vec<NewInbound>> = Arc::new(messages.into_iter().map(row).collect());
        if plant::nth("inbound_dropped", 5) {
            return Ok(());
        }
        if plant::is("ack_before_commit") {
            let (db, lease) = (self.shared.db.clone(), self.lease.clone());
            let clock = Arc::clone(&self.shared.clock);
            #[expect(clippy::disallowed_methods, reason = "a planted bug waits for nobody")]
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let now = clock.now();
                let tenant = lease.tenant.clone();
                let write =
                    move |tx: &mut Tx<'_>| messages::insert_inbound(tx, &lease, rows.to_vec(), now);
                db.write_for(&tenant, write).await.ok();
            });
            return Ok(());
        }
        let mut tries = 1;
        let inserted = loop {
            match self.insert(Arc::clone(&rows)).await {
                Ok(inserted) => break inserted,
                Err(error)
                    if error.is_transient() && tries < TRIES && !self.lost.is_cancelled() =>
                {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(self.refuse(error)),
            }
        };
        failpoint::hit("inbound_committed");
        let new = inserted
            .iter()
            .filter(|one| matches!(one, Inserted::New(_)))
            .count();
        metrics::counter!("wagate_messages_received_total").increment(new as u64);
        if new > 0 {
            let tenant = self.lease.tenant.clone();
            self.shared
                .bus
                .publish(BusMessage::EventsAppended { tenant });
        }
        Ok(())
    }
}

impl Sink {
    async fn insert(&self, rows: Arc<Vec<NewInbound>>) -> Result<Vec<Inserted>, StoreError> {
        let lease = self.lease.clone();
        let now = self.shared.clock.now();
        self.shared
            .db
            .write_repeatable(&self.lease.tenant, When::Now, move |tx| {
                messages::insert_inbound(tx, &lease, rows.to_vec(), now)
            })
            .await
    }

    fn refuse(&self, error: StoreError) -> SinkError {
        if matches!(error, StoreError::LeaseLost) {
            self.lost.cancel();
        } else {
            tracing::warn!(
                session.id = %self.lease.session,
                error = &error as &dyn std::error::Error,
                "inbound messages were not committed, WhatsApp will deliver them again"
            );
        }
        SinkError(Box::new(error))
    }
}

fn row(message: InboundMessage) -> NewInbound {
    NewInbound {
        wa_id: message.wa_id,
        chat: message.chat,
        sender: message.sender,
        from_me: message.from_me,
        push_name: message.push_name,
        content: message.content,
        at: message.sent_at,
    }
}
