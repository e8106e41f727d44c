//! The control API: what a person would do with a phone in hand, and what a test wants to break or see.
//!
//! HTTP and JSON under `/control/v1`, on the network's own port, described by `OpenAPI` at
//! `/control/openapi.json`. Success is `{"success": true, "data": …}`, failure `{"success": false,
//! "error": "…", "code": "…"}` with the offending field by name. No authentication: the network is a
//! test double and listens on loopback unless told otherwise.

mod accounts;
mod chats;
mod envelope;
mod evidence;
mod faults;
mod links;
mod wait;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use envelope::{ControlError, Failure, Success};

use crate::network::Network;

/// The document's head; paths come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Simulated WhatsApp network: control API",
        description = "Phones, faults and evidence of the simulated network. For tests only: there is no authentication.",
        license(name = "AGPL-3.0-only", identifier = "AGPL-3.0-only"),
    ),
    tags(
        (name = "accounts", description = "Numbers and their phones"),
        (name = "links", description = "Companions: linking and unlinking"),
        (name = "chats", description = "What a phone's owner does and sees"),
        (name = "faults", description = "What goes wrong, and when"),
        (name = "evidence", description = "What happened, and whether it was right"),
        (name = "network", description = "The network itself"),
    )
)]
#[derive(Debug)]
struct Head;

/// Everything under `/control`, to be mounted on the network's port.
pub fn router(network: Network) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route(
            "/control/openapi.json",
            get(move || std::future::ready(Json(document.clone()))),
        )
        .fallback(envelope::no_such_path)
        .method_not_allowed_fallback(envelope::wrong_method)
        .with_state(network)
}

/// The `OpenAPI` document, for whoever wants it without a running network.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Network> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(accounts::list, accounts::create))
        .routes(routes!(accounts::get, accounts::patch))
        .routes(routes!(links::scan))
        .routes(routes!(links::enter_code))
        .routes(routes!(links::unlink))
        .routes(routes!(chats::send))
        .routes(routes!(chats::screen))
        .routes(routes!(chats::read))
        .routes(routes!(chats::typing))
        .routes(routes!(chats::lose_keys))
        .routes(routes!(chats::presence))
        .routes(routes!(chats::block))
        .routes(routes!(faults::list, faults::add, faults::clear))
        .routes(routes!(faults::get, faults::remove))
        .routes(routes!(faults::handshake))
        .routes(routes!(evidence::transcript))
        .routes(routes!(evidence::counters))
        .routes(routes!(evidence::check))
        .routes(routes!(evidence::reset))
        .routes(routes!(evidence::health))
        .routes(routes!(evidence::network))
        .routes(routes!(evidence::clock, evidence::advance))
}

#[cfg(test)]
mod tests;
