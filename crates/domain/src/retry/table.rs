//! What every refusal of WhatsApp and every fault of ours means: for the message, and for the session.
//!
//! The codes are those that whatsapp-rust, Baileys and the simulated network know. A code that nobody
//! knows is treated as the server's trouble: tried again, and the attempts are bounded.

use std::time::Duration;

use super::RetryClass;
use crate::pacing::{Reason, Scope};

/// What went wrong, and where WhatsApp said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A message was refused: `<ack error=code>`.
    Message(u32),
    /// A request was refused: `<iq type=error>`, with the wait that the answer names.
    Request {
        code: u32,
        backoff: Option<Duration>,
    },
    /// The login was refused: `<failure reason=code>`.
    Login(u32),
    /// The connection was ended: `<stream:error code>`.
    Stream(u32),
    /// WhatsApp did not say anything.
    Ours(Fault),
}

/// What can go wrong without a word of WhatsApp's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not connected, or not logged in.
    NotConnected,
    /// The device has no account, or was linked already when it should be linked.
    NotLinked,
    /// The device was stopped.
    Stopped,
    /// Another worker holds the session.
    LeaseLost,
    /// The socket cannot be opened, or leads to somebody else.
    Unreachable,
    /// Connected, and still taking in what came while it was away.
    NotReady,
    /// An answer did not come in time.
    Timeout,
    /// A message was written and its acknowledgement did not come in time.
    NoAck,
    /// The connection broke while a message was written: it may have gone out.
    Ambiguous,
    /// Too many messages wait for their acknowledgement.
    Overloaded,
    /// The database refused.
    Database,
    /// No device of the recipient could be given a key.
    NoUsableDevice,
    /// The recipient has no account.
    NotOnWhatsApp,
    /// The message makes no sense to WhatsApp, or this version cannot send it.
    Unsendable,
    /// Something without a name.
    Unknown,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// With the message.
    pub class: RetryClass,
    /// With the session.
    pub session: SessionMove,
}

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMove {
    /// Nothing.
    Stays,
    /// The connection is gone or useless: a new one, by itself.
    Reconnects,
    /// It sends nothing of this scope until the time that WhatsApp named, or a guess.
    Pauses {
        scope: Scope,
        reason: Reason,
        named: Option<Duration>,
    },
    /// It ends in a state that trying again does not cure.
    Ends(Ending),
}

/// A permanent state, and who can cure it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No longer linked: the owner links it again.
    LoggedOut,
    /// The account is locked: the owner sees to it on the phone.
    Locked,
    /// Another connection has the device.
    Replaced,
    /// Banned, for a time where WhatsApp names one.
    Banned,
    /// The version is too old: an operator updates wagate.
    Outdated,
    /// Refused for a reason that nobody but a developer can cure.
    Refused,
}

const SESSION_DOWN: RetryClass = RetryClass::SessionDown;
const RECONNECTS: SessionMove = SessionMove::Reconnects;

/// A device list or its keys can be stale for a moment; a minute later it is usually cured.
const STALE_KEYS: Duration = Duration::from_secs(60);

impl Trouble {
    /// The table.
    pub fn verdict(self) -> Verdict {
        let (class, session) = match self {
            Self::Message(code) => message(code),
            Self::Request { code, backoff } => request(code, backoff),
            Self::Login(code) => login(code),
            Self::Stream(code) => stream(code),
            Self::Ours(fault) => ours(fault),
        };
        Verdict { class, session }
    }

    /// The part of the table about the message.
    pub fn class(self) -> RetryClass {
        self.verdict().class
    }
}

fn message(code: u32) -> (RetryClass, SessionMove) {
    let class = match code {
        // Nothing is wrong with the message. It waits, however long it takes, and no attempt counts.
        429 => return pauses(Scope::All, Reason::RateLimited, None),
        463 => return pauses(Scope::NewChats, Reason::ReachOutLimited, None),
        475 => return pauses(Scope::NewChats, Reason::NewChatsCapped, None),
        // Stale addressing of a group: the library refreshes it, the next attempt is right.
        421 => RetryClass::After(Duration::from_secs(1)),
        // 479, 487 to 491: the same bytes are refused again. 404: no such group. 493, 495: what only a
        // companion of another kind could mend. 496: an old counter, 499: deleted at the recipient's,
        // 550, 551: a revoke or a group that the server does not take.
        400 | 403..=406 | 479 | 487..=491 | 493 | 495 | 496 | 499 | 550 | 551 => RetryClass::Never,
        // 500, 503, 552: the server's own trouble.
        _ => RetryClass::Backoff,
    };
    (class, SessionMove::Stays)
}

fn request(code: u32, backoff: Option<Duration>) -> (RetryClass, SessionMove) {
    let class = match code {
        // Asked too much. Only somebody who is written to for the first time must be asked about.
        429 => return pauses(Scope::NewChats, Reason::RateLimited, backoff),
        400 | 403..=406 | 409 | 410 => RetryClass::Never,
        401 => SESSION_DOWN,
        // 408, 500, 503, whatever is new.
        _ => backoff.map_or(RetryClass::Backoff, RetryClass::After),
    };
    (class, SessionMove::Stays)
}

fn login(code: u32) -> (RetryClass, SessionMove) {
    let ends = |ending| (SESSION_DOWN, SessionMove::Ends(ending));
    match code {
        401 | 406 => ends(Ending::LoggedOut),
        402 => ends(Ending::Banned),
        403 => ends(Ending::Locked),
        405 => ends(Ending::Outdated),
        429 => pauses(Scope::All, Reason::RateLimited, None),
        500 | 501 | 503 => (RetryClass::Backoff, RECONNECTS),
        // 400, 409, 411, 413, 414, 415, 418: what we say of ourselves is not liked.
        _ => ends(Ending::Refused),
    }
}

fn stream(code: u32) -> (RetryClass, SessionMove) {
    let ends = |ending| (SESSION_DOWN, SessionMove::Ends(ending));
    match code {
        // Restart, as after pairing: the connection comes back at once.
        515 => (RetryClass::Now, RECONNECTS),
        401 | 516 => ends(Ending::LoggedOut),
        409 => ends(Ending::Replaced),
        429 => pauses(Scope::All, Reason::RateLimited, None),
        500 | 503 => (RetryClass::Backoff, RECONNECTS),
        _ => (SESSION_DOWN, RECONNECTS),
    }
}

fn ours(fault: Fault) -> (RetryClass, SessionMove) {
    match fault {
        Fault::NotConnected | Fault::Unreachable => (SESSION_DOWN, RECONNECTS),
        Fault::NotLinked | Fault::Stopped | Fault::LeaseLost => (SESSION_DOWN, SessionMove::Stays),
        // The id stays the same, so that a repeat is recognised (MP-2).
        Fault::Ambiguous => (RetryClass::Now, RECONNECTS),
        Fault::NotReady
        | Fault::Timeout
        | Fault::NoAck
        | Fault::Overloaded
        | Fault::Database
        | Fault::Unknown => (RetryClass::Backoff, SessionMove::Stays),
        Fault::NoUsableDevice => (RetryClass::After(STALE_KEYS), SessionMove::Stays),
        Fault::NotOnWhatsApp | Fault::Unsendable => (RetryClass::Never, SessionMove::Stays),
    }
}

fn pauses(scope: Scope, reason: Reason, named: Option<Duration>) -> (RetryClass, SessionMove) {
    let pause = SessionMove::Pauses {
        scope,
        reason,
        named,
    };
    (SESSION_DOWN, pause)
}

#[cfg(test)]
mod tests;
