//! WhatsApp's addresses as the network sees them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::node::Str;

/// An address: `user[:device]@server`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    /// Empty for a server's own address such as `s.whatsapp.net`.
    pub user: Str,
    pub server: Server,
    /// 0 is the primary, the phone.
    pub device: u16,
}

/// The part behind the `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// `s.whatsapp.net`: addresses by phone number (PN).
    Pn,
    /// `lid`: addresses that hide the phone number.
    Lid,
    /// `g.us`
    Group,
    /// `broadcast`
    Broadcast,
    /// `newsletter`
    Newsletter,
    /// `call`
    Call,
    /// `c.us`, the name that old clients use for `s.whatsapp.net`.
    Legacy,
    /// `hosted`
    Hosted,
    /// `hosted.lid`
    HostedLid,
    /// `msgr`
    Messenger,
    /// `interop`
    Interop,
    /// `bot`
    Bot,
}

const SERVERS: [(Server, &str); 12] = [
    (Server::Pn, "s.whatsapp.net"),
    (Server::Lid, "lid"),
    (Server::Group, "g.us"),
    (Server::Broadcast, "broadcast"),
    (Server::Newsletter, "newsletter"),
    (Server::Call, "call"),
    (Server::Legacy, "c.us"),
    (Server::Hosted, "hosted"),
    (Server::HostedLid, "hosted.lid"),
    (Server::Messenger, "msgr"),
    (Server::Interop, "interop"),
    (Server::Bot, "bot"),
];

impl Server {
    /// The server with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        SERVERS
            .iter()
            .find(|(_, text)| *text == name)
            .map(|(server, _)| *server)
    }

    pub fn as_str(self) -> &'static str {
        SERVERS
            .iter()
            .find(|(server, _)| *server == self)
            .map_or("", |(_, text)| text)
    }
}

impl Jid {
    /// The server's own address, `s.whatsapp.net`.
    pub const SERVER: Self = Self {
        user: Cow::Borrowed(""),
        server: Server::Pn,
        device: 0,
    };

    pub fn pn(user: impl Into<Str>, device: u16) -> Self {
        Self {
            user: user.into(),
            server: Server::Pn,
            device,
        }
    }

    pub fn lid(user: impl Into<Str>, device: u16) -> Self {
        Self {
            user: user.into(),
            server: Server::Lid,
            device,
        }
    }

    pub fn group(user: impl Into<Str>) -> Self {
        Self {
            user: user.into(),
            server: Server::Group,
            device: 0,
        }
    }

    /// The same user with another device.
    #[must_use]
    pub fn with_device(&self, device: u16) -> Self {
        Self {
            user: self.user.clone(),
            server: self.server,
            device,
        }
    }

    /// The address without its device.
    #[must_use]
    pub fn bare(&self) -> Self {
        self.with_device(0)
    }

    pub fn is_lid(&self) -> bool {
        self.server == Server::Lid
    }

    pub fn is_group(&self) -> bool {
        self.server == Server::Group
    }

    /// A person's address, by number or by LID.
    pub fn is_user(&self) -> bool {
        !self.user.is_empty() && matches!(self.server, Server::Pn | Server::Lid | Server::Legacy)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.user.is_empty(), self.device) {
            (true, _) => f.write_str(self.server.as_str()),
            (false, 0) => write!(f, "{}@{}", self.user, self.server.as_str()),
            (false, device) => write!(f, "{}:{device}@{}", self.user, self.server.as_str()),
        }
    }
}

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a JID")]
pub struct JidError(pub String);

impl FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || JidError(text.to_owned());
        let (user, server) = text.rsplit_once('@').unwrap_or(("", text));
        let (server, _) = SERVERS
            .iter()
            .find(|(_, name)| *name == server)
            .ok_or_else(bad)?;
        let (user, device) = match user.split_once(':') {
            Some((user, device)) => (user, device.parse().map_err(|_| bad())?),
            None => (user, 0),
        };
        Ok(Self {
            user: Cow::Owned(user.to_owned()),
            server: *server,
            device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parsed() {
        for text in [
            "s.whatsapp.net",
            "6281@s.whatsapp.net",
            "6281:3@lid",
            "12-34@g.us",
            "status@broadcast",
        ] {
            assert_eq!(text.parse::<Jid>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_unknown_servers_and_devices() {
        for text in ["", "a@b", "6281:x@lid", "6281:70000@lid"] {
            assert!(text.parse::<Jid>().is_err(), "{text}");
        }
    }
}
