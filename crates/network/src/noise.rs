//! The server's half of the Noise handshake, and the keys that make it trustworthy.
//!
//! Answers XX (first connections, Baileys always), IK (a client that kept our key) and `XXfallback`
//! (IK with a key that is no longer ours). Pure: [`crate::connection`] moves the bytes. The
//! certificate chain is really signed: root → intermediate → static key, so that a client which
//! is given the root key can verify it in full.

use std::fs;
use std::io;
use std::path::Path;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use wacore_libsignal::crypto::GcmInPlaceBuffer;
use wacore_libsignal::protocol::{KeyPair, PrivateKey};
use wacore_noise::{NoiseCipher, NoiseHandshake};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::cert_chain::{NoiseCertificate, noise_certificate};
use waproto::whatsapp::handshake_message::ServerHello;
use waproto::whatsapp::{CertChain, HandshakeMessage};

// The first two are padded to the length of a hash; the third is longer and is hashed instead.
const XX: &str = "Noise_XX_25519_AESGCM_SHA256\0\0\0\0";
const IK: &str = "Noise_IK_25519_AESGCM_SHA256\0\0\0\0";
const XX_FALLBACK: &str = "Noise_XXfallback_25519_AESGCM_SHA256";

const FILE: &str = "noise.json";
/// How long a chain is valid before and after it was made, in seconds.
const BACKDATED: i64 = 24 * 3600;
const VALID: i64 = 10 * 365 * 24 * 3600;
const INTERMEDIATE_SERIAL: u32 = 1;
const LEAF_SERIAL: u32 = 2;

/// A handshake that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    #[error("the handshake message is malformed")]
    Malformed,
    #[error("the handshake's cryptography failed")]
    Crypto(#[source] wacore_noise::HandshakeError),
    #[error("a frame cannot be decrypted")]
    Frame,
    #[error("the connection has used up its counters")]
    Exhausted,
    #[error("a key is damaged")]
    Key,
    #[error("the noise keys cannot be read or written")]
    File(#[source] io::Error),
}

impl From<wacore_noise::HandshakeError> for NoiseError {
    fn from(source: wacore_noise::HandshakeError) -> Self {
        Self::Crypto(source)
    }
}

/// What is wrong with the certificate chain that is shown to clients; tests ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainFault {
    /// The intermediate is signed by somebody else's root.
    Signature,
    /// The intermediate names an issuer other than the root.
    Issuer,
    /// The validity has passed.
    Expired,
}

/// The keys as they lie in the folder, hexadecimal.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    root: String,
    intermediate: String,
    server: String,
    not_before: i64,
    not_after: i64,
}

/// The server's Noise keys and its certificate chain.
#[derive(Clone)]
pub struct NoiseIdentity {
    root: KeyPair,
    intermediate: KeyPair,
    server: KeyPair,
    not_before: i64,
    not_after: i64,
    chain: Vec<u8>,
}

impl std::fmt::Debug for NoiseIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoiseIdentity")
            .field("root", &hex::encode(self.root_public()))
            .finish_non_exhaustive()
    }
}

impl NoiseIdentity {
    /// Makes new keys at `now` (milliseconds).
    pub fn generate(now: i64) -> Result<Self, NoiseError> {
        let mut rng = rand::rng();
        let [root, intermediate, server] = [(); 3].map(|()| KeyPair::generate(&mut rng));
        let now = now / 1000;
        Self::assemble([root, intermediate, server], now - BACKDATED, now + VALID)
    }

