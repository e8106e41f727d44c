//! Companions: scanning a QR code, typing a pairing code, unlinking.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::accounts::find;
use super::envelope::{Answer, Body, ControlError, Failure, Place, Success, done};
use super::wait;
use crate::handle::HandleError;
use crate::network::Network;
use crate::phone::LinkError;

/// How long to wait for a companion's request unless told.
const CODE_WAIT_MS: u64 = 5_000;

/// The text of a linking QR code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scan {
    /// `ref,noise,identity,secret[,type]`, with or without a link in front.
    qr: String,
}

/// The code that a companion shows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Code {
    /// Eight characters, with or without a hyphen.
    code: String,
    /// How long to wait for a companion that asks for a code, 5000 unless told.
    #[serde(default)]
    wait_ms: Option<u64>,
}

/// A companion that was linked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Linked {
    device: u16,
}

/// A companion that was unlinked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unlinked {
    device: u16,
}

/// Scans a QR code with an account's phone. Answers when the companion has proved its identity.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/scan", tag = "links",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = Scan, responses(
    (status = 200, body = Success<Linked>),
    (status = 404, body = Failure),
    (status = 409, description = "Nobody waits with this code, or the companion refused", body = Failure),
    (status = 422, description = "Not a QR code of WhatsApp's", body = Failure),
))]
pub(super) async fn scan(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<Scan>,
) -> Answer<Linked> {
    find(&network, &phone)?;
    let device = network.phone(&phone)?.scan(&body.qr).await?;
    done(Linked { device })
}

/// Types a companion's pairing code into an account's phone. Answers when the companion has proved its
/// identity.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/code", tag = "links",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = Code, responses(
    (status = 200, body = Success<Linked>),
    (status = 404, body = Failure),
    (status = 409, description = "Nobody asked for a code, or it is wrong or expired", body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn enter_code(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<Code>,
) -> Answer<Linked> {
    let account = find(&network, &phone)?;
    let code: String = body.code.chars().filter(|c| !"- ".contains(*c)).collect();
    if code.len() != 8 || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ControlError::invalid(
            "code",
            "must be eight letters and digits",
        ));
    }
    let asks = || network.with_world(|world, _, _| world.link_code(account).map(drop));
    let wait_ms = body.wait_ms.unwrap_or(CODE_WAIT_MS);
    if wait::until(&network, Some(wait_ms), asks).await?.is_none() {
        let text = format!("no companion asks {phone} for a pairing code");
        return Err(ControlError::conflict("nobody_waits", text));
    }
    let device = network
        .phone(&phone)?
        .enter_code(&code.to_uppercase())
        .await?;
    done(Linked { device })
}

/// Unlinks a companion from its phone's list of linked devices.
#[utoipa::path(delete, path = "/control/v1/accounts/{phone}/devices/{device}", tag = "links",
    params(
        ("phone" = String, Path, description = "The number, with or without `+`"),
        ("device" = u16, Path, description = "The companion's number, from 1"),
    ), responses(
    (status = 200, body = Success<Unlinked>),
    (status = 404, body = Failure),
))]
pub(super) async fn unlink(
    State(network): State<Network>,
    Place((phone, device)): Place<(String, u16)>,
) -> Answer<Unlinked> {
    let account = find(&network, &phone)?;
    network.with_world(|world, now, out| world.unlink(now, account, device, out))?;
    done(Unlinked { device })
}

impl From<HandleError> for ControlError {
    fn from(error: HandleError) -> Self {
        let text = error.to_string();
        match error {
            HandleError::NoSuchPhone(_) => Self::not_found("account_not_found", text),
            HandleError::NotAnAddress(_) => Self::invalid("address", text),
            HandleError::World(error) => error.into(),
            HandleError::Phone(error) => error.into(),
            HandleError::Link(error) => error.into(),
            HandleError::Fault(error) => error.into(),
            HandleError::Timeout { .. } => Self::timed_out(text),
        }
    }
}

impl From<LinkError> for ControlError {
    fn from(error: LinkError) -> Self {
        let text = error.to_string();
        match error {
            LinkError::NotAQrCode(_) => Self::invalid("qr", text),
            LinkError::Unknown => Self::conflict("nobody_waits", text),
            LinkError::WrongCode => Self::conflict("wrong_code", text),
            LinkError::Bad(_) | LinkError::Keys(_) | LinkError::Refused(_) => {
                Self::conflict("refused", text)
            }
        }
    }
}
