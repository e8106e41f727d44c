//! What a session's device does when the core says so, and the end of a deleted session.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use wagate_domain::{PhoneNumber, WaMessageId};
use wagate_engine::InboundSink;
use wagate_store::bus::BusMessage;
use wagate_store::{StoreError, sessions};

use super::commit::END_WITHIN;
use super::{Actor, EVENTS_MAX, Job, Outcome, Turn, fault};
use crate::session::inbound::Sink;
use crate::session::outbound::{Outgoing, Sender};
use crate::session::step::{Effect, Input};

/// Rows of a deleted session that one transaction removes.
const DELETE_ROWS: u32 = 500;

impl Actor {
    /// Lets the device act. What takes long runs beside the actor.
    pub(super) async fn act(&mut self, act: Effect) {
        match act {
            Effect::Open => self.open().await,
            Effect::Start => {
                if let Some(device) = &self.device {
                    device.start();
                }
            }
            Effect::ReconnectNow => {
                if let Some(device) = &self.device {
                    device.reconnect_now();
                }
            }
            Effect::RequestCode(phone) => self.request_code(phone),
            Effect::Send { wa_id, flight } => self.send(wa_id, flight),
            how @ (Effect::Stop | Effect::Logout) => {
                let Some(device) = self.device.clone() else {
                    return;
                };
                self.jobs.spawn(async move {
                    let ending = async {
                        if how == Effect::Logout {
                            device.logout().await;
                        } else {
                            device.stop().await;
                        }
                    };
                    if timeout(END_WITHIN, ending).await.is_err() {
                        tracing::warn!("a device did not end in time");
                    }
                    Job::DeviceDone
                });
            }
            // Rows are `sort`'s, and `End` is only the core's word that it is over.
            _ => {}
        }
    }

    /// Opens a device; one that ended before is let go first, so that only one lives (SL-1).
    async fn open(&mut self) {
        if let Some(spent) = self.device.take() {
            self.end(spent).await;
        }
        let sink: Arc<dyn InboundSink> = Arc::new(Sink {
            shared: Arc::clone(&self.shared),
            lease: self.lease.clone(),
            lost: self.mailbox.lost.clone(),
        });
        let (shared, lease) = (Arc::clone(&self.shared), self.lease.clone());
        self.jobs.spawn(async move {
            let (sender, events) = mpsc::channel(EVENTS_MAX);
            let device = shared.engine.open(&lease, sink, sender).await;
            Job::Opened(device.map(|device| (device, events)))
        });
    }

    fn request_code(&mut self, phone: PhoneNumber) {
        let Some(device) = self.device.clone() else {
            return;
        };
        self.jobs.spawn(async move {
            match device.request_code(&phone).await {
                // The code itself comes as an event.
                Ok(_) => Job::Input(Input::Tick),
                Err(error) => Job::Input(Input::CodeFailed {
                    reason: error.to_string(),
                }),
            }
        });
    }

    fn send(&mut self, wa_id: WaMessageId, flight: u64) {
        let (Some(device), Some(claimed)) = (&self.device, self.claims.get(&wa_id)) else {
            debug_assert!(false, "a send without a device or a claim");
            return;
        };
        let outgoing = Outgoing {
            wa_id,
            flight,
            chat: claimed.chat.clone(),
            content: claimed.content.clone(),
            expires_at: claimed.expires_at,
        };
        let sender = Sender {
            device: device.clone(),
            shared: Arc::clone(&self.shared),
            lease: self.lease.clone(),
            ahead: self.paced.ahead(),
            typing: self.paced.typing(claimed.content.as_text()),
        };
        let place = self.places.remove(&outgoing.wa_id);
        self.jobs.spawn(async move {
            let input = sender.send(outgoing).await;
            drop(place);
            Job::Input(input)
        });
    }

    /// Removes the session's rows, a bounded number at a time.
    pub(super) async fn delete(&mut self) -> Turn {
        if let Some(device) = self.device.take() {
            self.end(device).await;
        }
        loop {
            let lease = self.lease.clone();
            let deleted = self
                .shared
                .db
                .write_for(&self.lease.tenant, move |tx| {
                    sessions::delete_rows(tx, &lease, DELETE_ROWS)
                })
                .await;
            match deleted {
                Ok(true) => break,
                Ok(false) => {}
                Err(StoreError::LeaseLost) => return Err(Outcome::LeaseLost),
                Err(StoreError::NotFound { .. }) => break,
                Err(error) => {
                    return Err(fault(&self.lease, &error, "a session could not be deleted"));
                }
            }
        }
        self.shared.bus.publish(BusMessage::SessionChanged {
            session: self.lease.session.clone(),
        });
        self.shared.bus.publish(BusMessage::EventsAppended {
            tenant: self.lease.tenant.clone(),
        });
        Err(Outcome::Deleted)
    }
}