    /// Takes the keys from `folder`, or makes them and leaves them there.
    pub fn load_or_generate(folder: &Path, now: i64) -> Result<Self, NoiseError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let file: KeyFile = serde_json::from_slice(&bytes).map_err(|_| NoiseError::Key)?;
                let keys = [
                    key(&file.root)?,
                    key(&file.intermediate)?,
                    key(&file.server)?,
                ];
                Self::assemble(keys, file.not_before, file.not_after)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate(now)?;
                identity.save(&path)?;
                Ok(identity)
            }
            Err(error) => Err(NoiseError::File(error)),
        }
    }

    /// The same root with a new static key: clients that kept the old one have to fall back.
    pub fn rotated(&self) -> Result<Self, NoiseError> {
        let server = KeyPair::generate(&mut rand::rng());
        let keys = [self.root.clone(), self.intermediate.clone(), server];
        Self::assemble(keys, self.not_before, self.not_after)
    }

    /// The same keys with a chain that a careful client refuses.
    pub fn spoiled(&self, fault: ChainFault) -> Result<Self, NoiseError> {
        let mut spoiled = self.clone();
        let mut issuer_serial = 0;
        match fault {
            ChainFault::Signature => spoiled.root = KeyPair::generate(&mut rand::rng()),
            ChainFault::Issuer => issuer_serial = 7,
            ChainFault::Expired => {
                spoiled.not_after = spoiled.not_before + 1;
            }
        }
        spoiled.chain = spoiled.sign(issuer_serial)?;
        spoiled.root = self.root.clone();
        Ok(spoiled)
    }

    /// The public key that clients must pin in place of WhatsApp's.
    pub fn root_public(&self) -> [u8; 32] {
        public(&self.root)
    }

    /// The server's static key.
    pub fn server_public(&self) -> [u8; 32] {
        public(&self.server)
    }

    /// The certificate chain as clients see it.
    pub fn chain(&self) -> &[u8] {
        &self.chain
    }

    fn assemble(
        [root, intermediate, server]: [KeyPair; 3],
        not_before: i64,
        not_after: i64,
    ) -> Result<Self, NoiseError> {
        let mut identity = Self {
            root,
            intermediate,
            server,
            not_before,
            not_after,
            chain: Vec::new(),
        };
        identity.chain = identity.sign(0)?;
        Ok(identity)
    }

    fn sign(&self, issuer_serial: u32) -> Result<Vec<u8>, NoiseError> {
        let intermediate = self.certificate(
            &self.root,
            public(&self.intermediate),
            INTERMEDIATE_SERIAL,
            issuer_serial,
        )?;
        let leaf = self.certificate(
            &self.intermediate,
            public(&self.server),
            LEAF_SERIAL,
            INTERMEDIATE_SERIAL,
        )?;
        let chain = CertChain {
            leaf: MessageField::some(leaf),
            intermediate: MessageField::some(intermediate),
        };
        Ok(chain.encode_to_vec())
    }

    fn certificate(
        &self,
        issuer: &KeyPair,
        key: [u8; 32],
        serial: u32,
        issuer_serial: u32,
    ) -> Result<NoiseCertificate, NoiseError> {
        let details = noise_certificate::Details {
            serial: Some(serial),
            issuer_serial: Some(issuer_serial),
            key: Some(key.to_vec()),
            not_before: u64::try_from(self.not_before).ok(),
            not_after: u64::try_from(self.not_after).ok(),
        }
        .encode_to_vec();
        let signature = issuer
            .calculate_signature(&details, &mut rand::rng())
            .map_err(|_| NoiseError::Key)?;
        Ok(NoiseCertificate {
            details: Some(details),
            signature: Some(signature.to_vec()),
        })
    }

    fn save(&self, path: &Path) -> Result<(), NoiseError> {
        let secret = |pair: &KeyPair| hex::encode(pair.private_key.serialize());
        let file = KeyFile {
            root: secret(&self.root),
            intermediate: secret(&self.intermediate),
            server: secret(&self.server),
            not_before: self.not_before,
            not_after: self.not_after,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|_| NoiseError::Key)?;
        crate::certificates::write_secret(path, &text).map_err(NoiseError::File)
    }
}

fn key(text: &str) -> Result<KeyPair, NoiseError> {
    let bytes = hex::decode(text).map_err(|_| NoiseError::Key)?;
    let private = PrivateKey::deserialize(&bytes).map_err(|_| NoiseError::Key)?;
    KeyPair::try_from(private).map_err(|_| NoiseError::Key)
}

