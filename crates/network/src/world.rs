//! The pure state of the simulated network: accounts, devices, keys, mailboxes, connections.
//!
//! A stanza from a device goes in, [`Effect`]s come out; the clock is passed in, randomness is seeded,
//! and nothing here waits, locks or touches a socket. The shell ([`crate::network`]) holds one `World`
//! under one mutex for the time of one call. Faults and the transcript are consulted at the two choke
//! points in [`turn`]: a stanza that comes in from a device and one that goes out to a device.
//!
//! Every look-up is by key; nothing scans all connections or all accounts, so that thousands of devices
//! cost what the one stanza costs.

pub mod accounts;
pub mod app_state;
mod connections;
pub mod devices;
mod event;
mod login;
pub mod mailbox;
mod offline;
mod options;
pub mod prekeys;
mod presence;
pub(crate) mod timers;
pub(crate) mod turn;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use accounts::{Account, AccountPatch, AccountSpec, AccountStatus};
pub use connections::Connection;
pub use devices::{Device, DeviceInfo};
pub use event::{Effect, Hello, NetworkEvent, WorldError};
pub use mailbox::MAILBOX_MAX;
pub use options::WorldOptions;

use crate::counters::Counters;
use crate::faults::{FaultPlan, Held};
use crate::jid::Jid;
use crate::node::{Node, Str};
use crate::pairing::{LinkCode, Links, PendingLink};
use crate::phone::{AcceptedCompanion, PhoneKeys, PrekeyBundle};
use crate::transcript::Transcript;
use timers::Timers;
use turn::{Origin, Turn};

/// One socket, numbered by the shell.
pub type ConnId = u64;

/// Milliseconds since the Unix epoch by the network's clock.
pub type Millis = i64;

/// A device of an account; 0 is the phone.
pub type DeviceId = u16;

/// An account of the network.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
pub struct AccountId(pub u32);

/// The whole network. See the module's comment.
#[derive(Debug)]
pub struct World {
    pub(crate) options: WorldOptions,
    pub(crate) rng: StdRng,
    /// The faults in force; rules are added and removed by the control API.
    pub faults: FaultPlan,
    /// What crossed.
    pub transcript: Transcript,
    pub counters: Counters,
    /// Indexed by [`AccountId`]; accounts are never removed, at most unregistered.
    pub(crate) accounts: Vec<Account>,
    pub(crate) by_phone: HashMap<Str, AccountId>,
    pub(crate) by_lid: HashMap<Str, AccountId>,
    pub(crate) connections: HashMap<ConnId, Connection>,
    pub(crate) links: Links,
    pub(crate) timers: Timers,
    /// Stanzas that a fault delays or holds back until another has overtaken them.
    pub(crate) held: Held,
    /// Numbers the ids of the server's own stanzas.
    pub(crate) next_stanza: u64,
    /// `host[:port]` of the https media host, told to clients by `media_conn`.
    pub(crate) media_host: String,
}

impl World {
    pub fn new(options: WorldOptions) -> Self {
        Self {
            rng: StdRng::seed_from_u64(options.seed),
            faults: FaultPlan::new(options.seed),
            transcript: Transcript::default(),
            counters: Counters::default(),
            accounts: Vec::new(),
            by_phone: HashMap::new(),
            by_lid: HashMap::new(),
            connections: HashMap::new(),
            links: Links::default(),
            timers: Timers::default(),
            held: Held::default(),
            next_stanza: 0,
            media_host: options.media_host.clone(),
            options,
        }
    }

    /// Tells clients where media is uploaded; the shell calls it once it knows its own port.
    pub fn set_media_host(&mut self, host: impl Into<String>) {
        self.media_host = host.into();
    }

    pub fn options(&self) -> &WorldOptions {
        &self.options
    }

    // -- connections ------------------------------------------------------------------------------

    /// Takes a connection whose handshake is over: a registration gets its QR references, a login
    /// `success` or `failure`.
    pub fn open(&mut self, now: Millis, hello: Hello, out: &mut Vec<Effect>) {
        Turn {
            world: self,
            now,
            out,
        }
        .open(hello);
    }

    /// Takes a stanza from a connection.
    pub fn receive(&mut self, now: Millis, conn: ConnId, node: Node, out: &mut Vec<Effect>) {
        Turn {
            world: self,
            now,
            out,
        }
        .receive(conn, node);
    }

    /// Forgets a connection whose socket is gone.
    pub fn closed(&mut self, now: Millis, conn: ConnId, out: &mut Vec<Effect>) {
        Turn {
            world: self,
            now,
            out,
        }
        .closed(conn);
    }

    /// Takes a stanza as if the account's phone (device 0) had sent it; the same code routes it.
    pub fn from_phone(
        &mut self,
        now: Millis,
        account: AccountId,
        node: Node,
        out: &mut Vec<Effect>,
    ) {
        Turn {
            world: self,
            now,
            out,
        }
        .inbound(Origin::phone(account), node);
    }

