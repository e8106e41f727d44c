//! Every conversion of addresses from and to the library's.

use wacore_binary::{Jid as LibraryJid, Server as LibraryServer};
use wagate_domain::{Jid, Server};

use crate::error::EngineError;

/// The library's form of one of our addresses.
pub(crate) fn to_library(jid: &Jid) -> LibraryJid {
    let server = match jid.server {
        Server::Pn => LibraryServer::Pn,
        Server::Lid => LibraryServer::Lid,
        Server::Group => LibraryServer::Group,
        Server::Broadcast => LibraryServer::Broadcast,
        Server::Newsletter => LibraryServer::Newsletter,
    };
    let mut converted = LibraryJid::new(jid.user.as_str(), server);
    converted.device = jid.device;
    converted
}

/// Our form of one of the library's addresses, if it is one that we know.
pub(crate) fn from_library(jid: &LibraryJid) -> Option<Jid> {
    let server = match jid.server {
        // Hosted devices are companions run by a business's provider; the account is the same.
        LibraryServer::Pn | LibraryServer::Hosted | LibraryServer::Legacy => Server::Pn,
        LibraryServer::Lid | LibraryServer::HostedLid => Server::Lid,
        LibraryServer::Group => Server::Group,
        LibraryServer::Broadcast => Server::Broadcast,
        LibraryServer::Newsletter => Server::Newsletter,
        _ => return None,
    };
    Some(Jid {
        user: jid.user.to_string(),
        device: jid.device,
        server,
    })
}

/// Like [`from_library`], without the device.
pub(crate) fn account(jid: &LibraryJid) -> Option<Jid> {
    from_library(jid).map(|jid| jid.to_bare())
}

/// An address that a message can be sent to.
pub(crate) fn recipient(jid: &Jid) -> Result<LibraryJid, EngineError> {
    match jid.server {
        Server::Pn | Server::Lid | Server::Group => Ok(to_library(&jid.to_bare())),
        Server::Broadcast | Server::Newsletter => Err(EngineError::Invalid(format!(
            "messages cannot be sent to @{}",
            jid.server.as_str()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in [
            "6281234567890@s.whatsapp.net",
            "6281234567890:12@s.whatsapp.net",
            "100000012345678:3@lid",
            "120363021033254949@g.us",
            "status@broadcast",
        ] {
            let jid: Jid = text.parse().unwrap();
            assert_eq!(to_library(&jid).to_string(), text);
            assert_eq!(from_library(&to_library(&jid)), Some(jid));
        }
    }

    #[test]
    fn the_old_server_and_hosted_devices_are_numbers() {
        let old: LibraryJid = "6281234567890@c.us".parse().unwrap();
        assert_eq!(account(&old), Some(Jid::pn("6281234567890")));
    }

    #[test]
    fn only_people_and_groups_are_written_to() {
        let status: Jid = "status@broadcast".parse().unwrap();
        assert!(recipient(&status).is_err());
        let device: Jid = "6281234567890:4@s.whatsapp.net".parse().unwrap();
        assert_eq!(
            recipient(&device).unwrap().to_string(),
            "6281234567890@s.whatsapp.net"
        );
    }
}
