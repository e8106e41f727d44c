//! Devices: the phone and the companions of an account, and who is told when one comes or goes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::accounts::Account;
use super::mailbox::Mailbox;
use super::prekeys::{KeyStore, Registration};
use super::turn::{Origin, Turn};
use super::{AccountId, ConnId, DeviceId, NetworkEvent, World, WorldError};
use crate::faults::{Action, Party, StreamErrorDetail};
use crate::jid::{Jid, Server};
use crate::node::Node;
use crate::phone::PhoneKeys;
use crate::transcript::Note;

/// One device of an account.
#[derive(Debug)]
pub struct Device {
    pub account: AccountId,
    /// 0 is the phone.
    pub number: DeviceId,
    /// The number by which the phone's signed list knows it; 0 for the phone itself.
    pub key_index: u32,
    /// What authenticates a login; absent for the phone, which has no connection here.
    pub(crate) static_key: Option<[u8; 32]>,
    /// The blob of `pair-device-sign`, returned with this device's keys.
    pub(crate) signed_identity: Option<Bytes>,
    pub(crate) keys: KeyStore,
    pub(crate) mailbox: Mailbox,
    pub(crate) conn: Option<ConnId>,
    /// Whether its phone has welcomed it with key share and history notice.
    pub(crate) greeted: bool,
    /// Typing states that wait a few seconds for it, by who types.
    pub(crate) typing: BTreeMap<AccountId, (super::Millis, Node)>,
}

/// A device as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub account: AccountId,
    pub number: DeviceId,
    pub key_index: u32,
    pub pn: Jid,
    pub lid: Jid,
    /// A phone, or a companion with a live connection.
    pub online: bool,
    /// Stanzas that were not confirmed yet.
    pub queued: usize,
}

impl Device {
    pub(crate) fn phone(account: AccountId, keys: &PhoneKeys) -> Self {
        Self {
            account,
            number: 0,
            key_index: 0,
            static_key: None,
            signed_identity: None,
            keys: KeyStore::of_phone(keys),
            mailbox: Mailbox::default(),
            conn: None,
            greeted: true,
            typing: BTreeMap::new(),
        }
    }

    pub(crate) fn companion(
        (account, number, key_index): (AccountId, DeviceId, u32),
        static_key: [u8; 32],
        registration: &Registration,
        signed_identity: Bytes,
    ) -> Self {
        Self {
            account,
            number,
            key_index,
            static_key: Some(static_key),
            signed_identity: Some(signed_identity),
            keys: KeyStore::of_companion(registration),
            mailbox: Mailbox::default(),
            conn: None,
            greeted: false,
            typing: BTreeMap::new(),
        }
    }

    /// Where its stanzas go while it is connected.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let conn = self.conn?;
        Some(Origin::Companion {
            account: self.account,
            device: self.number,
            conn,
        })
    }

    pub fn is_connected(&self) -> bool {
        self.conn.is_some()
    }

    /// What it did not confirm yet, oldest first.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Node> {
        self.mailbox.iter()
    }

    /// One-time prekeys left.
    pub fn prekeys_left(&self) -> usize {
        self.keys.one_time_count()
    }
}

impl Account {
    pub(crate) fn device_infos(&self) -> Vec<DeviceInfo> {
        let (pn, lid) = (self.pn(), self.lid_jid());
        self.devices()
            .map(|device| DeviceInfo {
                account: self.id,
                number: device.number,
                key_index: device.key_index,
                pn: pn.with_device(device.number),
                lid: lid.with_device(device.number),
                online: device.is_connected() || (device.number == 0 && self.phone_online),
                queued: device.mailbox.len(),
            })
            .collect()
    }

    pub(crate) fn key_indexes(&self) -> Vec<u32> {
        self.devices()
            .filter(|device| device.number != 0)
            .map(|device| device.key_index)
            .collect()
    }

    /// A short text that changes with the set of devices.
    pub(crate) fn device_hash(&self) -> String {
        device_hash(
            self.devices()
                .map(|device| self.pn().with_device(device.number)),
        )
    }
}

/// `2:` and the beginning of a hash over the sorted addresses, as clients compute theirs.
pub(crate) fn device_hash(devices: impl Iterator<Item = Jid>) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let mut addresses: Vec<String> = devices
        .map(|jid| format!("{}.0:{}@{}", jid.user, jid.device, jid.server.as_str()))
        .collect();
    addresses.sort_unstable();
    let digest = sha2::Sha256::digest(addresses.concat().as_bytes());
    format!(
        "2:{}",
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(&digest[..6])
    )
}

impl World {
    pub(crate) fn device(&self, account: AccountId, device: DeviceId) -> Option<&Device> {
        self.account(account)?.devices.get(&device)
    }

