//! Cutting the byte stream into frames: an optional routing intro, the client's header, then
//! length-prefixed frames.
//!
//! WebSocket messages and frames are independent of each other: several frames may share a message
//! and one frame may span several. Used by [`crate::connection`] for what comes in.

use bytes::{Buf, BytesMut};

/// The longest frame that a three-byte length can announce.
pub const MAX_FRAME: usize = (1 << 24) - 1;

const LENGTH: usize = 3;
const HEADER: usize = 4;
/// `ED`, version 0, kind 1, then a three-byte length.
const INTRO: usize = 7;
/// What the third byte of the header always is.
const HEADER_MAGIC: u8 = 6;
/// A routing intro is a few dozen bytes.
const MAX_INTRO: usize = 4096;

/// Bytes that no client of this protocol sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the stream begins neither with a header nor with a routing intro")]
    NoHeader,
    #[error("the routing intro is malformed")]
    Intro,
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(usize),
}

/// The client's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `WA`, 6 and the dictionary's version: the prologue of the Noise handshake.
    pub header: [u8; HEADER],
    /// What an earlier `edge_routing` told the client to present.
    pub routing: Option<Vec<u8>>,
}

impl Greeting {
    /// The dictionary that the client speaks.
    pub fn dictionary(&self) -> u8 {
        self.header[HEADER - 1]
    }
}

/// Collects bytes until they make a frame.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// Refuses frames over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Adds what came over the wire. A message that meets an empty buffer is not copied.
    pub fn push(&mut self, bytes: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// Takes the greeting from the start of the stream.
    pub fn greeting(&mut self) -> Result<Option<Greeting>, FrameError> {
        let mut routing = None;
        let mut skip = 0;
        if self.buffer.starts_with(b"ED") {
            let Some(intro) = self.buffer.get(..INTRO) else {
                return Ok(None);
            };
            if intro[2..4] != [0, 1] {
                return Err(FrameError::Intro);
            }
            let length = length(&intro[4..]);
            if length > MAX_INTRO {
                return Err(FrameError::Intro);
            }
            skip = INTRO + length;
            let Some(blob) = self.buffer.get(INTRO..skip) else {
                return Ok(None);
            };
            routing = Some(blob.to_vec());
        }
        let Some(header) = self.buffer.get(skip..skip + HEADER) else {
            let start = self.buffer.get(skip..).unwrap_or_default();
            let possible = b"WA".starts_with(start) || b"ED".starts_with(start);
            let known = possible || start.starts_with(b"WA");
            return if known {
                Ok(None)
            } else {
                Err(FrameError::NoHeader)
            };
        };
        let header = [header[0], header[1], header[2], header[3]];
        if !header.starts_with(&[b'W', b'A', HEADER_MAGIC]) {
            return Err(FrameError::NoHeader);
        }
        self.buffer.advance(skip + HEADER);
        Ok(Some(Greeting { header, routing }))
    }

    /// Takes the next whole frame.
    pub fn frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if self.buffer.len() < LENGTH {
            return Ok(None);
        }
        let length = length(&self.buffer[..LENGTH]);
        if length > self.limit {
            return Err(FrameError::TooLong(length));
        }
        if self.buffer.len() < LENGTH + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let frame = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            // Idle connections hold no memory of messages gone by.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

/// Puts a frame's length before it.
pub fn write_length(length: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let bytes = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or(FrameError::TooLong(length))?
        .to_be_bytes();
    out.extend_from_slice(&bytes[1..]);
    Ok(())
}

fn length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::new(MAX_FRAME);
        reader.push(BytesMut::from(bytes));
        reader
    }

    #[test]
    fn greeting_with_routing_intro() {
        let mut reader = reader(b"ED\x00\x01\x00\x00\x02xyWA\x06\x03rest");
        let greeting = reader.greeting().unwrap().unwrap();
        assert_eq!(greeting.routing.as_deref(), Some(&b"xy"[..]));
        assert_eq!(&greeting.header, b"WA\x06\x03");
        assert_eq!(greeting.dictionary(), 3);
        assert_eq!(&reader.buffer[..], b"rest");
    }

    #[test]
    fn greeting_may_come_byte_by_byte() {
        let whole = b"ED\x00\x01\x00\x00\x02xyWA\x06\x02";
        let mut reader = FrameReader::new(MAX_FRAME);
        for byte in &whole[..whole.len() - 1] {
            reader.push(BytesMut::from(&[*byte][..]));
            assert_eq!(reader.greeting().unwrap(), None);
        }
        reader.push(BytesMut::from(&[2_u8][..]));
        assert_eq!(reader.greeting().unwrap().unwrap().dictionary(), 2);
    }

    #[test]
    fn strangers_are_refused() {
        assert_eq!(reader(b"GET ").greeting(), Err(FrameError::NoHeader));
        assert_eq!(reader(b"x").greeting(), Err(FrameError::NoHeader));
        assert_eq!(reader(b"WA\x05\x03").greeting(), Err(FrameError::NoHeader));
        assert_eq!(
            reader(b"ED\x00\x02\x00\x00\x00").greeting(),
            Err(FrameError::Intro)
        );
        assert_eq!(
            reader(b"ED\x00\x01\xff\xff\xff").greeting(),
            Err(FrameError::Intro)
        );
    }

    #[test]
    fn long_frames_are_refused_before_they_arrive() {
        let mut reader = FrameReader::new(10);
        reader.push(BytesMut::from(&[0_u8, 0, 11][..]));
        assert_eq!(reader.frame(), Err(FrameError::TooLong(11)));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(1_usize..100, 1..40),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                write_length(frame.len(), &mut stream).unwrap();
                stream.extend_from_slice(frame);
            }
            let mut reader = FrameReader::new(MAX_FRAME);
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                reader.push(BytesMut::from(now));
                while let Some(frame) = reader.frame().unwrap() {
                    seen.push(frame.to_vec());
                }
                rest = later;
            }
            prop_assert_eq!(seen, frames);
        }
    }
}
