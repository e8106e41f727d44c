//! The binary form of stanzas: a node tree written with a dictionary of tokens.
//!
//! Independent of `wacore-binary`, so that a mistake there shows up here. Both dictionaries share
//! the grammar of [`encode`] and [`decode`] and differ in their token tables ([`v2`], [`v3`]), which
//! are data files: 236 one-byte tokens, then four tables of 256 two-byte tokens, one token a line.
//! Decoding takes bytes from anybody and must never panic or allocate more than the input justifies.

mod decode;
mod encode;
pub mod v2;
pub mod v3;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::node::Node;

/// The largest stanza after decompression.
pub const MAX_STANZA: usize = 16 * 1024 * 1024;

/// Set in the first byte of a stanza whose rest is zlib-compressed.
const FLAG_COMPRESSED: u8 = 2;

/// Bytes that introduce something other than a one-byte token.
mod tag {
    pub(super) const LIST_EMPTY: u8 = 0;
    pub(super) const DICTIONARY_0: u8 = 236;
    pub(super) const DICTIONARY_3: u8 = 239;
    pub(super) const INTEROP_JID: u8 = 245;
    pub(super) const MESSENGER_JID: u8 = 246;
    pub(super) const DEVICE_JID: u8 = 247;
    pub(super) const LIST_8: u8 = 248;
    pub(super) const LIST_16: u8 = 249;
    pub(super) const JID_PAIR: u8 = 250;
    pub(super) const HEX_8: u8 = 251;
    pub(super) const BINARY_8: u8 = 252;
    pub(super) const BINARY_20: u8 = 253;
    pub(super) const BINARY_32: u8 = 254;
    pub(super) const NIBBLE_8: u8 = 255;
    /// Longer text is never packed.
    pub(super) const PACKED_MAX: usize = 127;
}

const SINGLE_TOKENS: usize = 236;
const DOUBLE_TOKENS: usize = 256;
const TABLES: u8 = 4;

/// Bytes that are not a stanza, or a stanza that has no binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the stanza ends too soon")]
    Truncated,
    #[error("byte {0} cannot stand here")]
    Unexpected(u8),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("an element without a tag")]
    NoTag,
    #[error("elements are nested too deeply")]
    TooDeep,
    #[error("{0} bytes follow the stanza")]
    Leftover(usize),
    #[error("the compressed part is damaged or too large")]
    Compression,
    #[error("a list or text is too long for the format")]
    TooLong,
}

/// Where a token stands: in the one-byte table or in one of the two-byte tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Single(u8),
    Double(u8, u8),
}

/// A table of tokens.
#[derive(Debug)]
pub struct Dictionary {
    version: u8,
    tokens: Vec<&'static str>,
    places: HashMap<&'static str, Token>,
    longest: usize,
}

impl Dictionary {
    /// Returns the dictionary that a client's header asks for.
    pub fn of_version(version: u8) -> Option<&'static Self> {
        match version {
            2 => Some(&v2::DICTIONARY),
            3 => Some(&v3::DICTIONARY),
            _ => None,
        }
    }

    /// The number that stands in the client's header.
    pub fn version(&self) -> u8 {
        self.version
    }

    fn parse(version: u8, text: &'static str) -> Self {
        let tokens: Vec<_> = text.lines().collect();
        let mut places = HashMap::with_capacity(tokens.len());
        let singles = (1_u8..).take(SINGLE_TOKENS - 1).map(Token::Single);
        let doubles = (0..TABLES).flat_map(|t| (0..=u8::MAX).map(move |i| Token::Double(t, i)));
        for (token, place) in tokens.iter().skip(1).zip(singles.chain(doubles)) {
            if !token.is_empty() {
                places.entry(*token).or_insert(place);
            }
        }
        let longest = tokens.iter().map(|token| token.len()).max().unwrap_or(0);
        Self {
            version,
            tokens,
            places,
            longest,
        }
    }

    fn find(&self, text: &str) -> Option<Token> {
        if text.len() > self.longest {
            return None;
        }
        self.places.get(text).copied()
    }

    fn single(&self, index: u8) -> Option<&'static str> {
        let index = usize::from(index);
        if index == 0 || index >= SINGLE_TOKENS {
            return None;
        }
        self.tokens
            .get(index)
            .copied()
            .filter(|token| !token.is_empty())
    }

    fn double(&self, table: u8, index: u8) -> Option<&'static str> {
        let at = SINGLE_TOKENS + usize::from(table) * DOUBLE_TOKENS + usize::from(index);
        self.tokens
            .get(at)
            .copied()
            .filter(|token| !token.is_empty())
    }
}

/// Appends a stanza's plaintext, flag byte included, to `out`.
pub fn encode(node: &Node, dictionary: &Dictionary, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.push(0);
    encode::Encoder { dictionary, out }.node(node)
}

/// Compresses what [`encode`] wrote.
pub fn compress(plaintext: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (_, body) = plaintext.split_first().ok_or(CodecError::Truncated)?;
    let mut out = ZlibEncoder::new(vec![FLAG_COMPRESSED], Compression::fast());
    out.write_all(body).map_err(|_| CodecError::Compression)?;
    out.finish().map_err(|_| CodecError::Compression)
}

/// Reads a decrypted stanza. Binary content keeps pointing into `plaintext`.
pub fn decode(mut plaintext: Bytes, dictionary: &Dictionary) -> Result<Node, CodecError> {
    let flag = *plaintext.first().ok_or(CodecError::Truncated)?;
    let body = if flag & FLAG_COMPRESSED == 0 {
        plaintext.split_off(1)
    } else {
        inflate(&plaintext[1..])?
    };
    let mut decoder = decode::Decoder::new(body, dictionary);
    let node = decoder.node()?;
    match decoder.left() {
        0 => Ok(node),
        left => Err(CodecError::Leftover(left)),
    }
}

fn inflate(compressed: &[u8]) -> Result<Bytes, CodecError> {
    let limit = u64::try_from(MAX_STANZA).unwrap_or(u64::MAX);
    let mut out = Vec::new();
    let mut input = ZlibDecoder::new(compressed).take(limit + 1);
    input
        .read_to_end(&mut out)
        .map_err(|_| CodecError::Compression)?;
    if out.len() > MAX_STANZA {
        return Err(CodecError::Compression);
    }
    Ok(out.into())
}
