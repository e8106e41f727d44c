//! Hands a claimed message to the engine, and names what went wrong (the end of step 4 of the path).

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use wagate_domain::message::Failure;
use wagate_domain::retry::{Fault, SessionMove, Trouble};
use wagate_domain::{Backoff, Content, Jid, RetryClass, Timestamp, WaMessageId, failpoint};
use wagate_engine::{Device, EngineError};
use wagate_store::{Lease, pacing, queue};

use super::step::Input;
use crate::worker::Shared;

/// How long a number that nobody has is not asked about again: people do come to WhatsApp.
const ABSENT_FOR: Duration = Duration::from_secs(60 * 60);

/// One message for the engine.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) wa_id: WaMessageId,
    pub(crate) flight: u64,
    pub(crate) chat: Jid,
    pub(crate) content: Content,
    /// Not to be written from then on.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What a send is done with.
pub(crate) struct Sender {
    pub(crate) device: Device,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lease: Lease,
    /// How many recipients to make ready in one go.
    pub(crate) ahead: u32,
    /// How long to show that somebody types.
    pub(crate) typing: Option<Duration>,
}

impl Sender {
    /// Writes a message to the socket. `Written` is not `sent` (MP-5).
    ///
    /// What has expired since it was claimed is not written: it goes back, and the next tick ends it.
    pub(crate) async fn send(self, outgoing: Outgoing) -> Input {
        let Outgoing {
            wa_id,
            flight,
            chat,
            content,
            expires_at,
        } = outgoing;
        let not_written = |wa_id, verdict, failure| Input::NotWritten {
            wa_id,
            flight,
            verdict,
            failure,
        };
        let written = async {
            self.make_ready(&chat).await?;
            self.type_before(&chat).await;
            if expires_at.is_some_and(|at| at <= self.shared.clock.now()) {
                return Ok(false);
            }
            // MP-2: the id was stored when the message was accepted.
            self.device.send(&wa_id, &chat, &content).await?;
            Ok(true)
        };
        match written.await {
            Ok(true) => {
                failpoint::hit("written_not_acked");
                Input::Written { wa_id, flight }
            }
            Ok(false) => {
                let expired = Failure {
                    code: "expired".to_owned(),
                    reason: "the message expired before it was sent".to_owned(),
                };
                not_written(wa_id, Trouble::Ours(Fault::Stopped).verdict(), expired)
            }
            Err(error) => {
                let error: EngineError = error;
                tracing::debug!(
                    message.wa_id = %wa_id,
                    error = &error as &dyn std::error::Error,
                    "a message was not written"
                );
                not_written(wa_id, error.verdict(), failure_of(&error))
            }
        }
    }

    /// Asks WhatsApp about a recipient who was not written to yet, and with that about those who come
    /// next: whether they have an account, their devices, their keys. Who has none is remembered.
    async fn make_ready(&self, chat: &Jid) -> Result<(), EngineError> {
        if self.device.is_prepared(chat) {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let (session, first, ahead) = (self.lease.session.clone(), chat.clone(), self.ahead);
        let looked = self.shared.db.read(move |tx| {
            let mut chats = queue::next_chats(tx, &session, ahead)?;
            chats.retain(|chat| chat.is_user() && *chat != first);
            chats.insert(0, first);
            let absent = pacing::absent(tx, &session, &chats, now.minus(ABSENT_FOR))?;
            Ok((chats, absent))
        });
        // Without the database the send asks for itself.
        let Ok((mut chats, known_absent)) = looked.await else {
            return Ok(());
        };
        if known_absent.contains(chat) {
            return Err(EngineError::NotOnWhatsApp(chat.clone()));
        }
        chats.retain(|chat| !known_absent.contains(chat));
        let absent = match self.device.prepare(&chats).await {
            Ok(absent) => absent,
            Err(error) => {
                // What concerns them all is for all to wait; the rest the send finds out about its own.
                let pauses = matches!(error.verdict().session, SessionMove::Pauses { .. });
                return if pauses { Err(error) } else { Ok(()) };
            }
        };
        if absent.is_empty() {
            return Ok(());
        }
        let missing = absent.contains(chat);
        let lease = self.lease.clone();
        let noted = self.shared.db.write_for(&self.lease.tenant, move |tx| {
            pacing::note_absent(tx, &lease, &absent, ABSENT_FOR, now)
        });
        if let Err(error) = noted.await {
            tracing::debug!(%error, "absent numbers were not noted, and are asked about again");
        }
        if missing {
            return Err(EngineError::NotOnWhatsApp(chat.clone()));
        }
        Ok(())
    }

    async fn type_before(&self, chat: &Jid) {
        let Some(typing) = self.typing else { return };
        // For show only: a message goes out without it too.
        if let Err(error) = self.device.show_typing(chat).await {
            tracing::debug!(%error, "typing was not shown");
        }
        tokio::time::sleep(typing).await;
    }
}

/// The failure that a message gets when no attempt is left; carries no phone number.
pub(crate) fn failure_of(error: &EngineError) -> Failure {
    let (code, reason) = match error {
        EngineError::NotOnWhatsApp(_) => (
            "recipient_not_registered",
            "the recipient is not on WhatsApp".to_owned(),
        ),
        EngineError::NoUsableDevice(_) => (
            "no_usable_device",
            "no device of the recipient could be written to".to_owned(),
        ),
        EngineError::Unsupported { kind } => (
            "unsupported_content",
            format!("content of kind {kind} cannot be sent"),
        ),
        EngineError::Invalid(_) => (
            "invalid_message",
            "WhatsApp cannot carry this message".to_owned(),
        ),
        EngineError::Nack { code } | EngineError::Refused { code, .. } => {
            return Failure {
                code: format!("whatsapp_{code}"),
                reason: format!("WhatsApp refused the message with code {code}"),
            };
        }
        EngineError::Ambiguous(_) => (
            "unconfirmed",
            "the connection broke while the message was sent".to_owned(),
        ),
        EngineError::Timeout { .. } => ("timeout", "WhatsApp did not answer in time".to_owned()),
        EngineError::NotConnected | EngineError::NotLinked | EngineError::Stopped => (
            "session_not_connected",
            "the session is not connected".to_owned(),
        ),
        _ => ("send_failed", "the message could not be sent".to_owned()),
    };
    Failure {
        code: code.to_owned(),
        reason,
    }
}

/// When a message is due again.
pub(crate) fn due_again(class: RetryClass, attempt: u32, now: Timestamp) -> Timestamp {
    let wait = match class {
        RetryClass::After(wait) => wait,
        RetryClass::Backoff => Backoff::MESSAGE.wait(attempt, rand::rng().random()),
        RetryClass::Now | RetryClass::SessionDown | RetryClass::Never => Duration::ZERO,
    };
    now.plus(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_grows_with_the_attempt_and_a_fixed_wait_does_not() {
        let now = Timestamp::from_secs(1_000);
        let fifth = due_again(RetryClass::Backoff, 5, now).since(now);
        assert!((25_600..=38_400).contains(&fifth.as_millis()), "{fifth:?}");
        let wait = Duration::from_secs(60);
        assert_eq!(due_again(RetryClass::After(wait), 5, now).since(now), wait);
        assert_eq!(due_again(RetryClass::Now, 5, now), now);
    }

    #[test]
    fn failures_name_no_recipient() {
        let failure = failure_of(&EngineError::NotOnWhatsApp(Jid::pn("6281234567890")));
        assert_eq!(failure.code, "recipient_not_registered");
        assert!(!failure.reason.contains("6281234567890"));
    }
}
