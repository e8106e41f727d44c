//! What went wrong in the engine, and the one decision about trying again.
//!
//! The three tables at the end cover every code that WhatsApp is known to answer with: to a message
//! (nack), instead of a login (connect failure), and after a login (stream error).

use std::time::Duration;

use wagate_domain::{Jid, RetryClass};
use wagate_store::StoreError;
use whatsapp_rust::send::SendError;
use whatsapp_rust::socket::error::EncryptSendError;

use crate::endpoint::EndpointError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An operation of the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device is not connected or not logged in. Wait for `Connected`.
    #[error("the session is not connected")]
    NotConnected,
    /// The device is not linked to an account. A person must link it.
    #[error("the session is not linked")]
    NotLinked,
    /// The device is linked already; there is nothing to link.
    #[error("the session is already linked")]
    AlreadyLinked,
    /// WhatsApp did not answer in time.
    #[error("WhatsApp did not answer in time while {doing}")]
    Timeout { doing: &'static str },
    /// The message may or may not have reached WhatsApp: send it again with the same id (MP-2).
    #[error("the connection broke while sending")]
    Ambiguous(#[source] Source),
    /// WhatsApp refused a request.
    #[error("WhatsApp refused the request with code {code}")]
    Refused {
        code: u32,
        text: String,
        backoff: Option<Duration>,
    },
    /// WhatsApp refused a message.
    #[error("WhatsApp refused the message with code {code}")]
    Nack { code: u32 },
    /// WhatsApp refused the connection.
    #[error("WhatsApp refused the connection with code {code}")]
    ConnectFailure { code: u32 },
    /// WhatsApp ended the connection.
    #[error("WhatsApp ended the connection with code {code}")]
    StreamError { code: u32 },
    /// The recipient has no account.
    #[error("{0} is not on WhatsApp")]
    NotOnWhatsApp(Jid),
    /// No device of the recipient could be given a key; sending would reach nobody (engine rule 3).
    #[error("no device of {0} can be written to now")]
    NoUsableDevice(Jid),
    /// This build cannot send content of that kind.
    #[error("content of kind {kind} cannot be sent")]
    Unsupported { kind: &'static str },
    /// What was asked makes no sense to WhatsApp.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// A pairing code is open for this session; it stays valid for a while.
    #[error("a pairing code is already open")]
    CodeOutstanding { remaining: Duration },
    /// WhatsApp hands out no more pairing codes for this number for a while.
    #[error("too many pairing codes were asked for")]
    Throttled { after: Option<Duration> },
    /// The device was stopped.
    #[error("the session was stopped")]
    Stopped,
    /// Too many messages wait for their acknowledgement.
    #[error("too many messages wait for an acknowledgement")]
    Overloaded,
    /// The place to connect to is not acceptable.
    #[error("the endpoint is not usable")]
    Endpoint(#[from] EndpointError),
    /// The current version of WhatsApp could not be found out.
    #[error("the current version of WhatsApp could not be fetched")]
    Version(#[source] Source),
    /// The socket to WhatsApp could not be opened.
    #[error("WhatsApp cannot be reached")]
    Unreachable(#[source] Source),
    /// Whoever answers there is not WhatsApp, or its certificate chain is not WhatsApp's.
    #[error("the server is not WhatsApp: {reason}")]
    NotWhatsApp { reason: String },
    /// The database refused.
    #[error("device state could not be read or written")]
    Store(#[from] StoreError),
    /// The library failed in a way that has no name.
    #[error("the protocol library failed while {doing}")]
    Protocol {
        doing: &'static str,
        #[source]
        source: Source,
    },
}

impl EngineError {
    /// What an error of the library means, for anything but a send.
    pub(crate) fn from_library(
        doing: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        // Here only: the trait's method collides with one that the derive above uses.
        use whatsapp_rust::ErrorChainExt as _;

        if let Some(rejection) = error.server_rejection() {
            return Self::Refused {
                code: u32::from(rejection.code),
                text: rejection.text.to_owned(),
                backoff: rejection
                    .backoff
                    .map(|secs| Duration::from_secs(u64::from(secs))),
            };
        }
        if error.is_timeout() {
            return Self::Timeout { doing };
        }
        if error.is_transport_unavailable() {
            return Self::NotConnected;
        }
        Self::Protocol {
            doing,
            source: Box::new(error),
        }
    }

    /// What a failed send means.
    pub(crate) fn from_send(error: SendError) -> Self {
        match error {
            SendError::NotLoggedIn => Self::NotConnected,
            SendError::InvalidRequest(text) => Self::Invalid(text),
            other => {
                // The frame was on its way to the socket when that broke: it may have gone out.
                let on_the_wire = whatsapp_rust::ErrorChainExt::sources(&other)
                    .any(|cause| cause.downcast_ref::<EncryptSendError>().is_some());
                if on_the_wire {
                    Self::Ambiguous(Box::new(other))
                } else {
                    Self::from_library("sending", other)
                }
            }
        }
    }

    /// What to do about it: the only decision about trying again.
    pub fn retry_class(&self) -> RetryClass {
        match self {
            Self::NotConnected
            | Self::NotLinked
            | Self::AlreadyLinked
            | Self::Stopped
            | Self::Unreachable(_)
            | Self::NotWhatsApp { .. }
            | Self::Version(_)
            | Self::Endpoint(_) => RetryClass::SessionDown,
            Self::Ambiguous(_) => RetryClass::Now,
            Self::Timeout { .. } | Self::Overloaded => RetryClass::Backoff,
            Self::Refused { code, backoff, .. } => refused_class(*code, *backoff),
            Self::Nack { code } => nack_class(*code),
            Self::ConnectFailure { code } => connect_failure_class(*code),
            Self::StreamError { code } => stream_error_class(*code),
            Self::NotOnWhatsApp(_) | Self::Unsupported { .. } | Self::Invalid(_) => {
                RetryClass::Never
            }
            // A device list or its keys can be stale for a moment; minutes later it is usually cured.
            Self::NoUsableDevice(_) => RetryClass::After(Duration::from_secs(60)),
            Self::CodeOutstanding { remaining } => RetryClass::After(*remaining),
            Self::Throttled { after } => {
                RetryClass::After(after.unwrap_or(Duration::from_secs(300)))
            }
            Self::Store(StoreError::LeaseLost) => RetryClass::SessionDown,
            Self::Store(_) | Self::Protocol { .. } => RetryClass::Backoff,
        }
    }
}

/// What to do about a message that WhatsApp's server refused with `code`.
pub fn nack_class(code: u32) -> RetryClass {
    match code {
        // Stale addressing of a group: the library refreshes it, the next attempt is right.
        421 => RetryClass::After(Duration::from_secs(1)),
        // Too fast, or the server is busy.
        429 => RetryClass::After(Duration::from_secs(60)),
        // The account may not open new chats for now; neither hammer nor give up at once.
        475 => RetryClass::After(Duration::from_secs(3600)),
        // Privacy token missing, or the account is restricted: a token may have come by then.
        463 => RetryClass::After(Duration::from_secs(300)),
        // Parsing and stanza errors: the same bytes are refused again.
        400 | 403..=406 | 479 | 487..=491 | 493 | 495 | 496 | 499 | 550 | 551 => RetryClass::Never,
        // The server's trouble, or a code that nobody knows: again, and the attempts are bounded.
        _ => RetryClass::Backoff,
    }
}

/// What a `<failure reason=code>` at login means for messages that wait.
pub fn connect_failure_class(code: u32) -> RetryClass {
    match code {
        500 | 501 | 503 => RetryClass::Backoff,
        429 => RetryClass::After(Duration::from_secs(300)),
        // Logged out, banned, locked, outdated, bad user agent, expired: messages wait for the session.
        _ => RetryClass::SessionDown,
    }
}

/// What a `<stream:error code>` means for messages that wait.
pub fn stream_error_class(code: u32) -> RetryClass {
    match code {
        // Restart: the connection comes back at once.
        515 => RetryClass::Now,
        500 | 503 => RetryClass::Backoff,
        429 => RetryClass::After(Duration::from_secs(60)),
        // 401, 516: logged out; 409: replaced; anything else: whatever the session becomes.
        _ => RetryClass::SessionDown,
    }
}

/// What to do about a request (not a message) that WhatsApp refused.
fn refused_class(code: u32, backoff: Option<Duration>) -> RetryClass {
    match code {
        400 | 403..=406 | 409 | 410 => RetryClass::Never,
        401 => RetryClass::SessionDown,
        429 => RetryClass::After(backoff.unwrap_or(Duration::from_secs(60))),
        _ => backoff.map_or(RetryClass::Backoff, RetryClass::After),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: RetryClass = RetryClass::Never;
    const DOWN: RetryClass = RetryClass::SessionDown;
    const BACKOFF: RetryClass = RetryClass::Backoff;

    const fn after(secs: u64) -> RetryClass {
        RetryClass::After(Duration::from_secs(secs))
    }

    #[test]
    fn every_known_refusal_of_a_message_has_its_class() {
        let table = [
            (400, NEVER),
            (403, NEVER),
            (404, NEVER),
            (405, NEVER),
            (406, NEVER),
            (421, after(1)),
            (429, after(60)),
            (463, after(300)),
            (475, after(3600)),
            (479, NEVER),
            (487, NEVER),
            (488, NEVER),
            (489, NEVER),
            (490, NEVER),
            (491, NEVER),
            (493, NEVER),
            (495, NEVER),
            (496, NEVER),
            (499, NEVER),
            (500, BACKOFF),
            (503, BACKOFF),
            (550, NEVER),
            (551, NEVER),
            (552, BACKOFF),
            (999, BACKOFF),
        ];
        for (code, class) in table {
            assert_eq!(
                EngineError::Nack { code }.retry_class(),
                class,
                "nack {code}"
            );
        }
    }

    #[test]
    fn every_known_refusal_of_a_login_has_its_class() {
        for code in [400, 401, 402, 403, 405, 406, 409, 411, 413, 414, 415, 418] {
            let class = EngineError::ConnectFailure { code }.retry_class();
            assert_eq!(class, DOWN, "failure {code}");
        }
        for code in [500, 501, 503] {
            assert_eq!(connect_failure_class(code), BACKOFF, "failure {code}");
        }
        assert_eq!(connect_failure_class(429), after(300));
    }

    #[test]
    fn every_known_end_of_a_stream_has_its_class() {
        let table = [
            (401, DOWN),
            (409, DOWN),
            (429, after(60)),
            (500, BACKOFF),
            (503, BACKOFF),
            (515, RetryClass::Now),
            (516, DOWN),
        ];
        for (code, class) in table {
            assert_eq!(
                EngineError::StreamError { code }.retry_class(),
                class,
                "stream {code}"
            );
        }
    }

    #[test]
    fn our_own_errors_have_theirs() {
        let jid = Jid::pn("6281234567890");
        assert_eq!(EngineError::NotConnected.retry_class(), DOWN);
        assert_eq!(
            EngineError::Store(StoreError::LeaseLost).retry_class(),
            DOWN
        );
        assert_eq!(EngineError::Store(StoreError::Busy).retry_class(), BACKOFF);
        assert_eq!(EngineError::NotOnWhatsApp(jid.clone()).retry_class(), NEVER);
        assert_eq!(EngineError::NoUsableDevice(jid).retry_class(), after(60));
        assert_eq!(
            EngineError::Ambiguous("broken pipe".into()).retry_class(),
            RetryClass::Now
        );
        let refused = |code, backoff| EngineError::Refused {
            code,
            text: String::new(),
            backoff,
        };
        assert_eq!(
            refused(429, Some(Duration::from_secs(7))).retry_class(),
            after(7)
        );
        assert_eq!(refused(429, None).retry_class(), after(60));
        assert_eq!(refused(403, None).retry_class(), NEVER);
        assert_eq!(refused(503, None).retry_class(), BACKOFF);
    }

    #[test]
    fn a_frame_that_broke_on_the_wire_is_ambiguous() {
        let broken = EncryptSendError::transport(std::io::Error::other("broken pipe"));
        let error = SendError::from(whatsapp_rust::ClientError::EncryptSend(broken));
        assert!(matches!(
            EngineError::from_send(error),
            EngineError::Ambiguous(_)
        ));
        let error = SendError::from(whatsapp_rust::ClientError::NotConnected);
        assert!(matches!(
            EngineError::from_send(error),
            EngineError::NotConnected
        ));
    }
}
