//! What the transcript keeps of a stanza: its addressing, and for each encrypted part the place in its
//! ratchet, which Signal sends in the clear and which must never be used twice.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::faults::{Direction, Party};
use crate::node::Node;

/// A stanza printed as XML is cut off at this length: an upload of 812 prekeys must not fill the ring.
const XML_LIMIT: usize = 2_000;

/// A stanza as far as it can be told from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StanzaEntry {
    pub direction: Direction,
    /// The device's account, empty for a connection that is not linked yet.
    pub phone: String,
    pub device: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<u64>,
    pub tag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Further ids that a receipt covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_ids: Vec<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The number in the offline queue, for what was delivered from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<CipherMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml: Option<String>,
}

/// One encrypted part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CipherMark {
    /// The device that it is for, as the sender wrote it; empty for a group's common part.
    pub to: String,
    /// `msg`, `pkmsg` or `skmsg`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Names the sender's chain: the beginning of the ratchet key in hex, or the sender key's number.
    pub chain: String,
    /// The place in the chain.
    pub counter: u32,
    /// The beginning of the SHA-256 of the part, in hex.
    pub digest: String,
}

impl StanzaEntry {
    /// Notes what can be told of a stanza.
    pub fn of(direction: Direction, who: &Party, node: &Node, xml: bool) -> Self {
        let attr = |key: &str| node.get(key).map(std::borrow::Cow::into_owned);
        let more_ids = node
            .find("list")
            .map(|list| {
                list.all("item")
                    .filter_map(|item| item.get("id"))
                    .map(Into::into)
            })
            .map(Iterator::collect)
            .unwrap_or_default();
        let mut ciphers = Vec::new();
        if node.is("message") {
            let to = attr(if direction == Direction::FromDevice {
                "to"
            } else {
                "from"
            });
            collect_ciphers(node, to.as_deref().unwrap_or_default(), &mut ciphers);
        }
        Self {
            direction,
            phone: who.phone.clone(),
            device: who.device,
            conn: who.conn,
            tag: node.tag.to_string(),
            id: attr("id"),
            more_ids,
            type_: attr("type"),
            class: attr("class"),
            from: attr("from"),
            to: attr("to"),
            participant: attr("participant"),
            recipient: attr("recipient"),
            error: attr("error"),
            offline: attr("offline"),
            ciphers,
            xml: xml.then(|| print(node)),
        }
    }

    /// Notes only what the checkers need, so that a load test can remember a million of them.
    pub(super) fn lean(direction: Direction, who: &Party, node: &Node) -> Self {
        let mut entry = Self::of(direction, who, node, false);
        if direction == Direction::ToDevice {
            entry.ciphers = Vec::new();
        }
        for unused in [
            &mut entry.from,
            &mut entry.to,
            &mut entry.participant,
            &mut entry.recipient,
            &mut entry.offline,
        ] {
            *unused = None;
        }
        entry
    }

    /// The ids that it is about: its own and those that it lists.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.id.iter().chain(&self.more_ids).map(String::as_str)
    }

    /// True for an acknowledgement of a message without an error.
    pub fn is_message_ack(&self) -> bool {
        self.tag == "ack" && self.class.as_deref() == Some("message") && self.error.is_none()
    }
}

fn collect_ciphers(node: &Node, to: &str, found: &mut Vec<CipherMark>) {
    for child in node.nodes() {
        match child.tag.as_ref() {
            "enc" => found.extend(mark(child, to)),
            "participants" => collect_ciphers(child, to, found),
            "to" => {
                let device = child.get("jid").unwrap_or_default();
                collect_ciphers(child, &device, found);
            }
            _ => {}
        }
    }
}

/// Reads an encrypted part; `None` for kinds that have no ratchet or are broken.
fn mark(enc: &Node, to: &str) -> Option<CipherMark> {
    let bytes = enc.data()?;
    let type_ = enc.get("type")?.into_owned();
    let (chain, counter) = match type_.as_str() {
        "msg" => ratchet(bytes.get(1..bytes.len().checked_sub(8)?)?)?,
        "pkmsg" => {
            let Field::Bytes(inner) = field(bytes.get(1..)?, 4)? else {
                return None;
            };
            ratchet(inner.get(1..inner.len().checked_sub(8)?)?)?
        }
        "skmsg" => {
            let body = bytes.get(1..bytes.len().checked_sub(64)?)?;
            let Field::Number(key) = field(body, 1)? else {
                return None;
            };
            let Field::Number(at) = field(body, 2).unwrap_or(Field::Number(0)) else {
                return None;
            };
            (format!("sender-key-{key}"), u32::try_from(at).ok()?)
        }
        _ => return None,
    };
    let to = if type_ == "skmsg" {
        String::new()
    } else {
        to.to_owned()
    };
    let digest = hex::encode(&Sha256::digest(&bytes)[..12]);
    Some(CipherMark {
        to,
        type_,
        chain,
        counter,
        digest,
    })
}

/// The ratchet key and the counter of a Signal message's body.
fn ratchet(body: &[u8]) -> Option<(String, u32)> {
    let Field::Bytes(key) = field(body, 1)? else {
        return None;
    };
    let Field::Number(counter) = field(body, 2).unwrap_or(Field::Number(0)) else {
        return None;
    };
    Some((hex::encode(key.get(..16)?), u32::try_from(counter).ok()?))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Finds one field of a protobuf message that consists of numbers and byte strings.
fn field(mut body: &[u8], wanted: u64) -> Option<Field<'_>> {
    while !body.is_empty() {
        let key = varint(&mut body)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut body)?),
            2 => {
                let length = usize::try_from(varint(&mut body)?).ok()?;
                let (bytes, rest) = body.split_at_checked(length)?;
                body = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(value);
        }
    }
    None
}

fn varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = body.split_first()?;
        *body = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Prints the stanza, but no more of it than the limit.
fn print(node: &Node) -> String {
    struct Limited(String);
    impl fmt::Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = XML_LIMIT.saturating_sub(self.0.len());
            let cut = text.floor_char_boundary(room.min(text.len()));
            self.0.push_str(&text[..cut]);
            if cut < text.len() {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    let mut limited = Limited(String::new());
    if write!(limited, "{node}").is_err() {
        limited.0.push('…');
    }
    limited.0
}
