//! A phone's own keys. All follow from the seed and the number: a one-time prekey's private half is
//! computed when somebody uses it, so thousands of accounts cost a few scalar multiplications each and
//! the same seed makes the same phones.

use std::collections::HashSet;
use std::fmt;

use rand::{CryptoRng, Rng};
use wacore_libsignal::crypto::hmac_sha256;
use wacore_libsignal::protocol::{
    GenericSignedPreKey as _, IdentityKey, IdentityKeyPair, KeyPair, PreKeyId, PreKeyRecord,
    PrivateKey, PublicKey, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, Timestamp,
};

use super::port::{Prekey, SignedPrekey};

/// The only signed prekey: phones of a simulation do not live long enough to rotate it.
const SIGNED_PREKEY_ID: u32 = 1;

/// The derived keys and what was spent of them.
pub(super) struct Keyring {
    root: [u8; 32],
    pub(super) identity: IdentityKeyPair,
    pub(super) registration_id: u32,
    signed: KeyPair,
    signature: [u8; 64],
    /// The next one-time prekey that was never given to anybody.
    next_prekey: u32,
    /// One-time prekeys that opened a session already: a second use is refused.
    spent: HashSet<u32>,
}

impl Keyring {
    pub(super) fn new<R: Rng + CryptoRng>(
        seed: u64,
        phone: &str,
        rng: &mut R,
    ) -> Result<Self, SignalProtocolError> {
        let mut input = seed.to_be_bytes().to_vec();
        input.extend_from_slice(phone.as_bytes());
        let root = hmac_sha256(b"wagate simulated phone", &input);
        let identity = pair(&derive(&root, "identity", 0))?;
        let signed = pair(&derive(&root, "signed prekey", SIGNED_PREKEY_ID))?;
        let signature = identity
            .private_key
            .calculate_signature(&signed.public_key.serialize(), rng)?;
        let registration = derive(&root, "registration", 0);
        Ok(Self {
            identity: IdentityKeyPair::new(
                IdentityKey::new(identity.public_key),
                identity.private_key,
            ),
            // 14 bits and not zero, as all clients do.
            registration_id: u32::from(
                u16::from_be_bytes([registration[0], registration[1]]) & 0x3fff,
            )
            .max(1),
            signed,
            signature,
            next_prekey: 1,
            spent: HashSet::new(),
            root,
        })
    }

    pub(super) fn identity_public(&self) -> [u8; 32] {
        raw(self.identity.public_key())
    }

    pub(super) fn signed_prekey(&self) -> SignedPrekey {
        SignedPrekey {
            id: SIGNED_PREKEY_ID,
            public: raw(&self.signed.public_key),
            signature: self.signature,
        }
    }

    /// Fresh one-time prekeys for an upload.
    pub(super) fn mint(&mut self, count: u32) -> Result<Vec<Prekey>, SignalProtocolError> {
        (0..count)
            .map(|_| {
                let id = self.next_prekey;
                // Ids have three bytes on the wire; 0 is not used.
                self.next_prekey = if id >= 0x00ff_fffe { 1 } else { id + 1 };
                Ok(Prekey {
                    id,
                    public: raw(&self.one_time(id)?.public_key),
                })
            })
            .collect()
    }

    /// A 32-byte secret for `label`, for what else a phone needs to know for good.
    pub(super) fn secret(&self, label: &str) -> [u8; 32] {
        derive(&self.root, label, 0)
    }

    pub(super) fn prekey_record(&self, id: PreKeyId) -> Result<PreKeyRecord, SignalProtocolError> {
        let number = u32::from(id);
        if number >= self.next_prekey || self.spent.contains(&number) {
            return Err(SignalProtocolError::InvalidPreKeyId);
        }
        Ok(PreKeyRecord::new(id, &self.one_time(number)?))
    }

    pub(super) fn spend(&mut self, id: PreKeyId) {
        self.spent.insert(id.into());
    }

    pub(super) fn signed_record(
        &self,
        id: SignedPreKeyId,
    ) -> Result<SignedPreKeyRecord, SignalProtocolError> {
        if u32::from(id) != SIGNED_PREKEY_ID {
            return Err(SignalProtocolError::InvalidSignedPreKeyId);
        }
        let time = Timestamp::from_epoch_millis(0);
        Ok(SignedPreKeyRecord::new(
            id,
            time,
            &self.signed,
            &self.signature,
        ))
    }

    fn one_time(&self, id: u32) -> Result<KeyPair, SignalProtocolError> {
        pair(&derive(&self.root, "one-time prekey", id))
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("registration_id", &self.registration_id)
            .field("next_prekey", &self.next_prekey)
            .finish_non_exhaustive()
    }
}

/// A public key's 32 bytes without the type byte.
pub(super) fn raw(key: &PublicKey) -> [u8; 32] {
    let serialized = key.serialize();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&serialized[1..]);
    bytes
}

fn derive(root: &[u8; 32], label: &str, number: u32) -> [u8; 32] {
    let mut input = label.as_bytes().to_vec();
    input.extend_from_slice(&number.to_be_bytes());
    hmac_sha256(root, &input)
}

fn pair(secret: &[u8; 32]) -> Result<KeyPair, SignalProtocolError> {
    Ok(KeyPair::try_from(PrivateKey::deserialize(secret)?)?)
}
