//! Sends again what a recipient's device asked for again, and no device has confirmed since.

use std::sync::Arc;
use std::time::Duration;

use wagate_engine::Device;
use wagate_store::StoreError;
use wagate_store::messages::{self, DueResends, Resend};

use super::{Actor, Job, Outcome, Turn, fault};
use crate::session::step::Input;

impl Actor {
    /// Looks after the requests that are due. What cannot be sent now stays due.
    pub(super) async fn resend(&mut self) -> Turn {
        let now = self.shared.clock.now();
        if !self.core.may_send() || self.paced.gate(now).is_none() {
            return Ok(());
        }
        let Some(device) = self.device.clone() else {
            return Ok(());
        };
        let (shared, lease) = (Arc::clone(&self.shared), self.lease.clone());
        let first = shared.options.resend_after;
        let wait = move |time| wait_after(first, time);
        let tenant = lease.tenant.clone();
        let taken = shared.db.write_for(&tenant, move |tx| {
            messages::take_due_resends(tx, &lease, now, wait)
        });
        let DueResends { resends, given_up } = match self.listening(taken).await {
            Ok(due) => due,
            Err(StoreError::LeaseLost) => return Err(Outcome::LeaseLost),
            // The next tick asks again.
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => {
                return Err(fault(&self.lease, &error, "requests could not be read"));
            }
        };
        for message in given_up {
            tracing::warn!(
                session.id = %self.lease.session,
                message.id = %message,
                "a device of the recipient could not decrypt a message, which was sent again in vain"
            );
        }
        metrics::counter!("wagate_messages_resent_total").increment(resends.len() as u64);
        for resend in resends {
            let device = device.clone();
            self.jobs.spawn(async move {
                send(&device, resend).await;
                Job::Input(Input::Tick)
            });
        }
        Ok(())
    }
}

/// No message is looked at again later than this.
pub(crate) fn longest_resend_wait(first: Duration) -> Duration {
    wait_after(first, messages::RESENDS_MAX)
}

/// How long after its n-th time, from 0, a message is looked at again.
fn wait_after(first: Duration, time: u32) -> Duration {
    first * 2_u32.pow(time.min(messages::RESENDS_MAX))
}

/// Sends a message once more. Whether it arrived, the next look says.
async fn send(device: &Device, resend: Resend) {
    let Resend {
        wa_id,
        chat,
        content,
        time,
    } = resend;
    let sent = device.send(&wa_id, &chat, &content).await;
    let error = sent.as_ref().err();
    tracing::info!(
        message.wa_id = %wa_id,
        time,
        error = error.map(|error| error as &dyn std::error::Error),
        "a message that a device could not decrypt was sent again"
    );
}
