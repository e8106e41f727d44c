//! Linking a companion by its identity: the signed containers of multi-device ("ADV").
//!
//! The phone signs `06 00 ‖ details ‖ companion identity`; the companion countersigns
//! `06 01 ‖ details ‖ companion identity ‖ phone identity`. The HMAC over the container proves that it
//! comes from the phone that saw the QR code (or typed the code), since the server never learns the
//! ADV secret.

use bytes::Bytes;
use rand::rngs::StdRng;
use wacore_libsignal::crypto::hmac_sha256;
use wacore_libsignal::protocol::{PublicKey, SignalProtocolError};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::keys::Keyring;
use super::port::AcceptedCompanion;
use crate::world::Millis;

const ACCOUNT_SIGNATURE: [u8; 2] = [6, 0];
const DEVICE_SIGNATURE: [u8; 2] = [6, 1];
const KEY_INDEX_LIST_SIGNATURE: [u8; 2] = [6, 2];

/// Why a companion was not linked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The text is not a QR code of WhatsApp's.
    #[error("the text is not a linking QR code: {0}")]
    NotAQrCode(&'static str),
    /// Nobody waits with this reference: the code expired or was used.
    #[error("no companion waits for this code")]
    Unknown,
    /// The pairing code does not match the one that the companion shows.
    #[error("the pairing code is wrong")]
    WrongCode,
    /// A container, bundle or signature does not hold.
    #[error("{0}")]
    Bad(&'static str),
    /// Keys that are none.
    #[error("{0}")]
    Keys(String),
    /// The network would not complete the link.
    #[error("the network refused the link: {0}")]
    Refused(String),
}

impl From<SignalProtocolError> for LinkError {
    fn from(error: SignalProtocolError) -> Self {
        Self::Keys(error.to_string())
    }
}

/// The fields of a linking QR code that a phone needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QrCode {
    pub reference: String,
    pub noise: [u8; 32],
    pub identity: [u8; 32],
    pub adv_secret: Vec<u8>,
}

impl QrCode {
    /// Reads `ref,noise,identity,advSecret[,clientType]`, with or without a link in front.
    ///
    /// # Errors
    /// [`LinkError::NotAQrCode`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        use base64::Engine as _;
        let bad = LinkError::NotAQrCode;
        // Newer clients show a link so that a phone's camera opens the app.
        let fields = text
            .trim()
            .rsplit_once('#')
            .map_or(text.trim(), |(_, fields)| fields);
        let parts: Vec<&str> = fields.split(',').collect();
        let [reference, noise, identity, secret, ..] = parts.as_slice() else {
            return Err(bad("it has fewer than four fields"));
        };
        let decode = |part: &str| {
            base64::engine::general_purpose::STANDARD
                .decode(part)
                .map_err(|_| bad("a field is not base64"))
        };
        let key = |part: &str| -> Result<[u8; 32], LinkError> {
            decode(part)?
                .try_into()
                .map_err(|_| bad("a key does not have 32 bytes"))
        };
        Ok(Self {
            reference: (*reference).to_owned(),
            noise: key(noise)?,
            identity: key(identity)?,
            adv_secret: decode(secret)?,
        })
    }
}

/// The account's part of linking: its constant id and the companions in force.
#[derive(Debug)]
pub(super) struct Companions {
    /// `raw_id`, constant per account.
    raw_id: u32,
    /// `(device, key index)`.
    linked: Vec<(u16, u32)>,
    /// The highest index that was ever given.
    current_index: u32,
}

