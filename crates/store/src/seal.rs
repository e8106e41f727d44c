//! Sealing of what must stay secret at rest: XChaCha20-Poly1305 under a master key.
//!
//! A sealed value is `version · key id (4) · nonce (24) · ciphertext and tag`. It is bound to its place
//! by the associated data, so that a row copied to another place does not open. Random nonces of 24
//! bytes never repeat in practice. Rotation: the new key seals, retired keys still open, and the
//! janitor seals old rows again.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::error::StoreError;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 24;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// A master key of 32 bytes. Its id is derived from it, so that two keys cannot be confused.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Reads 32 bytes as base64 (either alphabet, with or without padding) or as 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let text = text.trim();
        let bytes = from_hex(text)
            .or_else(|| STANDARD.decode(text).ok())
            .or_else(|| STANDARD_NO_PAD.decode(text).ok())
            .or_else(|| URL_SAFE_NO_PAD.decode(text).ok());
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                let text = "the master key must be 32 bytes, in base64 or as 64 hexadecimal digits";
                StoreError::Options(text.into())
            })
    }

    /// A new random key.
    pub fn generate() -> Result<Self, StoreError> {
        let mut bytes = [0; 32];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The form that [`Self::parse`] reads.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }

    fn id(&self) -> [u8; KEY_ID] {
        let digest = Sha256::new()
            .chain_update(b"wagate master key id")
            .chain_update(self.0)
            .finalize();
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest[..KEY_ID]);
        id
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Seals with the current key, opens with any it knows. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(Arc<Keys>);

struct Keys {
    current: Key,
    retired: Vec<Key>,
}

struct Key {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    pub fn new(current: &MasterKey, retired: &[MasterKey]) -> Self {
        let key = |key: &MasterKey| Key {
            id: key.id(),
            cipher: XChaCha20Poly1305::new(&key.0.into()),
        };
        Self(Arc::new(Keys {
            current: key(current),
            retired: retired.iter().map(key).collect(),
        }))
    }

    /// Seals `plain` for the place that `aad` names.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = &self.0.current;
        let mut nonce = [0; NONCE];
        fill_random(&mut nonce)?;
        let payload = Payload { msg: plain, aad };
        let sealed = key
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreError::Sealed)?;
        let mut record = Vec::with_capacity(HEAD + sealed.len());
        record.push(VERSION);
        record.extend_from_slice(&key.id);
        record.extend_from_slice(&nonce);
        record.extend_from_slice(&sealed);
        Ok(record)
    }

    /// Opens what was sealed for the same place under a known key.
    pub fn open(&self, aad: &[u8], record: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.key_of(record).ok_or(StoreError::Sealed)?;
        let nonce: [u8; NONCE] = record[1 + KEY_ID..HEAD]
            .try_into()
            .map_err(|_| StoreError::Sealed)?;
        let payload = Payload {
            msg: &record[HEAD..],
            aad,
        };
        key.cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreError::Sealed)
    }

    /// Whether the record is under a retired key and should be sealed again.
    pub(crate) fn is_outdated(&self, record: &[u8]) -> bool {
        record.len() < HEAD || record[1..=KEY_ID] != self.0.current.id
    }

    fn key_of(&self, record: &[u8]) -> Option<&Key> {
        if record.len() < HEAD || record[0] != VERSION {
            return None;
        }
        let id = &record[1..=KEY_ID];
        std::iter::once(&self.0.current)
            .chain(&self.0.retired)
            .find(|key| key.id == id)
    }
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(bytes).map_err(|error| StoreError::Unavailable(error.to_string().into()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_in_every_form() {
        let key = MasterKey::generate().unwrap();
        let hex: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            key.to_text(),
            hex,
            STANDARD_NO_PAD.encode(key.0),
            URL_SAFE_NO_PAD.encode(key.0),
        ] {
            assert_eq!(MasterKey::parse(&text).unwrap(), key);
        }
        assert!(MasterKey::parse("c2hvcnQ=").is_err());
    }

    #[test]
    fn a_value_opens_only_at_its_place_and_whole() {
        let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
        let sealed = sealer.seal(b"here", b"secret").unwrap();
        assert_eq!(sealer.open(b"here", &sealed).unwrap(), b"secret");
        assert!(sealer.open(b"there", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(sealer.open(b"here", &damaged).is_err(), "byte {at}");
            assert!(sealer.open(b"here", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_retired_key_opens_and_the_new_one_seals() {
        let (old, new) = (
            MasterKey::generate().unwrap(),
            MasterKey::generate().unwrap(),
        );
        let before = Sealer::new(&old, &[]);
        let after = Sealer::new(&new, &[old]);
        let sealed = before.seal(b"a", b"x").unwrap();
        assert!(after.is_outdated(&sealed));
        let again = after
            .seal(b"a", &after.open(b"a", &sealed).unwrap())
            .unwrap();
        assert!(!after.is_outdated(&again));
        assert!(before.open(b"a", &again).is_err());
    }
}
