//! Every id. Text ids carry a prefix that says what they name, and sort in order of creation.

mod order;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::order::Ulids;
use crate::clock::{Clock, SystemClock};

/// The text is not an id of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct IdError {
    /// What was expected, such as `message id`.
    pub kind: &'static str,
}

static ULIDS: Ulids = Ulids::new();

fn next_ulid() -> String {
    let ulid = ULIDS.next(SystemClock.now(), rand::random());
    ulid.to_string().to_ascii_lowercase()
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new id, larger than all that this process made, and than what others made in earlier
            /// milliseconds.
            pub fn generate() -> Self {
                Self(format!("{}{}", $prefix, next_ulid()))
            }

            pub fn parse(text: &str) -> Result<Self, IdError> {
                let rest = text.strip_prefix($prefix).ok_or(IdError { kind: $kind })?;
                let plain = rest.len() == 26
                    && rest.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
                if plain { Ok(Self(text.to_owned())) } else { Err(IdError { kind: $kind }) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_id! {
    /// One key with which a tenant's programs call the API.
    ApiKeyId = "key_", "API key id";
    /// One message, to or from a chat.
    MessageId = "msg_", "message id";
    /// One session, everywhere inside; callers name it by [`crate::SessionName`].
    SessionId = "ses_", "session id";
    /// The paying account to which every row belongs.
    TenantId = "ten_", "tenant id";
}

/// A worker process, named by its operator (`WORKER_ID`) or at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(String);

impl WorkerId {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let plain = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { kind: "worker id" })
        }
    }

    /// A name for a worker whose operator gave none.
    pub fn generate() -> Self {
        Self(format!("worker-{}", next_ulid()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of an event in the outbox, and the cursor with which a reader goes on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventSeq(pub i64);

/// The number of a lease's grant: it rises at each grant, so that a stale holder's writes are refused
/// (SL-1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FencingToken(pub i64);

/// A message's id on WhatsApp.
///
/// For what we send it is chosen and stored before the first attempt, and kept through every retry, so
/// that a repeat is recognised (MP-2). `3EB0` and 18 hexadecimal digits is the form of WhatsApp Web.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WaMessageId(String);

impl WaMessageId {
    pub fn generate() -> Self {
        let random: [u8; 9] = rand::random();
        let mut text = String::with_capacity(22);
        text.push_str("3EB0");
        for byte in random {
            text.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
        Self(text)
    }

    /// An id that WhatsApp gave us; anything that is not empty and is not absurdly long.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if (1..=128).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                kind: "WhatsApp message id",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WaMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_parse_and_foreign_prefixes_do_not() {
        let id = MessageId::generate();
        assert_eq!(MessageId::parse(id.as_str()).unwrap(), id);
        assert!(TenantId::parse(id.as_str()).is_err());
        assert!(MessageId::parse("msg_").is_err());
        assert!(MessageId::parse("msg_01ARZ3NDEKTSV4RRFFQ69G5FAV").is_err());
    }

    #[test]
    fn ids_sort_in_order_of_creation() {
        let all: Vec<SessionId> = (0..1_000).map(|_| SessionId::generate()).collect();
        assert!(all.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn whatsapp_ids_have_the_form_of_whatsapp_web() {
        let id = WaMessageId::generate();
        assert!(id.as_str().starts_with("3EB0"));
        assert_eq!(id.as_str().len(), 22);
        assert_ne!(id, WaMessageId::generate());
    }
}
