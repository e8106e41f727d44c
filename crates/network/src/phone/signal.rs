//! Signal for one phone: sessions in memory, keyed by (account, device), and group sender keys.
//!
//! The library's functions are asynchronous for stores that do I/O. Ours never wait, so each call is
//! polled once and must be ready.

use std::collections::HashMap;
use std::future::Future;

use bytes::Bytes;
use futures::FutureExt as _;
use rand::rngs::StdRng;
use wacore_libsignal::protocol::{
    CiphertextMessage, DeviceId, Direction, IdentityChange, IdentityKey, IdentityKeyPair,
    IdentityKeyStore, PreKeyBundle, PreKeyId, PreKeyRecord, PreKeySignalMessage, PreKeyStore,
    ProtocolAddress, PublicKey, SenderKeyDistributionMessage, SenderKeyName, SenderKeyRecord,
    SenderKeyStore, SessionCheckoutKey, SessionCheckoutStoreResult, SessionRecord, SessionStore,
    SignalMessage, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore,
    UsePQRatchet, create_sender_key_distribution_message, group_decrypt, group_encrypt,
    message_decrypt, message_encrypt, process_prekey_bundle,
    process_sender_key_distribution_message,
};

use super::keys::Keyring;
use super::port::PrekeyBundle;
use crate::jid::Jid;
use crate::world::AccountId;

type Result<T> = std::result::Result<T, SignalProtocolError>;

/// A device of the network, whatever address it uses.
pub(super) type DeviceKey = (AccountId, u16);

/// Ciphertext and the type that its `enc` element carries.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) kind: &'static str,
    pub(super) bytes: Bytes,
}

/// The stores and the operations of one phone.
#[derive(Debug)]
pub(super) struct Signal {
    keys: Keys,
    sessions: Sessions,
    sender_keys: SenderKeys,
}

#[derive(Debug)]
struct Keys(Keyring);

#[derive(Debug, Default)]
struct Sessions(HashMap<ProtocolAddress, SessionRecord>);

#[derive(Debug, Default)]
struct SenderKeys(HashMap<SenderKeyName, SenderKeyRecord>);

impl Signal {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self { keys: Keys(keyring), sessions: Sessions::default(), sender_keys: SenderKeys::default() }
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keys.0
    }

    pub(super) fn keyring_mut(&mut self) -> &mut Keyring {
        &mut self.keys.0
    }

    pub(super) fn has_session(&self, device: DeviceKey) -> bool {
        self.sessions
            .0
            .get(&address(device))
            .and_then(SessionRecord::session_state)
            .is_some_and(|state| state.has_usable_sender_chain().unwrap_or(false))
    }

    pub(super) fn forget_session(&mut self, device: DeviceKey) {
        self.sessions.0.remove(&address(device));
    }

    /// Opens a session with a device whose keys the server handed out.
    pub(super) fn establish(
        &mut self,
        device: DeviceKey,
        bundle: &PrekeyBundle,
        rng: &mut StdRng,
    ) -> Result<()> {
        let address = address(device);
        let key = |bytes: &[u8; 32]| PublicKey::from_djb_public_key_bytes(bytes);
        let one_time = match &bundle.prekey {
            Some(prekey) => Some((prekey.id.into(), key(&prekey.public)?)),
            None => None,
        };
        let bundle = PreKeyBundle::new(
            bundle.registration_id,
            u32::from(device.1).into(),
            one_time,
            bundle.signed_prekey.id.into(),
            key(&bundle.signed_prekey.public)?,
            bundle.signed_prekey.signature.to_vec(),
            IdentityKey::new(key(&bundle.identity)?),
        )?;
        ready(process_prekey_bundle(
            &address,
            &mut self.sessions,
            &mut self.keys.clone_view(),
            &bundle,
            rng,
            UsePQRatchet::No,
        ))?;
        Ok(())
    }

    pub(super) fn encrypt(&mut self, device: DeviceKey, plaintext: &[u8]) -> Result<Sealed> {
        let address = address(device);
        let sealed = ready(message_encrypt(
            plaintext,
            &address,
            &mut self.sessions,
            &mut self.keys.clone_view(),
        ))?;
        let kind = match &sealed {
            CiphertextMessage::PreKeySignalMessage(_) => "pkmsg",
            _ => "msg",
        };
        Ok(Sealed { kind, bytes: Bytes::copy_from_slice(sealed.serialize()) })
    }

    /// Opens a `pkmsg` or `msg`.
    pub(super) fn decrypt(
        &mut self,
        device: DeviceKey,
        kind: &str,
        bytes: &[u8],
        rng: &mut StdRng,
    ) -> Result<Vec<u8>> {
        let message = match kind {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(bytes)?),
            "msg" => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?),
            other => return Err(SignalProtocolError::InvalidArgument(format!("enc type {other}"))),
        };
        let view = self.keys.clone_view();
        let opened = ready(message_decrypt(
            &message,
            &address(device),
            &mut self.sessions,
            &mut self.keys.clone_view(),
            &mut self.keys.clone_view(),
            &view,
            rng,
            UsePQRatchet::No,
        ))?;
        if let Some(id) = opened.consumed_prekey_id {
            self.keys.0.spend(id);
        }
        Ok(opened.plaintext)
    }
}