    /// Does what has fallen due: QR references rotate, held and delayed stanzas move on, batches go.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        Turn {
            world: self,
            now,
            out,
        }
        .tick();
    }

    /// When [`World::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Millis> {
        [self.timers.next(), self.held.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    // -- accounts -----------------------------------------------------------------------------------

    /// Adds an account whose phone has these keys.
    pub fn create_account(
        &mut self,
        now: Millis,
        spec: AccountSpec,
        keys: &PhoneKeys,
    ) -> Result<AccountId, WorldError> {
        self.add_account(now, spec, keys)
    }

    /// Changes what the control API may change: restricted, banned, unregistered, names …
    /// A ban or lock also disconnects the account's companions.
    pub fn patch_account(
        &mut self,
        now: Millis,
        account: AccountId,
        patch: AccountPatch,
        out: &mut Vec<Effect>,
    ) -> Result<(), WorldError> {
        Turn {
            world: self,
            now,
            out,
        }
        .patch_account(account, patch)
    }

    pub fn account(&self, account: AccountId) -> Option<&Account> {
        self.accounts.get(account.0 as usize)
    }

    /// All accounts in order of creation.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter()
    }

    /// Whose number this is (digits, with or without `+`).
    pub fn account_by_phone(&self, phone: &str) -> Option<&Account> {
        let id = self.by_phone.get(phone.trim_start_matches('+'))?;
        self.account(*id)
    }

    /// Who owns an address, by number or LID, with or without device. `None` for an unregistered one.
    pub fn find(&self, jid: &Jid) -> Option<&Account> {
        self.owner(jid).and_then(|id| self.account(id))
    }

    /// All devices of the owner of `jid`, the phone (0) first.
    pub fn devices(&self, jid: &Jid) -> Vec<DeviceInfo> {
        self.find(jid)
            .map(Account::device_infos)
            .unwrap_or_default()
    }

    /// How many sockets are open, registrations included.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    // -- keys ---------------------------------------------------------------------------------------

    /// A device's keys for the phone of `to`; takes one of the device's one-time prekeys, and tells the
    /// device when they run low.
    pub fn bundle(
        &mut self,
        now: Millis,
        to: AccountId,
        (account, device): (AccountId, DeviceId),
        out: &mut Vec<Effect>,
    ) -> Option<PrekeyBundle> {
        let mut turn = Turn {
            world: self,
            now,
            out,
        };
        turn.give_bundle(Origin::phone(to), account, device)
    }

    // -- linking, called for the phone ----------------------------------------------------------------

    /// Who waits with this QR reference (or pairing-code reference).
    pub fn find_qr(&self, reference: &str) -> Option<PendingLink> {
        self.pending_link(reference)
    }

    /// The newest pairing-code request for the account's number: what its phone needs to answer.
    pub fn link_code(&self, account: AccountId) -> Option<LinkCode> {
        self.pending_code(account)
    }

    /// The phone's answer to `companion_hello`: sends `primary_hello` to the companion. At most three
    /// answers within 180 s.
    pub fn link_code_primary_hello(
        &mut self,
        now: Millis,
        reference: &str,
        wrapped_primary_ephemeral: Bytes,
        primary_identity: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), WorldError> {
        Turn {
            world: self,
            now,
            out,
        }
        .primary_hello(reference, wrapped_primary_ephemeral, primary_identity)
    }

    /// The account's next key index: 1, 2, 3 …, never twice.
    pub fn next_key_index(&mut self, account: AccountId) -> u32 {
        self.take_key_index(account)
    }

    /// The key indexes in use, for the list that the phone signs.
    pub fn key_indexes(&self, account: AccountId) -> Vec<u32> {
        self.account(account)
            .map(Account::key_indexes)
            .unwrap_or_default()
    }

    /// Stores the signed key-index list that the phone made (after a companion left).
    pub fn set_key_index_list(&mut self, account: AccountId, timestamp: u64, bytes: Bytes) {
        if let Some(account) = self.accounts.get_mut(account.0 as usize) {
            account.key_index_list = Some((timestamp, bytes));
        }
    }

    /// Sends pair-success to the companion that waits under `reference`. The device exists once the
    /// companion has answered with a valid device signature: then follows [`NetworkEvent::Linked`],
    /// or else [`NetworkEvent::LinkRefused`].
    pub fn complete_link(
        &mut self,
        now: Millis,
        reference: &str,
        account: AccountId,
        companion: AcceptedCompanion,
        out: &mut Vec<Effect>,
    ) -> Result<DeviceId, WorldError> {
        Turn {
            world: self,
            now,
            out,
        }
        .pair_success(reference, account, companion)
    }

    /// Removes a companion, as its owner does on the phone: conflict `device_removed` with code 401.
    pub fn unlink(
        &mut self,
        now: Millis,
        account: AccountId,
        device: DeviceId,
        out: &mut Vec<Effect>,
    ) -> Result<(), WorldError> {
        Turn {
            world: self,
            now,
            out,
        }
        .unlink_from_phone(account, device)
    }

    // -- the phone's reachability -----------------------------------------------------------------------

    /// Takes a phone off the network or brings it back, which delivers what waited for it.
    pub fn set_phone_online(
        &mut self,
        now: Millis,
        account: AccountId,
        online: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), WorldError> {
        Turn {
            world: self,
            now,
            out,
        }
        .set_phone_online(account, online)
    }
}
