//! Numbers and their phones.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::{Answer, Body, ControlError, Failure, Place, Success, done};
use crate::network::Network;
use crate::phone::Behaviour;
use crate::world::{Account, AccountId, AccountPatch, AccountSpec, AccountStatus, World};

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAccount {
    /// The number in digits, with or without `+`.
    phone: String,
    /// The LID's user part; drawn at random when left out.
    #[serde(default)]
    lid: Option<String>,
    #[serde(default)]
    push_name: Option<String>,
    /// Whether its chats go by LID.
    #[serde(default)]
    migrated_to_lid: bool,
    /// Makes it a business account with this verified name.
    #[serde(default)]
    business_name: Option<String>,
    /// `android` (default), `iphone`, `smba` …
    #[serde(default)]
    platform: Option<String>,
    /// What its phone does by itself.
    #[serde(default)]
    behaviour: Option<Behaviour>,
}

/// What to change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountChange {
    #[serde(default)]
    push_name: Option<String>,
    #[serde(default)]
    about: Option<String>,
    /// Banned, locked and unregistered accounts lose their connections.
    #[serde(default)]
    status: Option<AccountStatus>,
    /// May not write to people who never wrote to it (463).
    #[serde(default)]
    restricted: Option<bool>,
    #[serde(default)]
    migrated_to_lid: Option<bool>,
    /// Unanswered chats that it may begin; one more is refused with 475.
    #[serde(default)]
    new_chats_max: Option<u32>,
    /// Whether its phone is reachable.
    #[serde(default)]
    phone_online: Option<bool>,
    /// What its phone does by itself.
    #[serde(default)]
    behaviour: Option<Behaviour>,
}

/// An account as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountView {
    /// The number in digits.
    phone: String,
    /// The address by number.
    jid: String,
    /// The address by LID.
    lid: String,
    push_name: String,
    about: String,
    status: AccountStatus,
    restricted: bool,
    migrated_to_lid: bool,
    phone_online: bool,
    behaviour: Behaviour,
    /// The phone (0) and the companions.
    devices: Vec<DeviceView>,
}

/// A device as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceView {
    /// 0 is the phone.
    device: u16,
    online: bool,
    /// Stanzas that it did not confirm yet.
    queued: usize,
    /// One-time prekeys left.
    prekeys: usize,
}

/// Creates an account with its phone.
#[utoipa::path(post, path = "/control/v1/accounts", tag = "accounts", request_body = NewAccount, responses(
    (status = 201, body = Success<AccountView>),
    (status = 409, description = "The number or LID is taken", body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn create(
    State(network): State<Network>,
    Body(new): Body<NewAccount>,
) -> Result<(StatusCode, Json<Success<AccountView>>), ControlError> {
    let spec = AccountSpec {
        phone: new.phone,
        lid: new.lid,
        push_name: new.push_name,
        migrated_to_lid: new.migrated_to_lid,
        business_name: new.business_name,
        platform: new.platform,
    };
    let id = network.create_account(spec)?;
    if let Some(behaviour) = new.behaviour {
        network.with_phone(id, |phone, _, _| phone.set_behaviour(behaviour));
    }
    Ok((StatusCode::CREATED, done(view(&network, id)?)?))
}

/// Lists all accounts in order of creation.
#[utoipa::path(get, path = "/control/v1/accounts", tag = "accounts", responses(
    (status = 200, body = Success<Vec<AccountView>>),
))]
pub(super) async fn list(State(network): State<Network>) -> Answer<Vec<AccountView>> {
    let ids: Vec<AccountId> =
        network.with_world(|world, _, _| world.accounts().map(|account| account.id).collect());
    let views: Result<Vec<_>, _> = ids.into_iter().map(|id| view(&network, id)).collect();
    done(views?)
}

/// Shows one account.
#[utoipa::path(get, path = "/control/v1/accounts/{phone}", tag = "accounts",
    params(("phone" = String, Path, description = "The number, with or without `+`")), responses(
    (status = 200, body = Success<AccountView>),
    (status = 404, body = Failure),
))]
pub(super) async fn get(
    State(network): State<Network>,
    Place(phone): Place<String>,
) -> Answer<AccountView> {
    let id = find(&network, &phone)?;
    done(view(&network, id)?)
}

/// Changes an account or its phone: state, names, reachability, behaviour.
#[utoipa::path(patch, path = "/control/v1/accounts/{phone}", tag = "accounts",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = AccountChange, responses(
    (status = 200, body = Success<AccountView>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn patch(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(change): Body<AccountChange>,
) -> Answer<AccountView> {
    let id = find(&network, &phone)?;
    let patch = AccountPatch {
        push_name: change.push_name.clone(),
        about: change.about,
        status: change.status,
        restricted: change.restricted,
        migrated_to_lid: change.migrated_to_lid,
        new_chats_max: change.new_chats_max,
    };
    network.with_world(|world, now, out| {
        world.patch_account(now, id, patch, out)?;
        match change.phone_online {
            Some(online) => world.set_phone_online(now, id, online, out),
            None => Ok(()),
        }
    })?;
    network.with_phone(id, |phone, _, _| {
        if let Some(behaviour) = change.behaviour {
            phone.set_behaviour(behaviour);
        }
        if let Some(name) = change.push_name {
            phone.set_push_name(name);
        }
    });
    done(view(&network, id)?)
}

/// Whose number this is.
pub(super) fn find(network: &Network, phone: &str) -> Result<AccountId, ControlError> {
    let find = |world: &mut World| world.account_by_phone(phone).map(|account| account.id);
    network
        .with_world(|world, _, _| find(world))
        .ok_or_else(|| {
            ControlError::not_found("account_not_found", format!("there is no account {phone}"))
        })
}

fn view(network: &Network, id: AccountId) -> Result<AccountView, ControlError> {
    let behaviour = network
        .with_phone(id, |phone, _, _| phone.behaviour().clone())
        .unwrap_or_default();
    network
        .with_world(|world, _, _| world.account(id).map(|account| show(account, behaviour)))
        .ok_or_else(|| ControlError::not_found("account_not_found", "the account is gone"))
}

fn show(account: &Account, behaviour: Behaviour) -> AccountView {
    let devices = account.devices().map(|device| DeviceView {
        device: device.number,
        online: device.is_connected() || (device.number == 0 && account.phone_online),
        queued: device.unconfirmed().count(),
        prekeys: device.prekeys_left(),
    });
    AccountView {
        phone: account.phone.to_string(),
        jid: account.pn().to_string(),
        lid: account.lid_jid().to_string(),
        push_name: account.push_name.clone(),
        about: account.about.clone(),
        status: account.status.clone(),
        restricted: account.restricted,
        migrated_to_lid: account.migrated_to_lid,
        phone_online: account.phone_online,
        behaviour,
        devices: devices.collect(),
    }
}
