//! What happened, whether it was right, and the network's own state.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::{Answer, Body, ControlError, Failure, Params, Success, done};
use super::wait;
use crate::check::Report;
use crate::counters::Counters;
use crate::network::Network;
use crate::transcript::Entry;

/// The most entries that one answer holds.
const ENTRIES_MAX: usize = 10_000;

/// The farthest that one request moves the clock: ten years.
const FARTHEST_MS: i64 = 315_360_000_000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TranscriptParams {
    /// Entries after this number; the header `x-last-seq` of an answer says where to go on.
    #[serde(default)]
    after: u64,
    /// At most so many, 10000 unless told.
    limit: Option<usize>,
    /// Wait until there is one, at most so long (60000).
    wait_ms: Option<u64>,
}

/// Reads what crossed the network, one JSON object a line, oldest first.
#[utoipa::path(get, path = "/control/v1/transcript", tag = "evidence", params(TranscriptParams), responses(
    (status = 200, description = "JSON lines", body = Entry, content_type = "application/x-ndjson",
        headers(("x-last-seq" = u64, description = "The number of the newest entry there is"))),
    (status = 422, body = Failure),
))]
pub(super) async fn transcript(
    State(network): State<Network>,
    Params(params): Params<TranscriptParams>,
) -> Result<Response, ControlError> {
    let limit = params.limit.unwrap_or(ENTRIES_MAX);
    if !(1..=ENTRIES_MAX).contains(&limit) {
        return Err(ControlError::invalid(
            "limit",
            format!("must lie between 1 and {ENTRIES_MAX}"),
        ));
    }
    let read = || {
        network.with_world(|world, _, _| {
            let transcript = &world.transcript;
            let lines = transcript.json_lines(params.after, limit);
            (!lines.is_empty()).then(|| (lines, transcript.last_seq()))
        })
    };
    let (lines, last) = wait::until(&network, params.wait_ms, read)
        .await?
        .unwrap_or((String::new(), params.after));
    let headers = [
        (CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned()),
        ("x-last-seq", last.to_string()),
    ];
    Ok((headers, lines).into_response())
}

/// Shows totals since the start or the last reset.
#[utoipa::path(get, path = "/control/v1/counters", tag = "evidence", responses(
    (status = 200, body = Success<Counters>),
))]
pub(super) async fn counters(State(network): State<Network>) -> Answer<Counters> {
    done(network.with_world(|world, _, _| world.counters))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) struct CheckParams {
    /// `json` (the default), or `text` for a reader.
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    #[default]
    Json,
    Text,
}

/// Judges the transcript: nothing shown twice, in order, nothing lost, no key used twice.
///
/// The answer is 200 whether or not promises were broken; `data.ok` tells.
#[utoipa::path(get, path = "/control/v1/check", tag = "evidence", params(CheckParams), responses(
    (status = 200, body = Success<Report>),
))]
pub(super) async fn check(
    State(network): State<Network>,
    Params(params): Params<CheckParams>,
) -> Result<Response, ControlError> {
    let report = network.with_world(|world, _, _| world.check());
    Ok(match params.format {
        Format::Json => done(report)?.into_response(),
        Format::Text => report.to_string().into_response(),
    })
}

/// Forgets faults, transcript and counters. Accounts, links and queues stay.
#[utoipa::path(post, path = "/control/v1/reset", tag = "evidence", responses(
    (status = 200, body = Success<Counters>),
))]
pub(super) async fn reset(State(network): State<Network>) -> Answer<Counters> {
    done(network.with_world(|world, _, _| {
        world.faults.clear();
        world.transcript.clear();
        world.counters.reset();
        world.counters
    }))
}

/// What a health check gets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`
    status: &'static str,
    accounts: usize,
    connections: usize,
}

/// Tells that the network runs.
#[utoipa::path(get, path = "/control/v1/health", tag = "network", responses(
    (status = 200, body = Success<Health>),
))]
pub(super) async fn health(State(network): State<Network>) -> Answer<Health> {
    done(network.with_world(|world, _, _| Health {
        status: "ok",
        accounts: world.accounts().count(),
        connections: world.connection_count(),
    }))
}

/// Where the network is and whom clients must trust.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Addresses {
    /// For clients without TLS.
    ws_url: String,
    /// For clients with TLS; trust `tls_ca_pem`.
    wss_url: String,
    http_url: String,
    /// The key that signs the Noise certificate chain, in hex: what a client pins.
    noise_root_public: String,
    /// The authority that signs the TLS certificate.
    tls_ca_pem: String,
}

/// Tells where the network is and which keys a client must pin.
#[utoipa::path(get, path = "/control/v1/network", tag = "network", responses(
    (status = 200, body = Success<Addresses>),
))]
pub(super) async fn network(State(network): State<Network>) -> Answer<Addresses> {
    done(Addresses {
        ws_url: network.ws_url(),
        wss_url: network.wss_url(),
        http_url: network.http_url(),
        noise_root_public: hex::encode(network.noise_root_public()),
        tls_ca_pem: network.tls_ca_pem().to_owned(),
    })
}

/// The network's time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Time {
    /// Milliseconds since the Unix epoch.
    now_ms: i64,
}

/// How far to move the network's time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Advance {
    /// Milliseconds; negative moves it back.
    advance_ms: i64,
}

/// Tells the network's time.
#[utoipa::path(get, path = "/control/v1/clock", tag = "network", responses(
    (status = 200, body = Success<Time>),
))]
pub(super) async fn clock(State(network): State<Network>) -> Answer<Time> {
    done(network.with_world(|_, now, _| Time { now_ms: now }))
}

/// Moves the network's time. What falls due by that happens at once.
#[utoipa::path(post, path = "/control/v1/clock", tag = "network", request_body = Advance, responses(
    (status = 200, body = Success<Time>),
    (status = 422, body = Failure),
))]
pub(super) async fn advance(
    State(network): State<Network>,
    Body(body): Body<Advance>,
) -> Result<Json<Success<Time>>, ControlError> {
    if !(-FARTHEST_MS..=FARTHEST_MS).contains(&body.advance_ms) {
        let reason = format!("at most {FARTHEST_MS} either way");
        return Err(ControlError::invalid("advance_ms", reason));
    }
    network.advance(body.advance_ms);
    done(network.with_world(|_, now, _| Time { now_ms: now }))
}