fn public(pair: &KeyPair) -> [u8; 32] {
    let bytes = pair.public_key.public_key_bytes();
    bytes.try_into().unwrap_or([0; 32])
}

/// A finished handshake.
#[derive(Debug)]
pub struct Session {
    /// The client's static key: who it is, once the login names a device.
    pub client_key: [u8; 32],
    /// The login or registration payload.
    pub payload: Vec<u8>,
    pub sending: Sending,
    pub receiving: Receiving,
}

/// The answer to a client's first message.
#[derive(Debug)]
pub enum Answer {
    /// IK: the session stands once these bytes are sent.
    Finished(Vec<u8>, Box<Session>),
    /// XX or `XXfallback`: the client has one more message to send.
    Waiting(Vec<u8>, Box<Waiting>),
}

/// An XX handshake between the server's message and the client's last.
pub struct Waiting {
    noise: NoiseHandshake,
    ephemeral: KeyPair,
    fallback: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

/// Answers the client's first message. `refuse_ik` forces the fallback.
pub fn answer(
    identity: &NoiseIdentity,
    header: &[u8],
    message: &[u8],
    refuse_ik: bool,
) -> Result<Answer, NoiseError> {
    let hello = HandshakeMessage::decode_from_slice(message)
        .ok()
        .and_then(|message| message.client_hello.into_option())
        .ok_or(NoiseError::Malformed)?;
    let ephemeral: [u8; 32] = hello
        .ephemeral
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(NoiseError::Malformed)?;
    let (Some(static_key), Some(payload)) = (hello.r#static, hello.payload) else {
        return answer_xx(identity, XX, header, &ephemeral);
    };
    if refuse_ik {
        return answer_xx(identity, XX_FALLBACK, header, &ephemeral);
    }
    match open_ik(identity, header, &ephemeral, (&static_key, &payload)) {
        Ok(opened) => answer_ik(identity, opened, &ephemeral),
        // The client encrypted to a key that is not ours (any more).
        Err(NoiseError::Crypto(_)) => answer_xx(identity, XX_FALLBACK, header, &ephemeral),
        Err(error) => Err(error),
    }
}

struct OpenedIk {
    noise: NoiseHandshake,
    client_key: [u8; 32],
    payload: Vec<u8>,
}

fn open_ik(
    identity: &NoiseIdentity,
    header: &[u8],
    ephemeral: &[u8; 32],
    (static_key, payload): (&[u8], &[u8]),
) -> Result<OpenedIk, NoiseError> {
    let secret = identity.server.private_key.serialize();
    let mut noise = NoiseHandshake::new(IK, header)?;
    noise.authenticate(&identity.server_public());
    noise.authenticate(ephemeral);
    noise.mix_shared_secret(secret, ephemeral)?;
    let client_key = noise.decrypt(static_key)?;
    let client_key: [u8; 32] = client_key.try_into().map_err(|_| NoiseError::Malformed)?;
    noise.mix_shared_secret(secret, &client_key)?;
    let payload = noise.decrypt(payload)?;
    Ok(OpenedIk {
        noise,
        client_key,
        payload,
    })
}

fn answer_ik(
    identity: &NoiseIdentity,
    opened: OpenedIk,
    client_ephemeral: &[u8; 32],
) -> Result<Answer, NoiseError> {
    let OpenedIk {
        mut noise,
        client_key,
        payload,
    } = opened;
    let pair = KeyPair::generate(&mut rand::rng());
    noise.authenticate(&public(&pair));
    noise.mix_shared_secret(pair.private_key.serialize(), client_ephemeral)?;
    noise.mix_shared_secret(pair.private_key.serialize(), &client_key)?;
    let certificate = noise.encrypt(&identity.chain)?;
    let hello = server_hello(&pair, None, certificate);
    let session = Session::new(noise, client_key, payload)?;
    Ok(Answer::Finished(hello, Box::new(session)))
}

fn answer_xx(
    identity: &NoiseIdentity,
    pattern: &str,
    header: &[u8],
    client_ephemeral: &[u8; 32],
) -> Result<Answer, NoiseError> {
    let mut noise = NoiseHandshake::new(pattern, header)?;
    noise.authenticate(client_ephemeral);
    let pair = KeyPair::generate(&mut rand::rng());
    noise.authenticate(&public(&pair));
    noise.mix_shared_secret(pair.private_key.serialize(), client_ephemeral)?;
    let static_key = noise.encrypt(&identity.server_public())?;
    noise.mix_shared_secret(identity.server.private_key.serialize(), client_ephemeral)?;
    let certificate = noise.encrypt(&identity.chain)?;
    let hello = server_hello(&pair, Some(static_key), certificate);
    Ok(Answer::Waiting(
        hello,
        Box::new(Waiting {
            noise,
            ephemeral: pair,
            fallback: pattern == XX_FALLBACK,
        }),
    ))
}

fn server_hello(pair: &KeyPair, static_key: Option<Vec<u8>>, payload: Vec<u8>) -> Vec<u8> {
    HandshakeMessage {
        server_hello: MessageField::some(ServerHello {
            ephemeral: Some(public(pair).to_vec()),
            r#static: static_key,
            payload: Some(payload),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

impl Waiting {
    /// Whether the client had tried IK.
    pub fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// Takes the client's last message.
    pub fn finish(self, message: &[u8]) -> Result<Session, NoiseError> {
        let Self {
            mut noise,
            ephemeral,
            ..
        } = self;
        let finish = HandshakeMessage::decode_from_slice(message)
            .ok()
            .and_then(|message| message.client_finish.into_option())
            .ok_or(NoiseError::Malformed)?;
        let (static_key, payload) = finish
            .r#static
            .zip(finish.payload)
            .ok_or(NoiseError::Malformed)?;
        let client_key = noise.decrypt(&static_key)?;
        let client_key: [u8; 32] = client_key.try_into().map_err(|_| NoiseError::Malformed)?;
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
        let payload = noise.decrypt(&payload)?;
        Session::new(noise, client_key, payload)
    }
}

impl Session {
    fn new(
        noise: NoiseHandshake,
        client_key: [u8; 32],
        payload: Vec<u8>,
    ) -> Result<Self, NoiseError> {
        // The library names the keys as the client sees them.
        let (from_client, to_client) = noise.finish()?;
        Ok(Self {
            client_key,
            payload,
            sending: Sending {
                cipher: to_client,
                counter: 0,
            },
            receiving: Receiving {
                cipher: from_client,
                counter: 0,
            },
        })
    }
}

/// Encrypts what goes to the client, frame by frame.
pub struct Sending {
    cipher: NoiseCipher,
    counter: u32,
}

impl Sending {
    /// Encrypts `out[start..]` in place and appends the authentication tag.
    pub fn seal(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), NoiseError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(NoiseError::Exhausted)?;
        self.cipher
            .encrypt_in_place_with_counter(counter, &mut Tail { out, start })
            .map_err(|_| NoiseError::Frame)
    }
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending")
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// Decrypts what comes from the client, frame by frame.
pub struct Receiving {
    cipher: NoiseCipher,
    counter: u32,
}

impl Receiving {
    /// Decrypts a frame in place.
    pub fn open(&mut self, frame: &mut BytesMut) -> Result<(), NoiseError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(NoiseError::Exhausted)?;
        self.cipher
            .decrypt_in_place_with_counter(counter, frame)
            .map_err(|_| NoiseError::Frame)
    }
}

impl std::fmt::Debug for Receiving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiving")
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// The end of a buffer that already holds other frames.
struct Tail<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl GcmInPlaceBuffer for Tail<'_> {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.out[self.start..]
    }

    fn as_slice(&self) -> &[u8] {
        &self.out[self.start..]
    }

    fn resize(&mut self, new_len: usize, value: u8) {
        self.out.resize(self.start + new_len, value);
    }

    fn truncate(&mut self, len: usize) {
        self.out.truncate(self.start + len);
    }
}

#[cfg(test)]
mod tests;