    pub(crate) fn device_mut(
        &mut self,
        account: AccountId,
        device: DeviceId,
    ) -> Option<&mut Device> {
        self.account_mut(account)?.devices.get_mut(&device)
    }

    /// The devices of an account, the phone first.
    pub(crate) fn device_numbers(&self, account: AccountId) -> Vec<DeviceId> {
        self.account(account)
            .map(|a| a.devices.keys().copied().collect())
            .unwrap_or_default()
    }
}

impl Turn<'_> {
    /// Adds a companion that proved its identity, and tells its siblings.
    pub(crate) fn add_device(&mut self, device: Device) {
        let (id, number) = (device.account, device.number);
        let Some(account) = self.world.account_mut(id) else {
            return;
        };
        account.devices.insert(number, device);
        self.world.counters.links += 1;
        let phone = self.world.party(Origin::Phone(id)).phone;
        self.world.transcript.note(
            self.now,
            Note::Linked {
                phone,
                device: number,
            },
        );
        self.notify_devices(id, number, "add");
        self.event(NetworkEvent::Linked {
            account: id,
            device: number,
        });
    }

    /// Removes a companion from its account. Its connection is closed with the conflict that tells a
    /// client that it was logged out.
    pub(crate) fn remove_device(&mut self, id: AccountId, number: DeviceId, by_phone: bool) {
        let Some(device) = self.world.device(id, number) else {
            return;
        };
        let origin = device.origin();
        if let Some(origin) = origin {
            let action = Action::StreamError {
                code: Some(401),
                detail: Some(StreamErrorDetail::ConflictDeviceRemoved),
                close: true,
            };
            self.disturb(origin, &action, None);
        }
        let Some(account) = self.world.account_mut(id) else {
            return;
        };
        account.devices.remove(&number);
        account.presence.forget(number);
        self.world.counters.unlinks += 1;
        let Party { phone, .. } = self.world.party(Origin::Phone(id));
        self.world.transcript.note(
            self.now,
            Note::Unlinked {
                phone,
                device: number,
            },
        );
        self.notify_devices(id, number, "remove");
        self.event(NetworkEvent::Unlinked {
            account: id,
            device: number,
            by_phone,
        });
    }

    pub(super) fn unlink_from_phone(
        &mut self,
        id: AccountId,
        number: DeviceId,
    ) -> Result<(), WorldError> {
        self.world
            .account(id)
            .ok_or(WorldError::UnknownAccount(id))?;
        if number == 0 || self.world.device(id, number).is_none() {
            return Err(WorldError::UnknownDevice {
                account: id,
                device: number,
            });
        }
        self.remove_device(id, number, true);
        Ok(())
    }

    /// Tells an account's other companions that one came or went.
    fn notify_devices(&mut self, id: AccountId, number: DeviceId, what: &'static str) {
        let Some(account) = self.world.account(id) else {
            return;
        };
        let device = Node::new("device")
            .attr("jid", account.pn().with_device(number))
            .attr("lid", account.lid_jid().with_device(number))
            .attr_opt(
                "key-index",
                account.device(number).map(|device| device.key_index),
            );
        let list = account.key_index_list_node();
        let change = Node::new(what)
            .attr("device_hash", account.device_hash())
            .child(device)
            .children(list);
        let (pn, lid) = (account.pn(), account.lid_jid());
        let others: Vec<_> = account
            .devices
            .keys()
            .copied()
            .filter(|other| *other != number && *other != 0)
            .collect();
        for other in others {
            let notice = self
                .notification("devices", &pn)
                .attr("lid", &lid)
                .child(change.clone());
            self.deliver(id, other, notice);
        }
    }

    /// A notification of the server with its own id and time.
    pub(crate) fn notification(&mut self, kind: &'static str, from: &Jid) -> Node {
        let id = self.stanza_id();
        Node::new("notification")
            .attr("from", from)
            .attr("type", kind)
            .attr("id", id)
            .attr("t", self.seconds())
    }

    /// An id for a stanza that the server itself sends.
    pub(crate) fn stanza_id(&mut self) -> String {
        self.world.next_stanza += 1;
        format!("{}.{}", self.seconds(), self.world.next_stanza)
    }
}

impl Account {
    /// `key-index-list` as device lists carry it; without one clients skip an account's companions.
    pub(crate) fn key_index_list_node(&self) -> Option<Node> {
        let (timestamp, bytes) = self.key_index_list.as_ref()?;
        Some(
            Node::new("key-index-list")
                .attr("ts", *timestamp)
                .bytes(bytes.clone()),
        )
    }

    /// The address that a peer uses for this account when it writes in the family of `server`.
    pub(crate) fn other_address(&self, server: Server) -> Jid {
        if server == Server::Lid {
            self.pn()
        } else {
            self.lid_jid()
        }
    }
}
