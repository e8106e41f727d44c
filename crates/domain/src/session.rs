//! A tenant's slot for one linked device: its name, what is wanted of it, how it is linked.
//!
//! What each verb does, as workers have always divided it:
//!
//! | verb | at WhatsApp | keys | the session |
//! |---|---|---|---|
//! | disconnect | closes the connection | kept; connects again with no QR | stays |
//! | logout | unlinks the device | deleted; must be linked again | stays |
//! | delete | unlinks the device if it can | deleted | removed |
//! | restart | closes and opens the connection | kept | stays |

pub mod state;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use state::{LinkReason, LinkState};

use crate::id::IdError;
use crate::phone::PhoneNumber;
use crate::time::Timestamp;

/// What a tenant calls a session: 1 to 64 of `A–Z a–z 0–9 . _ -`, unique in the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SessionName(String);

impl SessionName {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let plain = (1..=64).contains(&text.len())
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                kind: "session id (1 to 64 letters, digits, `.`, `_`, `-`)",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for SessionName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What is wanted of a session. A request writes it with a new generation number; the worker that
/// holds the lease makes it true. Restart is `Running` with a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Connected, or on the way there.
    Running,
    /// Not connected; keys kept.
    Stopped,
    /// Unlinked at WhatsApp; keys deleted.
    LoggedOut,
    /// Gone.
    Deleted,
}

impl Desired {
    pub const ALL: [Self; 4] = [Self::Running, Self::Stopped, Self::LoggedOut, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::LoggedOut => "logged_out",
            Self::Deleted => "deleted",
        }
    }
}

impl FromStr for Desired {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::ALL
            .into_iter()
            .find(|desired| desired.as_str() == text)
            .ok_or(IdError {
                kind: "desired state",
            })
    }
}

/// How a session that is not linked is to be linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum LinkMethod {
    /// A QR code, scanned with the phone.
    Qr,
    /// An eight-character code, entered on the phone with this number.
    Code { phone: PhoneNumber },
}

/// What the owner of the phone must scan or enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LinkChallenge {
    /// The text that the QR code shows; it rotates, show the newest.
    Qr {
        qr: String,
        #[serde(rename = "expiresAt")]
        expires_at: Timestamp,
    },
    /// Eight characters.
    Code {
        code: String,
        #[serde(rename = "expiresAt")]
        expires_at: Timestamp,
    },
}

impl LinkChallenge {
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Self::Qr { expires_at, .. } | Self::Code { expires_at, .. } => *expires_at,
        }
    }
}
