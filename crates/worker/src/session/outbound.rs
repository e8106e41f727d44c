//! Hands a claimed message to the engine, and names what went wrong (the end of step 4 of the path).

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use wagate_domain::message::Failure;
use wagate_domain::{Backoff, Clock, Content, Jid, RetryClass, Timestamp, WaMessageId, failpoint};
use wagate_engine::{Device, EngineError};

use super::step::Input;

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

/// Writes a message to the socket. `Written` is not `sent` (MP-5).
///
/// What has expired since it was claimed is not written: it goes back, and the next tick ends it.
pub(crate) async fn send(device: Device, clock: Arc<dyn Clock>, outgoing: Outgoing) -> Input {
    let Outgoing {
        wa_id,
        flight,
        chat,
        content,
        expires_at,
    } = outgoing;
    if expires_at.is_some_and(|at| at <= clock.now()) {
        return Input::NotWritten {
            wa_id,
            flight,
            class: RetryClass::SessionDown,
            failure: Failure {
                code: "expired".to_owned(),
                reason: "the message expired before it was sent".to_owned(),
            },
        };
    }
    // MP-2: the id was stored when the message was accepted.
    match device.send(&wa_id, &chat, &content).await {
        Ok(_) => {
            failpoint::hit("written_not_acked");
            Input::Written { wa_id, flight }
        }
        Err(error) => {
            let class = error.retry_class();
            tracing::debug!(
                message.wa_id = %wa_id,
                error = &error as &dyn std::error::Error,
                "a message was not written"
            );
            Input::NotWritten {
                wa_id,
                flight,
                class,
                failure: failure_of(&error),
            }
        }
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
