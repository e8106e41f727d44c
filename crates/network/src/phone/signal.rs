//! Signal for one phone: sessions in memory, keyed by (account, device), and group sender keys.
//!
//! The library's functions are asynchronous for stores that do I/O. Ours never wait, so each call is
//! polled once and must be ready.

use std::collections::HashMap;
use std::fmt;
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
    keyring: Keyring,
    sessions: Sessions,
    sender_keys: SenderKeys,
}

/// The keyring as the library's three read-only stores.
#[derive(Clone, Copy, Debug)]
struct View<'a>(&'a Keyring);

#[derive(Default)]
struct Sessions(HashMap<ProtocolAddress, SessionRecord>);

#[derive(Debug, Default)]
struct SenderKeys(HashMap<SenderKeyName, SenderKeyRecord>);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Signal {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self {
            keyring,
            sessions: Sessions::default(),
            sender_keys: SenderKeys::default(),
        }
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(super) fn keyring_mut(&mut self) -> &mut Keyring {
        &mut self.keyring
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

    /// Forgets the sessions with all devices of an account, and says how many there were.
    pub(super) fn forget_account(&mut self, account: AccountId) -> usize {
        let before = self.sessions.0.len();
        let name = account.0.to_string();
        self.sessions.0.retain(|address, _| address.name() != name);
        before - self.sessions.0.len()
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
            &mut View(&self.keyring),
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
            &mut View(&self.keyring),
        ))?;
        let kind = match &sealed {
            CiphertextMessage::PreKeySignalMessage(_) => "pkmsg",
            _ => "msg",
        };
        Ok(Sealed {
            kind,
            bytes: Bytes::copy_from_slice(sealed.serialize()),
        })
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
            "pkmsg" => {
                CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(bytes)?)
            }
            "msg" => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?),
            other => {
                return Err(SignalProtocolError::InvalidArgument(format!(
                    "enc type {other}"
                )));
            }
        };
        let view = View(&self.keyring);
        let (mut identities, mut prekeys) = (view, view);
        let opened = ready(message_decrypt(
            &message,
            &address(device),
            &mut self.sessions,
            &mut identities,
            &mut prekeys,
            &view,
            rng,
            UsePQRatchet::No,
        ))?;
        if let Some(id) = opened.consumed_prekey_id {
            self.keyring.spend(id);
        }
        Ok(opened.plaintext)
    }

    /// The phone's sender key for a group, as a distribution message; made when there is none.
    pub(super) fn distribution(
        &mut self,
        group: &Jid,
        me: DeviceKey,
        rng: &mut StdRng,
    ) -> Result<Bytes> {
        let name = sender_key_name(group, me);
        let message = ready(create_sender_key_distribution_message(
            &name,
            &mut self.sender_keys,
            rng,
        ))?;
        Ok(Bytes::copy_from_slice(message.serialized()))
    }

    pub(super) fn group_encrypt(
        &mut self,
        group: &Jid,
        me: DeviceKey,
        plaintext: &[u8],
        rng: &mut StdRng,
    ) -> Result<Sealed> {
        let name = sender_key_name(group, me);
        let message = ready(group_encrypt(&mut self.sender_keys, &name, plaintext, rng))?;
        Ok(Sealed {
            kind: "skmsg",
            bytes: Bytes::copy_from_slice(message.serialized()),
        })
    }

    /// Learns another device's sender key for a group.
    pub(super) fn learn(
        &mut self,
        group: &Jid,
        device: DeviceKey,
        distribution: &[u8],
    ) -> Result<()> {
        let message = SenderKeyDistributionMessage::try_from(distribution)?;
        let name = sender_key_name(group, device);
        ready(process_sender_key_distribution_message(
            &name,
            &message,
            &mut self.sender_keys,
        ))
    }

    pub(super) fn group_decrypt(
        &mut self,
        group: &Jid,
        device: DeviceKey,
        bytes: &[u8],
    ) -> Result<Vec<u8>> {
        ready(group_decrypt(
            bytes,
            &mut self.sender_keys,
            &sender_key_name(group, device),
        ))
    }
}

fn address((account, device): DeviceKey) -> ProtocolAddress {
    ProtocolAddress::new(&account.0.to_string(), DeviceId::from(u32::from(device)))
}

fn sender_key_name(group: &Jid, (account, device): DeviceKey) -> SenderKeyName {
    SenderKeyName::new(group.to_string(), format!("{}.{device}", account.0))
}

/// Takes the answer of a future over stores that never wait.
fn ready<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    future.now_or_never().unwrap_or_else(|| {
        Err(SignalProtocolError::InvalidState(
            "phone",
            "a store in memory had to wait".to_owned(),
        ))
    })
}

#[async_trait::async_trait]
impl IdentityKeyStore for View<'_> {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.0.identity.clone())
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(self.0.registration_id)
    }

    async fn save_identity(
        &mut self,
        _: &ProtocolAddress,
        _: &IdentityKey,
    ) -> Result<IdentityChange> {
        Ok(IdentityChange::NewOrUnchanged)
    }

    fn try_save_identity(
        &mut self,
        _: &ProtocolAddress,
        _: &IdentityKey,
    ) -> Option<Result<IdentityChange>> {
        Some(Ok(IdentityChange::NewOrUnchanged))
    }

    /// Phones trust whatever identity the server shows, as people do who never compare numbers.
    async fn is_trusted_identity(
        &self,
        _: &ProtocolAddress,
        _: &IdentityKey,
        _: Direction,
    ) -> Result<bool> {
        Ok(true)
    }

    fn try_is_trusted_identity(
        &self,
        _: &ProtocolAddress,
        _: &IdentityKey,
        _: Direction,
    ) -> Option<Result<bool>> {
        Some(Ok(true))
    }

    async fn get_identity(&self, _: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(None)
    }
}

#[async_trait::async_trait]
impl PreKeyStore for View<'_> {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        self.0.prekey_record(id)
    }

    /// Prekeys follow from the seed.
    async fn save_pre_key(&mut self, _: PreKeyId, _: &PreKeyRecord) -> Result<()> {
        Ok(())
    }

    /// Spending is noted by whoever decrypts, once the session is stored.
    async fn remove_pre_key(&mut self, _: PreKeyId) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl SignedPreKeyStore for View<'_> {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        self.0.signed_record(id)
    }

    async fn save_signed_pre_key(
        &mut self,
        _: SignedPreKeyId,
        _: &SignedPreKeyRecord,
    ) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.0.get(address).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> Result<bool> {
        Ok(self.0.contains_key(address))
    }

    async fn store_session(
        &mut self,
        address: &ProtocolAddress,
        record: SessionRecord,
    ) -> Result<()> {
        self.0.insert(address.clone(), record);
        Ok(())
    }

    fn try_store_session_from_checkout(
        &mut self,
        address: &ProtocolAddress,
        record: SessionRecord,
        _: Option<SessionCheckoutKey>,
        _: bool,
    ) -> SessionCheckoutStoreResult {
        self.0.insert(address.clone(), record);
        SessionCheckoutStoreResult::Stored
    }
}

#[async_trait::async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(
        &mut self,
        name: &SenderKeyName,
        record: SenderKeyRecord,
    ) -> Result<()> {
        self.0.insert(name.clone(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>> {
        Ok(self.0.get(name).cloned())
    }
}
