//! A companion played with the Signal library alone: it checks what phones sign and opens what they
//! send. It shares no code with the phones.

use std::collections::HashMap;

use futures::FutureExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::Sha256;
use wacore_libsignal::protocol::{
    CiphertextMessage, DeviceId, Direction, GenericSignedPreKey as _, IdentityChange, IdentityKey,
    IdentityKeyPair, IdentityKeyStore, KeyPair, PreKeyBundle, PreKeyId, PreKeyRecord,
    PreKeySignalMessage, PreKeyStore, ProtocolAddress, PublicKey, SessionRecord, SessionStore,
    SignalMessage, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore,
    Timestamp, UsePQRatchet, message_decrypt, message_encrypt, process_prekey_bundle,
};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use crate::node::Node;
use crate::phone::{PhoneKeys, Prekey, SignedPrekey};

type Result<T> = std::result::Result<T, SignalProtocolError>;

pub(super) struct Companion {
    pub(super) identity: KeyPair,
    pub(super) adv_secret: [u8; 32],
    signed: KeyPair,
    one_time: Vec<KeyPair>,
    sessions: Sessions,
    pub(super) rng: StdRng,
}

#[derive(Default, Clone)]
struct Sessions(HashMap<ProtocolAddress, SessionRecord>);

#[derive(Clone)]
struct Own {
    identity: KeyPair,
    signed: KeyPair,
    one_time: Vec<KeyPair>,
}

