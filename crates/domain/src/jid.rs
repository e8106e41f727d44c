//! WhatsApp's addresses (JIDs), and who may be written to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::phone::PhoneNumber;

/// An address `user[:device]@server`; device 0 is the primary and is not printed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    pub user: String,
    pub device: u16,
    pub server: Server,
}

/// The part of an address behind the `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// `s.whatsapp.net`: an address by phone number (PN). `c.us` is read as this.
    Pn,
    /// `lid`: an address that hides the phone number.
    Lid,
    /// `g.us`
    Group,
    /// `broadcast`, such as `status@broadcast`.
    Broadcast,
    /// `newsletter`
    Newsletter,
}

impl Server {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pn => "s.whatsapp.net",
            Self::Lid => "lid",
            Self::Group => "g.us",
            Self::Broadcast => "broadcast",
            Self::Newsletter => "newsletter",
        }
    }
}

/// The text is not an address, or not one that a message can go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    #[error(
        "is not a WhatsApp address (expected digits, or user@s.whatsapp.net, @c.us, @lid or @g.us)"
    )]
    Malformed,
    #[error("has an unknown server part")]
    UnknownServer,
    #[error("is not a phone number that can exist")]
    ImpossibleNumber,
    #[error("cannot receive messages sent by this endpoint")]
    NotARecipient,
}

impl Jid {
    pub fn pn(number: impl Into<String>) -> Self {
        Self {
            user: number.into(),
            device: 0,
            server: Server::Pn,
        }
    }

    pub fn lid(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            device: 0,
            server: Server::Lid,
        }
    }

    /// The account's address, without a device.
    #[must_use]
    pub fn to_bare(&self) -> Self {
        Self {
            user: self.user.clone(),
            device: 0,
            server: self.server,
        }
    }

    pub fn is_group(&self) -> bool {
        self.server == Server::Group
    }

    /// A person's address, by number or by LID.
    pub fn is_user(&self) -> bool {
        matches!(self.server, Server::Pn | Server::Lid)
    }

    /// The phone number, where the address shows it.
    pub fn phone(&self) -> Option<PhoneNumber> {
        match self.server {
            Server::Pn => PhoneNumber::from_digits(&self.user),
            Server::Lid | Server::Group | Server::Broadcast | Server::Newsletter => None,
        }
    }

    /// Reads what a caller wrote as a recipient: digits with any formatting, a national number when
    /// `default_region` (ISO 3166, such as `ID`) is given, or a JID of a person or a group.
    ///
    /// A number that cannot exist is refused; one that merely looks unusual is not, since WhatsApp
    /// knows numbers that the numbering plans do not (old Brazilian and Mexican mobiles).
    pub fn parse_recipient(text: &str, default_region: Option<&str>) -> Result<Self, JidError> {
        let text = text.trim();
        if !text.contains('@') {
            let phone =
                PhoneNumber::parse(text, default_region).map_err(|_| JidError::ImpossibleNumber)?;
            return Ok(Self::pn(phone.digits()));
        }
        let jid: Self = text.parse()?;
        match jid.server {
            Server::Pn => {
                let phone = PhoneNumber::parse(&format!("+{}", jid.user), None)
                    .map_err(|_| JidError::ImpossibleNumber)?;
                Ok(Self::pn(phone.digits()))
            }
            Server::Lid | Server::Group => Ok(jid.to_bare()),
            Server::Broadcast | Server::Newsletter => Err(JidError::NotARecipient),
        }
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            0 => write!(f, "{}@{}", self.user, self.server.as_str()),
            device => write!(f, "{}:{device}@{}", self.user, self.server.as_str()),
        }
    }
}

impl FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, JidError> {
        let (user, server) = text.rsplit_once('@').ok_or(JidError::Malformed)?;
        let server = match server {
            "s.whatsapp.net" | "c.us" => Server::Pn,
            "lid" => Server::Lid,
            "g.us" => Server::Group,
            "broadcast" => Server::Broadcast,
            "newsletter" => Server::Newsletter,
            _ => return Err(JidError::UnknownServer),
        };
        let (user, device) = match user.split_once(':') {
            Some((user, device)) => (user, device.parse().map_err(|_| JidError::Malformed)?),
            None => (user, 0),
        };
        let plain = match server {
            Server::Pn | Server::Lid | Server::Newsletter => {
                user.bytes().all(|b| b.is_ascii_digit())
            }
            Server::Group => user.bytes().all(|b| b.is_ascii_digit() || b == b'-'),
            Server::Broadcast => user.bytes().all(|b| b.is_ascii_alphanumeric()),
        };
        if user.is_empty() || user.len() > 40 || !plain {
            return Err(JidError::Malformed);
        }
        Ok(Self {
            user: user.to_owned(),
            device,
            server,
        })
    }
}

impl Serialize for Jid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn old_server_name_becomes_the_new_one() {
        let jid: Jid = "6281234567890@c.us".parse().unwrap();
        assert_eq!(jid.to_string(), "6281234567890@s.whatsapp.net");
    }

    #[test]
    fn recipients_are_read_in_every_form() {
        let want = Jid::pn("6281234567890");
        for text in [
            "6281234567890",
            "+62 812-3456-7890",
            "6281234567890@s.whatsapp.net",
            "6281234567890@c.us",
            "6281234567890:4@s.whatsapp.net",
        ] {
            assert_eq!(Jid::parse_recipient(text, None).unwrap(), want, "{text}");
        }
        assert_eq!(
            Jid::parse_recipient("0812-3456-7890", Some("ID")).unwrap(),
            want
        );
        assert_eq!(
            Jid::parse_recipient("99@lid", None).unwrap(),
            Jid::lid("99")
        );
        assert!(
            Jid::parse_recipient("1203-55@g.us", None)
                .unwrap()
                .is_group()
        );
    }

    #[test]
    fn what_cannot_receive_is_refused() {
        for text in [
            "",
            "abc",
            "12",
            "1@b",
            "x@s.whatsapp.net",
            "12@s.whatsapp.net",
        ] {
            assert!(Jid::parse_recipient(text, None).is_err(), "{text}");
        }
        assert_eq!(
            Jid::parse_recipient("status@broadcast", None),
            Err(JidError::NotARecipient)
        );
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(user in "[0-9]{1,20}", device in 0u16.., lid: bool) {
            let server = if lid { Server::Lid } else { Server::Pn };
            let jid = Jid { user, device, server };
            prop_assert_eq!(jid.to_string().parse::<Jid>().unwrap(), jid);
        }

        #[test]
        fn never_panics(text in ".*") {
            let parsed = Jid::parse_recipient(&text, Some("NG"));
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
