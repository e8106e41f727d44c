//! A device's public keys as the server keeps them: uploaded, counted, handed out once, digested.
//!
//! A one-time key leaves the store when it is handed out and never comes back, not even if its owner
//! uploads the same id again with the same bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::devices::Device;
use super::turn::{Origin, Turn};
use super::{AccountId, DeviceId, Effect};
use crate::jid::Jid;
use crate::node::Node;
use crate::phone::{PhoneKeys, Prekey, PrekeyBundle, SignedPrekey};
use crate::transcript::Note;

/// One-time keys that the server keeps per device; more are refused silently, newest first.
pub const ONE_TIME_KEYS_MAX: usize = 2_000;

/// What a companion registers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub registration_id: u32,
    pub identity: [u8; 32],
    pub signed_prekey: SignedPrekey,
}

/// The public keys of one device.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    pub(crate) registration_id: u32,
    pub(crate) identity: [u8; 32],
    pub(crate) signed: SignedPrekey,
    /// In the order of upload, which the digest needs. A plain row of 36 bytes each: clients upload
    /// 812 at once, and there are thousands of devices.
    one_time: VecDeque<Prekey>,
    /// Ids handed out already.
    spent: BTreeSet<u32>,
}

impl KeyStore {
    pub(crate) fn of_phone(keys: &PhoneKeys) -> Self {
        let mut store = Self::new(keys.registration_id, keys.identity, keys.signed_prekey);
        store.upload(keys.prekeys.iter().copied());
        store
    }

    pub(crate) fn of_companion(registration: &Registration) -> Self {
        Self::new(
            registration.registration_id,
            registration.identity,
            registration.signed_prekey,
        )
    }

    fn new(registration_id: u32, identity: [u8; 32], signed: SignedPrekey) -> Self {
        Self {
            registration_id,
            identity,
            signed,
            one_time: VecDeque::new(),
            spent: BTreeSet::new(),
        }
    }

    /// Merges one-time keys by id and answers how many are new.
    pub(crate) fn upload(&mut self, keys: impl IntoIterator<Item = Prekey>) -> u64 {
        let mut places: HashMap<u32, usize> = self
            .one_time
            .iter()
            .enumerate()
            .map(|(place, key)| (key.id, place))
            .collect();
        let mut added = 0;
        for key in keys {
            if self.spent.contains(&key.id) {
                continue;
            }
            if let Some(place) = places.get(&key.id) {
                self.one_time[*place] = key;
                continue;
            }
            if self.one_time.len() == ONE_TIME_KEYS_MAX {
                break;
            }
            places.insert(key.id, self.one_time.len());
            self.one_time.push_back(key);
            added += 1;
        }
        self.one_time.shrink_to_fit();
        added
    }

    pub(crate) fn one_time_count(&self) -> usize {
        self.one_time.len()
    }

    /// Takes the oldest one-time key.
    fn take(&mut self) -> Option<Prekey> {
        let key = self.one_time.pop_front()?;
        self.spent.insert(key.id);
        Some(key)
    }

    /// `digest` of everything that the server has, by which a client sees whether it must upload again.
    pub(crate) fn digest(&self) -> Node {
        use sha1::Digest as _;
        let mut hash = sha1::Sha1::new();
        hash.update(self.identity);
        hash.update(self.signed.public);
        hash.update(self.signed.signature);
        for key in &self.one_time {
            hash.update(key.public);
        }
        let ids = self
            .one_time
            .iter()
            .map(|key| Node::new("id").bytes(id_bytes(key.id)));
        Node::new("digest")
            .child(registration_node(self.registration_id))
            .child(type_node())
            .child(Node::new("identity").bytes(self.identity.to_vec()))
            .child(skey_node(&self.signed))
            .child(Node::new("list").children(ids))
            .child(Node::new("hash").bytes(hash.finalize().to_vec()))
    }
}