impl Companion {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            identity: KeyPair::generate(&mut rng),
            adv_secret: [42; 32],
            signed: KeyPair::generate(&mut rng),
            one_time: (0..5).map(|_| KeyPair::generate(&mut rng)).collect(),
            sessions: Sessions::default(),
            rng,
        }
    }

    pub(super) fn identity_bytes(&self) -> [u8; 32] {
        self.identity
            .public_key
            .public_key_bytes()
            .try_into()
            .unwrap()
    }

    /// The text of its QR code.
    pub(super) fn qr(&self, reference: &str) -> String {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        format!(
            "https://wa.me/settings/linked_devices#{reference},{},{},{},1",
            encode(&[1; 32]),
            encode(&self.identity_bytes()),
            encode(&self.adv_secret)
        )
    }

    /// Checks a container as clients do, countersigns it, and answers the blob and its key index.
    pub(super) fn countersign(&mut self, container: &[u8]) -> (Vec<u8>, u32) {
        let container = wa::ADVSignedDeviceIdentityHMAC::decode_from_slice(container).unwrap();
        let signed = container.details.unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.adv_secret).unwrap();
        mac.update(&signed);
        mac.verify_slice(container.hmac.as_ref().unwrap()).unwrap();
        let mut signed = wa::ADVSignedDeviceIdentity::decode_from_slice(&signed).unwrap();
        let details = signed.details.clone().unwrap();
        let account = signed.account_signature_key.clone().unwrap();
        let message = [&[6, 0], details.as_slice(), &self.identity_bytes()].concat();
        let key = PublicKey::from_djb_public_key_bytes(&account).unwrap();
        assert!(key.verify_signature(&message, signed.account_signature.as_ref().unwrap()));
        let message = [
            &[6, 1],
            details.as_slice(),
            &self.identity_bytes(),
            &account,
        ]
        .concat();
        let signature = self
            .identity
            .calculate_signature(&message, &mut self.rng)
            .unwrap();
        signed.device_signature = Some(signature.to_vec());
        let details = wa::ADVDeviceIdentity::decode_from_slice(&details).unwrap();
        (signed.encode_to_vec(), details.key_index.unwrap())
    }

    /// What it uploads.
    pub(super) fn keys(&mut self) -> PhoneKeys {
        let public = |pair: &KeyPair| pair.public_key.public_key_bytes().try_into().unwrap();
        PhoneKeys {
            registration_id: 77,
            identity: self.identity_bytes(),
            signed_prekey: SignedPrekey {
                id: 9,
                public: public(&self.signed),
                signature: self
                    .identity
                    .calculate_signature(&self.signed.public_key.serialize(), &mut self.rng)
                    .unwrap(),
            },
            prekeys: self
                .one_time
                .iter()
                .zip(100..)
                .map(|(pair, id)| Prekey {
                    id,
                    public: public(pair),
                })
                .collect(),
        }
    }

    /// Opens the only `enc` of a message from `peer`.
    pub(super) fn open(&mut self, peer: &str, node: &Node) -> Result<wa::Message> {
        let enc = node.find("enc").unwrap();
        let bytes = enc.data().unwrap();
        let message = match enc.get("type").as_deref().unwrap() {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(
                bytes.as_ref(),
            )?),
            _ => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes.as_ref())?),
        };
        let (own, address) = (self.own(), address(peer));
        let opened = message_decrypt(
            &message,
            &address,
            &mut self.sessions,
            &mut own.clone(),
            &mut own.clone(),
            &own,
            &mut self.rng,
            UsePQRatchet::No,
        )
        .now_or_never()
        .unwrap()?;
        let pad = usize::from(*opened.plaintext.last().unwrap());
        let end = opened.plaintext.len() - pad;
        Ok(wa::Message::decode_from_slice(&opened.plaintext[..end]).unwrap())
    }

    /// Opens a session with a phone's keys.
    pub(super) fn establish(&mut self, peer: &str, keys: &PhoneKeys) {
        let key = |bytes: &[u8; 32]| PublicKey::from_djb_public_key_bytes(bytes).unwrap();
        let one_time = keys
            .prekeys
            .first()
            .map(|prekey| (prekey.id.into(), key(&prekey.public)));
        let bundle = PreKeyBundle::new(
            keys.registration_id,
            DeviceId::from(0),
            one_time,
            keys.signed_prekey.id.into(),
            key(&keys.signed_prekey.public),
            keys.signed_prekey.signature.to_vec(),
            IdentityKey::new(key(&keys.identity)),
        )
        .unwrap();
        let mut own = self.own();
        process_prekey_bundle(
            &address(peer),
            &mut self.sessions,
            &mut own,
            &bundle,
            &mut self.rng,
            UsePQRatchet::No,
        )
        .now_or_never()
        .unwrap()
        .unwrap();
    }

    /// Encrypts for `peer` as an `enc` element.
    pub(super) fn seal(&mut self, peer: &str, message: &wa::Message) -> Node {
        let mut plaintext = message.encode_to_vec();
        plaintext.extend([4; 4]);
        let mut own = self.own();
        let sealed = message_encrypt(&plaintext, &address(peer), &mut self.sessions, &mut own)
            .now_or_never()
            .unwrap()
            .unwrap();
        let kind = match &sealed {
            CiphertextMessage::PreKeySignalMessage(_) => "pkmsg",
            _ => "msg",
        };
        Node::new("enc")
            .attr("v", "2")
            .attr("type", kind)
            .bytes(sealed.serialize().to_vec())
    }

    /// Loses its sessions, as after a restore from an old backup.
    pub(super) fn forget(&mut self) {
        self.sessions = Sessions::default();
    }

    fn own(&self) -> Own {
        Own {
            identity: self.identity.clone(),
            signed: self.signed.clone(),
            one_time: self.one_time.clone(),
        }
    }
}

fn address(peer: &str) -> ProtocolAddress {
    ProtocolAddress::new(peer, DeviceId::from(0))
}

#[async_trait::async_trait]
impl IdentityKeyStore for Own {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.identity.clone().into())
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(77)
    }

    async fn save_identity(
        &mut self,
        _: &ProtocolAddress,
        _: &IdentityKey,
    ) -> Result<IdentityChange> {
        Ok(IdentityChange::NewOrUnchanged)
    }

    async fn is_trusted_identity(
        &self,
        _: &ProtocolAddress,
        _: &IdentityKey,
        _: Direction,
    ) -> Result<bool> {
        Ok(true)
    }

    async fn get_identity(&self, _: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(None)
    }
}

#[async_trait::async_trait]
impl PreKeyStore for Own {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        Ok(PreKeyRecord::new(
            id,
            &self.one_time[u32::from(id) as usize - 100],
        ))
    }

    async fn save_pre_key(&mut self, _: PreKeyId, _: &PreKeyRecord) -> Result<()> {
        Ok(())
    }

    async fn remove_pre_key(&mut self, _: PreKeyId) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl SignedPreKeyStore for Own {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        let time = Timestamp::from_epoch_millis(0);
        Ok(SignedPreKeyRecord::new(id, time, &self.signed, &[0; 64]))
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
}
