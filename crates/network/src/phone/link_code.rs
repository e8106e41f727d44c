//! Linking by a code: the owner types the eight characters that the companion shows.
//!
//! The code wraps both sides' ephemeral keys (PBKDF2, AES-CTR), so the server cannot stand between
//! them. The companion then sends its identity in a bundle under the ephemerals' shared secret, and
//! both derive the ADV secret that a QR code would have carried.

use std::collections::VecDeque;
use std::fmt;

use rand::RngExt as _;
use rand::rngs::StdRng;
use wacore_libsignal::crypto::{Aes256Ctr32, aes_256_gcm_decrypt, hmac_sha256};
use wacore_libsignal::protocol::{KeyPair, PublicKey};

use super::adv::LinkError;
use super::keys::{Keyring, raw};

const ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(131_072).unwrap();
const WRAPPED_LEN: usize = 80;
const BUNDLE_LEN: usize = 32 + 12 + 96 + 16;
/// Codes under way per phone; the oldest attempt is forgotten.
const ATTEMPTS_MAX: usize = 4;

/// The phone's answer to a companion's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryHello {
    /// `link_code_pairing_wrapped_primary_ephemeral_pub`
    pub wrapped_ephemeral: [u8; WRAPPED_LEN],
    /// `primary_identity_pub`
    pub identity: [u8; 32],
}

/// Codes that were typed and wait for the companion's bundle.
#[derive(Debug, Default)]
pub(super) struct CodeLinks(VecDeque<Attempt>);

struct Attempt {
    reference: String,
    ephemeral: KeyPair,
    companion_ephemeral: PublicKey,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl CodeLinks {
    /// The owner typed a code: answers the companion's hello with an ephemeral key of our own.
    pub(super) fn answer(
        &mut self,
        reference: &str,
        code: &str,
        wrapped_companion_ephemeral: &[u8],
        keyring: &Keyring,
        rng: &mut StdRng,
    ) -> Result<PrimaryHello, LinkError> {
        let code = normalise(code);
        let companion_ephemeral = unwrap(&code, wrapped_companion_ephemeral)?;
        let companion_ephemeral = PublicKey::from_djb_public_key_bytes(&companion_ephemeral)
            .map_err(|error| LinkError::Keys(error.to_string()))?;
        let ephemeral = KeyPair::generate(rng);
        let wrapped_ephemeral = wrap(&code, &raw(&ephemeral.public_key), rng)?;
        // The companion may ask again with the same reference; the newest answer counts.
        self.0.retain(|attempt| attempt.reference != reference);
        if self.0.len() >= ATTEMPTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Attempt {
            reference: reference.to_owned(),
            ephemeral,
            companion_ephemeral,
        });
        Ok(PrimaryHello {
            wrapped_ephemeral,
            identity: keyring.identity_public(),
        })
    }

    /// The companion's bundle came: answers its identity and the ADV secret. A bundle that does not
    /// open means that the typed code was wrong.
    pub(super) fn finish(
        &mut self,
        reference: &str,
        wrapped_bundle: &[u8],
        companion_identity: &[u8],
        keyring: &Keyring,
    ) -> Result<Finished, LinkError> {
        let at = self
            .0
            .iter()
            .position(|attempt| attempt.reference == reference);
        let attempt = at
            .and_then(|at| self.0.remove(at))
            .ok_or(LinkError::Unknown)?;
        if wrapped_bundle.len() != BUNDLE_LEN {
            return Err(LinkError::Bad("the key bundle does not have 156 bytes"));
        }
        let shared = attempt
            .ephemeral
            .calculate_agreement(&attempt.companion_ephemeral)
            .map_err(|error| LinkError::Keys(error.to_string()))?;
        let (salt, rest) = wrapped_bundle.split_at(32);
        let (nonce, sealed) = rest.split_at(12);
        let key = hkdf(
            &shared,
            salt,
            b"link_code_pairing_key_bundle_encryption_key",
        );
        let nonce: &[u8; 12] = nonce.try_into().map_err(|_| LinkError::Bad("nonce"))?;
        let mut bundle = Vec::with_capacity(96);
        aes_256_gcm_decrypt(&key, nonce, b"", sealed, &mut bundle)
            .map_err(|_| LinkError::WrongCode)?;
        let identity: [u8; 32] = part(&bundle, 0)?;
        if identity != companion_identity {
            return Err(LinkError::Bad("the bundle holds another identity"));
        }
        if part(&bundle, 32)? != keyring.identity_public() {
            return Err(LinkError::Bad("the bundle is for another phone"));
        }
        let random: [u8; 32] = part(&bundle, 64)?;
        let identities = keyring
            .identity
            .private_key()
            .calculate_agreement(
                &PublicKey::from_djb_public_key_bytes(&identity)
                    .map_err(|error| LinkError::Keys(error.to_string()))?,
            )
            .map_err(|error| LinkError::Keys(error.to_string()))?;
        let secret = [shared, identities, random].concat();
        Ok(Finished {
            identity,
            adv_secret: hkdf(&secret, &[0; 32], b"adv_secret"),
        })
    }
}

