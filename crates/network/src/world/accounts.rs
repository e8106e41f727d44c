//! Accounts: who they are, what state they are in, what their owner has set.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app_state::Collections;
use super::devices::Device;
use super::presence::PresenceState;
use super::turn::Turn;
use super::{AccountId, DeviceId, Millis, World, WorldError};
use crate::faults::Action;
use crate::jid::{Jid, Server};
use crate::node::Str;
use crate::phone::PhoneKeys;

/// What makes an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSpec {
    /// The number in digits, with or without `+`.
    pub phone: String,
    /// The LID's user part; drawn at random when left out.
    pub lid: Option<String>,
    pub push_name: Option<String>,
    /// Whether the chats of this account go by LID, as WhatsApp migrates accounts.
    pub migrated_to_lid: bool,
    /// A WhatsApp Business account with this verified name.
    pub business_name: Option<String>,
    /// What kind of phone: `android` (default), `iphone`, `smba` …
    pub platform: Option<String>,
}

/// Whether an account can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AccountStatus {
    #[default]
    Active,
    /// Logins fail with 402; `code` is 101 to 106, `expire` in seconds.
    Banned { code: u16, expire: u32 },
    /// Logins fail with 403.
    Locked,
    /// The number is not on WhatsApp: nobody finds it, logins fail with 401.
    Unregistered,
}

/// Changes to an account; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccountPatch {
    pub push_name: Option<String>,
    pub about: Option<String>,
    pub status: Option<AccountStatus>,
    /// A restricted account may not write to people who never wrote to it (463), save with a token.
    pub restricted: Option<bool>,
    pub migrated_to_lid: Option<bool>,
    /// Unanswered chats that it may begin; one more is refused with 475.
    pub new_chats_max: Option<u32>,
}

/// One account with its phone, companions and settings.
#[derive(Debug)]
pub struct Account {
    pub id: AccountId,
    /// Digits only.
    pub phone: Str,
    pub lid: Str,
    pub push_name: String,
    pub about: String,
    pub about_set_at: Millis,
    pub business_name: Option<String>,
    pub platform: String,
    pub migrated_to_lid: bool,
    pub status: AccountStatus,
    pub restricted: bool,
    pub new_chats_max: Option<u32>,
    pub created_at: Millis,
    /// The profile picture's id and its bytes.
    pub picture: Option<(u64, Bytes)>,
    /// The phone's identity key.
    pub identity: [u8; 32],
    /// Timestamp and bytes of the signed list that the phone made last.
    pub key_index_list: Option<(u64, Bytes)>,
    pub phone_online: bool,
    /// By device number; 0 is the phone.
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) next_device: DeviceId,
    pub(crate) next_key_index: u32,
    pub(crate) blocked: BTreeSet<AccountId>,
    pub(crate) privacy: BTreeMap<Str, Str>,
    pub(crate) collections: Collections,
    pub(crate) presence: PresenceState,
    /// Who wrote to this account: it may answer them although it is restricted.
    pub(crate) wrote_here: BTreeSet<AccountId>,
    /// Whom it wrote to without an answer so far.
    pub(crate) unanswered: BTreeSet<AccountId>,
    /// Privacy tokens that this account gave: who may show which bytes, and since when.
    pub(crate) tokens_given: HashMap<AccountId, (Bytes, i64)>,
}

/// Privacy settings of a new account: category and value.
const PRIVACY: [(&str, &str); 8] = [
    ("calladd", "all"),
    ("groupadd", "all"),
    ("last", "all"),
    ("messages", "all"),
    ("online", "all"),
    ("profile", "all"),
    ("readreceipts", "all"),
    ("status", "contacts"),
];

impl Account {
    /// The address by number, without device.
    pub fn pn(&self) -> Jid {
        Jid {
            user: self.phone.clone(),
            server: Server::Pn,
            device: 0,
        }
    }

    /// The address by LID, without device.
    pub fn lid_jid(&self) -> Jid {
        Jid {
            user: self.lid.clone(),
            server: Server::Lid,
            device: 0,
        }
    }

    /// The address of a device in the family of `like`.
    pub fn address(&self, like: Server, device: DeviceId) -> Jid {
        let bare = if like == Server::Lid {
            self.lid_jid()
        } else {
            self.pn()
        };
        Jid { device, ..bare }
    }

    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        self.devices.get(&device)
    }

    /// The phone first, then the companions.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    pub fn is_registered(&self) -> bool {
        self.status != AccountStatus::Unregistered
    }

    /// Whether some device of it is connected as available.
    pub fn is_available(&self) -> bool {
        self.presence.available.iter().next().is_some()
    }

    pub fn has_blocked(&self, other: AccountId) -> bool {
        self.blocked.contains(&other)
    }
}

