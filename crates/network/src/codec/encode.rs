//! Writing: tokens where the dictionary has them, packed digits where they fit, else plain text.

use super::{CodecError, Dictionary, Token, tag};
use crate::jid::{Jid, Server};
use crate::node::{Content, Node, Value};

pub(super) struct Encoder<'a> {
    pub(super) dictionary: &'a Dictionary,
    pub(super) out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    pub(super) fn node(&mut self, node: &Node) -> Result<(), CodecError> {
        let content = usize::from(!matches!(node.content, Content::None));
        self.list(1 + 2 * node.attrs.len() + content)?;
        self.text(&node.tag)?;
        for (key, value) in &node.attrs {
            self.text(key)?;
            match value {
                Value::Str(text) => self.text(text)?,
                Value::Jid(jid) => self.jid(jid)?,
            }
        }
        match &node.content {
            Content::None => {}
            Content::Nodes(nodes) => {
                self.list(nodes.len())?;
                for node in nodes {
                    self.node(node)?;
                }
            }
            Content::Bytes(bytes) => self.binary(bytes)?,
            Content::Str(text) => self.text(text)?,
        }
        Ok(())
    }

    fn list(&mut self, length: usize) -> Result<(), CodecError> {
        if length == 0 {
            self.out.push(tag::LIST_EMPTY);
        } else if let Ok(length) = u8::try_from(length) {
            self.out.extend_from_slice(&[tag::LIST_8, length]);
        } else {
            let length = u16::try_from(length).map_err(|_| CodecError::TooLong)?;
            self.out.push(tag::LIST_16);
            self.out.extend_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CodecError> {
        match self.dictionary.find(text) {
            Some(Token::Single(index)) => self.out.push(index),
            Some(Token::Double(table, index)) => {
                self.out
                    .extend_from_slice(&[tag::DICTIONARY_0 + table, index]);
            }
            None if packs_as(text, nibble) => self.packed(text, tag::NIBBLE_8, nibble),
            None if packs_as(text, hex) => self.packed(text, tag::HEX_8, hex),
            None => self.binary(text.as_bytes())?,
        }
        Ok(())
    }

    /// Two characters a byte; an odd last one is followed by a filler, which the length's top bit
    /// announces.
    fn packed(&mut self, text: &str, kind: u8, digit: fn(u8) -> Option<u8>) {
        const FILLER: u8 = 15;
        let half = u8::try_from(text.len().div_ceil(2)).unwrap_or(u8::MAX >> 1);
        let odd = if text.len() % 2 == 1 { 0x80 } else { 0 };
        self.out.extend_from_slice(&[kind, half | odd]);
        for pair in text.as_bytes().chunks(2) {
            let high = pair.first().and_then(|c| digit(*c)).unwrap_or(FILLER);
            let low = pair.get(1).and_then(|c| digit(*c)).unwrap_or(FILLER);
            self.out.push(high << 4 | low);
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let length = u32::try_from(bytes.len()).map_err(|_| CodecError::TooLong)?;
        let [a, b, c, d] = length.to_be_bytes();
        match length {
            0..=0xFF => self.out.extend_from_slice(&[tag::BINARY_8, d]),
            0x100..=0xF_FFFF => self.out.extend_from_slice(&[tag::BINARY_20, b, c, d]),
            _ => self.out.extend_from_slice(&[tag::BINARY_32, a, b, c, d]),
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn jid(&mut self, jid: &Jid) -> Result<(), CodecError> {
        let device = u8::try_from(jid.device).ok();
        match (jid.device, domain(jid.server), device) {
            (0, ..) => {
                self.out.push(tag::JID_PAIR);
                if jid.user.is_empty() {
                    self.out.push(tag::LIST_EMPTY);
                } else {
                    self.text(&jid.user)?;
                }
                self.text(jid.server.as_str())
            }
            (_, Some(domain), Some(device)) => {
                self.out
                    .extend_from_slice(&[tag::DEVICE_JID, domain, device]);
                self.text(&jid.user)
            }
            (device, None, _) if jid.server == Server::Messenger => {
                self.out.push(tag::MESSENGER_JID);
                self.text(&jid.user)?;
                self.out.extend_from_slice(&device.to_be_bytes());
                self.text(jid.server.as_str())
            }
            // The format has no token for this address; as text it stays readable.
            _ => self.binary(jid.to_string().as_bytes()),
        }
    }
}

/// The byte that stands for a server in an address with a device.
fn domain(server: Server) -> Option<u8> {
    match server {
        Server::Pn => Some(0),
        Server::Lid => Some(1),
        Server::Hosted => Some(128),
        Server::HostedLid => Some(129),
        Server::Group
        | Server::Broadcast
        | Server::Newsletter
        | Server::Call
        | Server::Legacy
        | Server::Messenger
        | Server::Interop
        | Server::Bot => None,
    }
}

fn packs_as(text: &str, digit: fn(u8) -> Option<u8>) -> bool {
    !text.is_empty()
        && text.len() <= tag::PACKED_MAX
        && text.bytes().all(|character| digit(character).is_some())
}

fn nibble(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'-' => Some(10),
        b'.' => Some(11),
        _ => None,
    }
}

/// Capitals only: a reader cannot tell what case was meant.
fn hex(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}
