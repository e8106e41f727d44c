//! What went wrong in the engine. What follows from it is in the one table of
//! [`wagate_domain::retry::table`].

use std::time::Duration;

use wagate_domain::retry::{Fault, Trouble, Verdict};
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

    /// What it is in the one table of refusals and faults.
    pub fn trouble(&self) -> Trouble {
        let fault = match self {
            Self::Refused { code, backoff, .. } => {
                return Trouble::Request {
                    code: *code,
                    backoff: *backoff,
                };
            }
            Self::Nack { code } => return Trouble::Message(*code),
            Self::ConnectFailure { code } => return Trouble::Login(*code),
            Self::StreamError { code } => return Trouble::Stream(*code),
            Self::NotConnected => Fault::NotConnected,
            Self::NotLinked | Self::AlreadyLinked => Fault::NotLinked,
            Self::Stopped => Fault::Stopped,
            Self::Unreachable(_)
            | Self::NotWhatsApp { .. }
            | Self::Version(_)
            | Self::Endpoint(_) => Fault::Unreachable,
            Self::Ambiguous(_) => Fault::Ambiguous,
            Self::Timeout { .. } => Fault::Timeout,
            Self::Overloaded => Fault::Overloaded,
            Self::NotOnWhatsApp(_) => Fault::NotOnWhatsApp,
            Self::Unsupported { .. } | Self::Invalid(_) => Fault::Unsendable,
            Self::NoUsableDevice(_) => Fault::NoUsableDevice,
            // About linking, which no message waits for.
            Self::CodeOutstanding { .. } | Self::Throttled { .. } => Fault::NotReady,
            Self::Store(StoreError::LeaseLost) => Fault::LeaseLost,
            Self::Store(_) => Fault::Database,
            Self::Protocol { .. } => Fault::Unknown,
        };
        Trouble::Ours(fault)
    }

    /// What to do about it: with the message, and with the session.
    pub fn verdict(&self) -> Verdict {
        self.trouble().verdict()
    }

    /// What to do with the message.
    pub fn retry_class(&self) -> RetryClass {
        self.verdict().class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classes themselves are tested with the table.
    #[test]
    fn every_error_is_found_in_the_table() {
        let jid = Jid::pn("6281234567890");
        let ours = [
            (EngineError::NotConnected, Fault::NotConnected),
            (EngineError::NotLinked, Fault::NotLinked),
            (EngineError::Stopped, Fault::Stopped),
            (EngineError::Store(StoreError::LeaseLost), Fault::LeaseLost),
            (EngineError::Store(StoreError::Busy), Fault::Database),
            (
                EngineError::NotOnWhatsApp(jid.clone()),
                Fault::NotOnWhatsApp,
            ),
            (EngineError::NoUsableDevice(jid), Fault::NoUsableDevice),
            (
                EngineError::Ambiguous("broken pipe".into()),
                Fault::Ambiguous,
            ),
            (EngineError::Timeout { doing: "x" }, Fault::Timeout),
            (EngineError::Overloaded, Fault::Overloaded),
        ];
        for (error, fault) in ours {
            assert_eq!(error.trouble(), Trouble::Ours(fault), "{error}");
        }
        assert_eq!(
            EngineError::Nack { code: 463 }.trouble(),
            Trouble::Message(463)
        );
        assert_eq!(
            EngineError::ConnectFailure { code: 402 }.trouble(),
            Trouble::Login(402)
        );
        assert_eq!(
            EngineError::StreamError { code: 515 }.trouble(),
            Trouble::Stream(515)
        );
        let backoff = Some(Duration::from_secs(7));
        let refused = EngineError::Refused {
            code: 429,
            text: String::new(),
            backoff,
        };
        assert_eq!(refused.trouble(), Trouble::Request { code: 429, backoff });
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
