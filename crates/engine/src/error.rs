//! What went wrong in the engine, and the one decision about trying again.
//!
//! The three tables at the end cover every code that WhatsApp is known to answer with: to a message
//! (nack), instead of a login (connect failure), and after a login (stream error).

use std::time::Duration;

use wagate_domain::{Jid, RetryClass};
use wagate_store::StoreError;

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
    Refused { code: u32, text: String, backoff: Option<Duration> },
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
    /// What to do about it: the only decision about trying again.
    pub fn retry_class(&self) -> RetryClass {
        match self {
            Self::NotConnected
            | Self::NotLinked
            | Self::AlreadyLinked
            | Self::Stopped
            | Self::Unreachable(_)
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
