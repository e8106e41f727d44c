//! Reading bytes that came over the wire. Every length is checked before it is believed.

use std::borrow::Cow;

use bytes::{Buf, Bytes};

use super::{CodecError, Dictionary, tag};
use crate::jid::{Jid, Server};
use crate::node::{Content, Node, Str, Value};

/// Real stanzas stay under twenty levels.
const MAX_DEPTH: usize = 64;

pub(super) struct Decoder<'a> {
    input: Bytes,
    dictionary: &'a Dictionary,
    depth: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: Bytes, dictionary: &'a Dictionary) -> Self {
        Self {
            input,
            dictionary,
            depth: 0,
        }
    }

    /// How many bytes were not read.
    pub(super) fn left(&self) -> usize {
        self.input.len()
    }

    pub(super) fn node(&mut self) -> Result<Node, CodecError> {
        if self.depth >= MAX_DEPTH {
            return Err(CodecError::TooDeep);
        }
        self.depth += 1;
        let kind = self.byte()?;
        let length = self.list(kind)?;
        if length == 0 {
            return Err(CodecError::NoTag);
        }
        let tag = self.text()?;
        if tag.is_empty() {
            return Err(CodecError::NoTag);
        }
        let count = (length - 1) / 2;
        let mut attrs = Vec::with_capacity(count.min(self.left()));
        for _ in 0..count {
            let key = self.text()?;
            attrs.push((key, self.value()?));
        }
        let content = if length % 2 == 0 {
            self.content()?
        } else {
            Content::None
        };
        self.depth -= 1;
        Ok(Node {
            tag,
            attrs,
            content,
        })
    }

    fn content(&mut self) -> Result<Content, CodecError> {
        match self.byte()? {
            tag::LIST_EMPTY => Ok(Content::None),
            kind @ (tag::LIST_8 | tag::LIST_16) => {
                let length = self.list(kind)?;
                // A node takes two bytes at least: the list cannot be longer than half the input.
                let mut nodes = Vec::with_capacity(length.min(self.left() / 2));
                for _ in 0..length {
                    nodes.push(self.node()?);
                }
                Ok(Content::Nodes(nodes))
            }
            kind @ (tag::BINARY_8 | tag::BINARY_20 | tag::BINARY_32) => {
                Ok(Content::Bytes(self.binary(kind)?))
            }
            kind => match self.value_of(kind)? {
                Value::Str(text) => Ok(Content::Str(text)),
                Value::Jid(jid) => Ok(Content::Str(Cow::Owned(jid.to_string()))),
            },
        }
    }

    fn text(&mut self) -> Result<Str, CodecError> {
        match self.value()? {
            Value::Str(text) => Ok(text),
            Value::Jid(jid) => Ok(Cow::Owned(jid.to_string())),
        }
    }

    fn value(&mut self) -> Result<Value, CodecError> {
        let kind = self.byte()?;
        self.value_of(kind)
    }

    fn value_of(&mut self, kind: u8) -> Result<Value, CodecError> {
        let text = match kind {
            tag::LIST_EMPTY => Cow::Borrowed(""),
            tag::DICTIONARY_0..=tag::DICTIONARY_3 => {
                let index = self.byte()?;
                let token = self.dictionary.double(kind - tag::DICTIONARY_0, index);
                Cow::Borrowed(token.ok_or(CodecError::Unexpected(kind))?)
            }
            tag::BINARY_8 | tag::BINARY_20 | tag::BINARY_32 => utf8(&self.binary(kind)?)?,
            tag::HEX_8 | tag::NIBBLE_8 => Cow::Owned(self.packed(kind)?),
            tag::JID_PAIR => return self.jid_pair(),
            tag::DEVICE_JID => return self.device_jid(),
            tag::MESSENGER_JID => return self.messenger_jid(),
            tag::INTEROP_JID => return self.interop_jid(),
            _ => Cow::Borrowed(
                self.dictionary
                    .single(kind)
                    .ok_or(CodecError::Unexpected(kind))?,
            ),
        };
        Ok(Value::Str(text))
    }

    /// Parts of an address are plain text: an address inside an address would let a few bytes nest
    /// without bound.
    fn part(&mut self) -> Result<Str, CodecError> {
        match self.byte()? {
            kind @ (tag::JID_PAIR | tag::DEVICE_JID | tag::MESSENGER_JID | tag::INTEROP_JID) => {
                Err(CodecError::Unexpected(kind))
            }
            kind => match self.value_of(kind)? {
                Value::Str(text) => Ok(text),
                Value::Jid(jid) => Ok(Cow::Owned(jid.to_string())),
            },
        }
    }

    fn jid_pair(&mut self) -> Result<Value, CodecError> {
        let user = self.part()?;
        let server = self.part()?;
        Ok(match Server::from_name(&server) {
            Some(server) => Value::Jid(Jid {
                user,
                server,
                device: 0,
            }),
            // A server that we do not know is no reason to lose the stanza.
            None => Value::Str(Cow::Owned(format!("{user}@{server}"))),
        })
    }

    fn device_jid(&mut self) -> Result<Value, CodecError> {
        let domain = self.byte()?;
        let device = u16::from(self.byte()?);
        let user = self.part()?;
        let server = match domain {
            0 => Server::Pn,
            1 => Server::Lid,
            129 => Server::HostedLid,
            even if even & 0x81 == 0x80 => Server::Hosted,
            other => return Err(CodecError::Unexpected(other)),
        };
        Ok(Value::Jid(Jid {
            user,
            server,
            device,
        }))
    }

    fn messenger_jid(&mut self) -> Result<Value, CodecError> {
        let user = self.part()?;
        let device = self.short()?;
        let server = self.part()?;
        match Server::from_name(&server) {
            Some(server) => Ok(Value::Jid(Jid {
                user,
                server,
                device,
            })),
            None => Ok(Value::Str(Cow::Owned(format!("{user}:{device}@{server}")))),
        }
    }

    /// Clients write no server here, unlike in every other address.
    fn interop_jid(&mut self) -> Result<Value, CodecError> {
        let user = self.part()?;
        let device = self.short()?;
        let _integrator = self.short()?;
        Ok(Value::Jid(Jid {
            user,
            server: Server::Interop,
            device,
        }))
    }

    fn packed(&mut self, kind: u8) -> Result<String, CodecError> {
        let length = self.byte()?;
        let bytes = self.take(usize::from(length & 0x7F))?;
        let odd = length & 0x80 != 0;
        let mut text = String::with_capacity(bytes.len() * 2);
        for (at, byte) in bytes.iter().enumerate() {
            text.push(unpack(kind, byte >> 4)?);
            if !odd || at + 1 < bytes.len() {
                text.push(unpack(kind, byte & 0x0F)?);
            }
        }
        Ok(text)
    }

    fn list(&mut self, kind: u8) -> Result<usize, CodecError> {
        match kind {
            tag::LIST_EMPTY => Ok(0),
            tag::LIST_8 => self.byte().map(usize::from),
            tag::LIST_16 => self.short().map(usize::from),
            other => Err(CodecError::Unexpected(other)),
        }
    }

    fn binary(&mut self, kind: u8) -> Result<Bytes, CodecError> {
        let length = match kind {
            tag::BINARY_8 => usize::from(self.byte()?),
            tag::BINARY_20 => {
                let high = usize::from(self.byte()? & 0x0F);
                high << 16 | usize::from(self.short()?)
            }
            _ => usize::from(self.short()?) << 16 | usize::from(self.short()?),
        };
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, CodecError> {
        if length > self.input.len() {
            return Err(CodecError::Truncated);
        }
        Ok(self.input.split_to(length))
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        self.input.try_get_u8().map_err(|_| CodecError::Truncated)
    }

    fn short(&mut self) -> Result<u16, CodecError> {
        self.input.try_get_u16().map_err(|_| CodecError::Truncated)
    }
}

fn utf8(bytes: &[u8]) -> Result<Str, CodecError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CodecError::NotUtf8)?;
    Ok(Cow::Owned(text.to_owned()))
}

fn unpack(kind: u8, digit: u8) -> Result<char, CodecError> {
    let character = match (kind, digit) {
        (_, 0..=9) => b'0' + digit,
        (tag::HEX_8, 10..=15) => b'A' + digit - 10,
        (tag::NIBBLE_8, 10) => b'-',
        (tag::NIBBLE_8, 11) => b'.',
        _ => return Err(CodecError::Unexpected(digit)),
    };
    Ok(char::from(character))
}