impl World {
    pub(super) fn add_account(
        &mut self,
        now: Millis,
        spec: AccountSpec,
        keys: &PhoneKeys,
    ) -> Result<AccountId, WorldError> {
        let phone = spec.phone.trim_start_matches('+').to_owned();
        if !(5..=15).contains(&phone.len()) || !phone.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WorldError::BadPhone(spec.phone));
        }
        let phone: Str = phone.into();
        if self.by_phone.contains_key(&phone) {
            return Err(WorldError::Taken(phone.into_owned()));
        }
        let lid = match spec.lid {
            Some(lid) if self.by_lid.contains_key(lid.as_str()) => {
                return Err(WorldError::Taken(lid));
            }
            Some(lid) => lid.into(),
            None => self.draw_lid(),
        };
        let index = u32::try_from(self.accounts.len()).unwrap_or(u32::MAX);
        let id = AccountId(index);
        self.by_phone.insert(phone.clone(), id);
        self.by_lid.insert(lid.clone(), id);
        let mut devices = BTreeMap::new();
        devices.insert(0, Device::phone(id, keys));
        self.accounts.push(Account {
            id,
            push_name: spec.push_name.unwrap_or_default(),
            about: "Hey there! I am using WhatsApp.".to_owned(),
            about_set_at: now,
            platform: spec.platform.unwrap_or_else(|| {
                if spec.business_name.is_some() {
                    "smba"
                } else {
                    "android"
                }
                .to_owned()
            }),
            business_name: spec.business_name,
            migrated_to_lid: spec.migrated_to_lid,
            status: AccountStatus::Active,
            restricted: false,
            new_chats_max: None,
            created_at: now,
            picture: None,
            identity: keys.identity,
            key_index_list: None,
            phone_online: true,
            devices,
            next_device: 1,
            next_key_index: 1,
            blocked: BTreeSet::new(),
            privacy: PRIVACY
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            collections: Collections::default(),
            presence: PresenceState::default(),
            wrote_here: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            tokens_given: HashMap::new(),
            phone,
            lid,
        });
        Ok(id)
    }

    fn draw_lid(&mut self) -> Str {
        loop {
            let drawn = self
                .rng
                .random_range(100_000_000_000_000_u64..1_000_000_000_000_000);
            let lid: Str = drawn.to_string().into();
            if !self.by_lid.contains_key(&lid) {
                return lid;
            }
        }
    }

    /// Whose address this is; an unregistered account owns none.
    pub(crate) fn owner(&self, jid: &Jid) -> Option<AccountId> {
        let id = *match jid.server {
            Server::Pn | Server::Legacy => self.by_phone.get(&jid.user)?,
            Server::Lid => self.by_lid.get(&jid.user)?,
            _ => return None,
        };
        self.account(id)?.is_registered().then_some(id)
    }

    pub(crate) fn account_mut(&mut self, account: AccountId) -> Option<&mut Account> {
        self.accounts.get_mut(account.0 as usize)
    }

    pub(super) fn take_key_index(&mut self, account: AccountId) -> u32 {
        self.account_mut(account).map_or(0, |account| {
            let index = account.next_key_index;
            account.next_key_index += 1;
            index
        })
    }
}

impl Turn<'_> {
    pub(super) fn patch_account(
        &mut self,
        id: AccountId,
        patch: AccountPatch,
    ) -> Result<(), WorldError> {
        let now = self.now;
        let account = self
            .world
            .account_mut(id)
            .ok_or(WorldError::UnknownAccount(id))?;
        if let Some(push_name) = patch.push_name {
            account.push_name = push_name;
        }
        if let Some(about) = patch.about {
            account.about = about;
            account.about_set_at = now;
        }
        if let Some(restricted) = patch.restricted {
            account.restricted = restricted;
        }
        if let Some(migrated) = patch.migrated_to_lid {
            account.migrated_to_lid = migrated;
        }
        if let Some(max) = patch.new_chats_max {
            account.new_chats_max = Some(max);
        }
        if let Some(status) = patch.status {
            account.status = status;
            self.enforce_status(id);
        }
        Ok(())
    }

    /// Disconnects the companions of an account that can no longer be used; each learns why when it
    /// logs in again. With the number its companions are gone, too.
    fn enforce_status(&mut self, id: AccountId) {
        let Some(account) = self.world.account(id) else {
            return;
        };
        if account.status == AccountStatus::Active {
            return;
        }
        if account.status == AccountStatus::Unregistered {
            for number in self.world.device_numbers(id) {
                if number != 0 {
                    self.remove_device(id, number, true);
                }
            }
            return;
        }
        let action = Action::StreamError {
            code: Some(503),
            detail: None,
            close: true,
        };
        let connected: Vec<_> = account.devices().filter_map(Device::origin).collect();
        for origin in connected {
            self.disturb(origin, &action, None);
        }
    }
}