impl Companions {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let raw_id = u32::from_be_bytes([secret[0], secret[1], secret[2], secret[3]]) & 0x7fff_ffff;
        Self {
            raw_id,
            linked: Vec::new(),
            current_index: 0,
        }
    }

    pub(super) fn raw_id(&self) -> u32 {
        self.raw_id
    }

    pub(super) fn current_index(&self) -> u32 {
        self.current_index
    }

    /// The key indexes in force.
    pub(super) fn indexes(&self) -> Vec<u32> {
        self.linked.iter().map(|(_, index)| *index).collect()
    }

    pub(super) fn add(&mut self, device: u16, key_index: u32) {
        self.linked.retain(|(known, _)| *known != device);
        self.linked.push((device, key_index));
        self.current_index = self.current_index.max(key_index);
    }

    pub(super) fn remove(&mut self, device: u16) -> bool {
        let before = self.linked.len();
        self.linked.retain(|(known, _)| *known != device);
        before != self.linked.len()
    }

    /// Signs a companion's identity, and the list that its index is part of.
    pub(super) fn accept(
        &self,
        now: Millis,
        request: &AcceptRequest<'_>,
        keyring: &Keyring,
        rng: &mut StdRng,
    ) -> Result<AcceptedCompanion, LinkError> {
        let timestamp = seconds(now);
        let details = wa::ADVDeviceIdentity {
            raw_id: Some(self.raw_id),
            timestamp: Some(timestamp),
            key_index: Some(request.key_index),
            ..Default::default()
        }
        .encode_to_vec();
        let signed = [&ACCOUNT_SIGNATURE, details.as_slice(), request.identity].concat();
        let signature = sign(keyring, &signed, rng)?;
        let signed = wa::ADVSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(keyring.identity_public().to_vec()),
            account_signature: Some(signature),
            ..Default::default()
        }
        .encode_to_vec();
        let container = wa::ADVSignedDeviceIdentityHMAC {
            hmac: Some(hmac_sha256(request.adv_secret, &signed).to_vec()),
            details: Some(signed),
            ..Default::default()
        }
        .encode_to_vec();
        let mut indexes = self.indexes();
        indexes.push(request.key_index);
        let key_index_list = self.list(
            now,
            indexes,
            self.current_index.max(request.key_index),
            keyring,
            rng,
        )?;
        Ok(AcceptedCompanion {
            key_index: request.key_index,
            container: container.into(),
            key_index_list,
            key_index_list_timestamp: timestamp,
        })
    }

    /// The signed list of the indexes in force.
    pub(super) fn signed_list(
        &self,
        now: Millis,
        keyring: &Keyring,
        rng: &mut StdRng,
    ) -> Result<KeyIndexList, LinkError> {
        let bytes = self.list(now, self.indexes(), self.current_index, keyring, rng)?;
        Ok(KeyIndexList {
            bytes,
            timestamp: seconds(now),
        })
    }

    fn list(
        &self,
        now: Millis,
        valid_indexes: Vec<u32>,
        current_index: u32,
        keyring: &Keyring,
        rng: &mut StdRng,
    ) -> Result<Bytes, LinkError> {
        let details = wa::ADVKeyIndexList {
            raw_id: Some(self.raw_id),
            timestamp: Some(seconds(now)),
            current_index: Some(current_index),
            valid_indexes,
            ..Default::default()
        }
        .encode_to_vec();
        let signed = [&KEY_INDEX_LIST_SIGNATURE, details.as_slice()].concat();
        let list = wa::ADVSignedKeyIndexList {
            account_signature: Some(sign(keyring, &signed, rng)?),
            details: Some(details),
            ..Default::default()
        };
        Ok(list.encode_to_vec().into())
    }
}

/// What accepting a companion needs.
#[derive(Debug)]
pub(super) struct AcceptRequest<'a> {
    pub(super) identity: &'a [u8],
    pub(super) adv_secret: &'a [u8],
    pub(super) key_index: u32,
}

/// A signed list of the companions' key indexes, as device lists carry it.
#[derive(Clone, Debug)]
pub struct KeyIndexList {
    pub bytes: Bytes,
    /// Seconds.
    pub timestamp: u64,
}

/// Checks what a companion sends in `pair-device-sign`: the phone's signature and its own under it.
///
/// # Errors
/// [`LinkError::Bad`] with what does not hold.
pub fn verify_device_signature(
    device_identity: &[u8],
    companion_identity: &[u8; 32],
    phone_identity: &[u8; 32],
) -> Result<(), LinkError> {
    let identity = wa::ADVSignedDeviceIdentity::decode_from_slice(device_identity)
        .map_err(|_| LinkError::Bad("device-identity is not an ADVSignedDeviceIdentity"))?;
    let details = identity
        .details
        .as_deref()
        .ok_or(LinkError::Bad("device-identity has no details"))?;
    // Some clients drop the phone's key from the blob; a different one is a forgery.
    if identity
        .account_signature_key
        .as_deref()
        .is_some_and(|key| key != phone_identity)
    {
        return Err(LinkError::Bad("device-identity names another phone's key"));
    }
    let account = [&ACCOUNT_SIGNATURE, details, companion_identity].concat();
    verify(
        phone_identity,
        &account,
        identity.account_signature.as_deref(),
    )
    .map_err(|()| LinkError::Bad("the phone's signature does not hold"))?;
    let device = [
        &DEVICE_SIGNATURE,
        details,
        companion_identity,
        phone_identity,
    ]
    .concat();
    verify(
        companion_identity,
        &device,
        identity.device_signature.as_deref(),
    )
    .map_err(|()| LinkError::Bad("the companion's signature does not hold"))
}

fn verify(key: &[u8; 32], message: &[u8], signature: Option<&[u8]>) -> Result<(), ()> {
    let key = PublicKey::from_djb_public_key_bytes(key).map_err(|_| ())?;
    match signature {
        Some(signature) if key.verify_signature(message, signature) => Ok(()),
        _ => Err(()),
    }
}

fn sign(keyring: &Keyring, message: &[u8], rng: &mut StdRng) -> Result<Vec<u8>, LinkError> {
    let signature = keyring
        .identity
        .private_key()
        .calculate_signature(message, rng)
        .map_err(|error| LinkError::Keys(error.to_string()))?;
    Ok(signature.to_vec())
}

fn seconds(now: Millis) -> u64 {
    u64::try_from(now / 1_000).unwrap_or_default()
}