/// What a code link agreed on.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) identity: [u8; 32],
    pub(super) adv_secret: [u8; 32],
}

/// Wraps an ephemeral public key under a code: `salt ‖ iv ‖ ciphertext`.
pub(super) fn wrap(
    code: &str,
    public: &[u8; 32],
    rng: &mut StdRng,
) -> Result<[u8; WRAPPED_LEN], LinkError> {
    let salt: [u8; 32] = rng.random();
    let iv: [u8; 16] = rng.random();
    let mut ciphertext = *public;
    apply_keystream(&code_key(code, &salt), &iv, &mut ciphertext)?;
    let mut wrapped = [0; WRAPPED_LEN];
    wrapped[..32].copy_from_slice(&salt);
    wrapped[32..48].copy_from_slice(&iv);
    wrapped[48..].copy_from_slice(&ciphertext);
    Ok(wrapped)
}

/// Unwraps what [`wrap`] made. A wrong code gives a wrong key, which only shows later.
pub(super) fn unwrap(code: &str, wrapped: &[u8]) -> Result<[u8; 32], LinkError> {
    if wrapped.len() != WRAPPED_LEN {
        return Err(LinkError::Bad(
            "the wrapped ephemeral key does not have 80 bytes",
        ));
    }
    let iv: [u8; 16] = part(wrapped, 32)?;
    let mut public: [u8; 32] = part(wrapped, 48)?;
    apply_keystream(&code_key(code, &wrapped[..32]), &iv, &mut public)?;
    Ok(public)
}

fn code_key(code: &str, salt: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        salt,
        code.as_bytes(),
        &mut key,
    );
    key
}

/// AES-256-CTR with a 128-bit counter, block by block since the library's counter has 32 bits.
fn apply_keystream(key: &[u8; 32], iv: &[u8; 16], data: &mut [u8]) -> Result<(), LinkError> {
    let mut counter = u128::from_be_bytes(*iv);
    for block in data.chunks_mut(16) {
        let bytes = counter.to_be_bytes();
        let (nonce, low) = bytes.split_at(12);
        let low = u32::from_be_bytes([low[0], low[1], low[2], low[3]]);
        Aes256Ctr32::from_key(key, nonce, low)
            .map_err(|_| LinkError::Bad("AES-CTR"))?
            .process(block);
        counter = counter.wrapping_add(1);
    }
    Ok(())
}

/// HKDF-SHA256 for one block of output.
pub(super) fn hkdf(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let extracted = hmac_sha256(salt, secret);
    let mut input = info.to_vec();
    input.push(1);
    hmac_sha256(&extracted, &input)
}

/// People type codes in groups and in small letters.
fn normalise(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], LinkError> {
    bytes
        .get(from..from + N)
        .and_then(|part| part.try_into().ok())
        .ok_or(LinkError::Bad("a field is too short"))
}