impl Turn<'_> {
    /// A device's keys with one of its one-time keys, which is then gone.
    fn take_bundle(&mut self, account: AccountId, number: DeviceId) -> Option<PrekeyBundle> {
        let low = self.world.options.low_prekeys;
        let device = self.world.device_mut(account, number)?;
        let prekey = device.keys.take();
        let left = device.keys.one_time_count();
        let bundle = PrekeyBundle {
            registration_id: device.keys.registration_id,
            identity: device.keys.identity,
            signed_prekey: device.keys.signed,
            prekey,
            device_identity: device.signed_identity.clone(),
        };
        if prekey.is_some() {
            self.world.counters.prekeys_given += 1;
        } else {
            self.world.counters.prekeys_exhausted += 1;
        }
        // On the way down only: one notice, not one per fetch.
        if prekey.is_some() && (left == low || left == 0) {
            self.notify_low_prekeys(account, number);
        }
        Some(bundle)
    }

    /// The same, with a line in the transcript that says who got the key.
    pub(crate) fn give_bundle(
        &mut self,
        to: Origin,
        account: AccountId,
        number: DeviceId,
    ) -> Option<PrekeyBundle> {
        let bundle = self.take_bundle(account, number)?;
        if let Some(prekey) = bundle.prekey {
            let receiver = self.world.party(to);
            let note = Note::PrekeyGiven {
                phone: self.world.party(Origin::Phone(account)).phone,
                device: number,
                key_id: prekey.id,
                to_phone: receiver.phone,
                to_device: receiver.device,
            };
            self.world.transcript.note(self.now, note);
        }
        Some(bundle)
    }

    /// Asks a device for more one-time keys, if it is connected (else it learns at its next login).
    pub(crate) fn notify_low_prekeys(&mut self, account: AccountId, number: DeviceId) {
        let Some(device) = self.world.device(account, number) else {
            return;
        };
        let left = device.keys.one_time_count();
        if number != 0 && !device.is_connected() {
            return;
        }
        let notice = self
            .notification("encrypt", &Jid::SERVER)
            .child(Node::new("count").attr("value", left));
        self.send(account, number, notice);
    }

    /// After a companion's first upload its phone can open a session to it.
    pub(crate) fn greet_once(&mut self, account: AccountId, number: DeviceId) {
        let Some(device) = self.world.device_mut(account, number) else {
            return;
        };
        if !device.greeted {
            device.greeted = true;
            self.out.push(Effect::Greet {
                account,
                device: number,
            });
        }
    }
}

/// `user` of a prekey answer.
pub(crate) fn bundle_node(jid: Jid, bundle: &PrekeyBundle, seconds: i64) -> Node {
    let key = bundle.prekey.map(|prekey| key_node(&prekey));
    let identity = bundle
        .device_identity
        .clone()
        .map(|bytes| Node::new("device-identity").bytes(bytes));
    Node::new("user")
        .attr("jid", jid)
        .attr("t", seconds)
        .child(registration_node(bundle.registration_id))
        .child(type_node())
        .child(Node::new("identity").bytes(bundle.identity.to_vec()))
        .children(key)
        .child(skey_node(&bundle.signed_prekey))
        .children(identity)
}

fn registration_node(id: u32) -> Node {
    Node::new("registration").bytes(id.to_be_bytes().to_vec())
}

/// The type of all keys: Curve25519.
fn type_node() -> Node {
    Node::new("type").bytes(Bytes::from_static(&[5]))
}

fn id_bytes(id: u32) -> Vec<u8> {
    id.to_be_bytes()[1..].to_vec()
}

fn key_node(key: &Prekey) -> Node {
    Node::new("key")
        .child(Node::new("id").bytes(id_bytes(key.id)))
        .child(Node::new("value").bytes(key.public.to_vec()))
}

fn skey_node(key: &SignedPrekey) -> Node {
    Node::new("skey")
        .child(Node::new("id").bytes(id_bytes(key.id)))
        .child(Node::new("value").bytes(key.public.to_vec()))
        .child(Node::new("signature").bytes(key.signature.to_vec()))
}

/// Big-endian number of at most four bytes.
pub(crate) fn read_number(bytes: &[u8]) -> Option<u32> {
    (1..=4).contains(&bytes.len()).then(|| {
        bytes
            .iter()
            .fold(0_u32, |number, byte| (number << 8) | u32::from(*byte))
    })
}

/// `key` of an upload.
pub(crate) fn read_prekey(node: &Node) -> Option<Prekey> {
    let id = read_number(&node.find("id")?.data()?)?;
    let public = node.find("value")?.data()?.as_ref().try_into().ok()?;
    Some(Prekey { id, public })
}

/// `skey` of an upload.
pub(crate) fn read_signed_prekey(node: &Node) -> Option<SignedPrekey> {
    let Prekey { id, public } = read_prekey(node)?;
    let signature = node.find("signature")?.data()?.as_ref().try_into().ok()?;
    Some(SignedPrekey {
        id,
        public,
        signature,
    })
}

impl Device {
    /// Takes an upload; answers how many one-time keys are new.
    pub(crate) fn take_upload(&mut self, upload: &Upload) -> u64 {
        if let Some(registration_id) = upload.registration_id {
            self.keys.registration_id = registration_id;
        }
        if let Some(signed) = upload.signed {
            self.keys.signed = signed;
        }
        self.keys.upload(upload.keys.iter().copied())
    }
}

/// What `iq encrypt set` brings.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) registration_id: Option<u32>,
    pub(crate) identity: Option<Bytes>,
    pub(crate) signed: Option<SignedPrekey>,
    pub(crate) keys: Vec<Prekey>,
}
