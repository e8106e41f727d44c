//! Rules by which stanzas and logins go wrong.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::{Answer, Body, ControlError, Failure, Place, Success, done};
use crate::faults::{FaultRule, RuleReport};
use crate::network::Network;
use crate::noise::{ChainFault, NoiseError};

/// How many rules were taken out of force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cleared {
    removed: usize,
}

/// Puts a rule in force.
#[utoipa::path(post, path = "/control/v1/faults", tag = "faults", request_body = FaultRule, responses(
    (status = 201, body = Success<RuleReport>),
    (status = 422, description = "The rule cannot be carried out; the error names the field", body = Failure),
))]
pub(super) async fn add(
    State(network): State<Network>,
    Body(rule): Body<FaultRule>,
) -> Result<(StatusCode, Json<Success<RuleReport>>), ControlError> {
    let report = network.with_world(|world, _, _| {
        let id = world.faults.add(rule)?;
        world.faults.get(id).ok_or_else(|| unknown(id))
    })?;
    Ok((StatusCode::CREATED, done(report)?))
}

/// Lists the rules in force with what each has hit.
#[utoipa::path(get, path = "/control/v1/faults", tag = "faults", responses(
    (status = 200, body = Success<Vec<RuleReport>>),
))]
pub(super) async fn list(State(network): State<Network>) -> Answer<Vec<RuleReport>> {
    done(network.with_world(|world, _, _| world.faults.list()))
}

/// Shows one rule with what it has hit.
#[utoipa::path(get, path = "/control/v1/faults/{rule}", tag = "faults",
    params(("rule" = u64, Path, description = "The rule's number")), responses(
    (status = 200, body = Success<RuleReport>),
    (status = 404, body = Failure),
))]
pub(super) async fn get(
    State(network): State<Network>,
    Place(rule): Place<u64>,
) -> Answer<RuleReport> {
    let report = network.with_world(|world, _, _| world.faults.get(rule));
    done(report.ok_or_else(|| unknown(rule))?)
}

/// Takes a rule out of force and tells what it did.
#[utoipa::path(delete, path = "/control/v1/faults/{rule}", tag = "faults",
    params(("rule" = u64, Path, description = "The rule's number")), responses(
    (status = 200, body = Success<RuleReport>),
    (status = 404, body = Failure),
))]
pub(super) async fn remove(
    State(network): State<Network>,
    Place(rule): Place<u64>,
) -> Answer<RuleReport> {
    let report = network.with_world(|world, _, _| world.faults.remove(rule));
    done(report.ok_or_else(|| unknown(rule))?)
}

/// Takes all rules out of force.
#[utoipa::path(delete, path = "/control/v1/faults", tag = "faults", responses(
    (status = 200, body = Success<Cleared>),
))]
pub(super) async fn clear(State(network): State<Network>) -> Answer<Cleared> {
    let removed = network.with_world(|world, _, _| {
        let removed = world.faults.list().len();
        world.faults.clear();
        removed
    });
    done(Cleared { removed })
}

/// How the network is to greet clients; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Handshake {
    /// Refuse IK, so that clients that remember the network's key fall back to XX.
    #[serde(default)]
    refuse_ik: Option<bool>,
    /// Change the network's static key: clients that remember the old one have to fall back.
    #[serde(default)]
    rotate_key: bool,
    /// Show a damaged certificate chain: `signature`, `issuer` or `expired`, or `sound` again.
    #[serde(default)]
    chain: Option<Chain>,
}

/// The certificate chain that clients are shown.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Chain {
    Sound,
    Signature,
    Issuer,
    Expired,
}

/// The handshake was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {}

/// Changes how the network greets clients: IK refused, another static key, a damaged chain.
#[utoipa::path(post, path = "/control/v1/handshake", tag = "faults", request_body = Handshake, responses(
    (status = 200, body = Success<Changed>),
    (status = 422, body = Failure),
))]
pub(super) async fn handshake(
    State(network): State<Network>,
    Body(body): Body<Handshake>,
) -> Answer<Changed> {
    let failed = |error: NoiseError| ControlError::conflict("refused", format!("{error}"));
    if let Some(refuse) = body.refuse_ik {
        network.refuse_ik(refuse);
    }
    if body.rotate_key {
        network.rotate_noise_key().map_err(failed)?;
    }
    if let Some(chain) = body.chain {
        let fault = match chain {
            Chain::Sound => None,
            Chain::Signature => Some(ChainFault::Signature),
            Chain::Issuer => Some(ChainFault::Issuer),
            Chain::Expired => Some(ChainFault::Expired),
        };
        network.spoil_chain(fault).map_err(failed)?;
    }
    done(Changed {})
}

fn unknown(rule: u64) -> ControlError {
    ControlError::not_found("rule_not_found", format!("there is no rule {rule}"))
}
