//! `ib`: hints of a device about its session. Only the request for the next batch needs an answer.

use crate::node::Node;
use crate::world::turn::{Origin, Turn};

/// Stanzas in a batch when the client does not say how many.
const BATCH: usize = 100;

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let (Origin::Companion { conn, .. }, Some(request)) = (origin, node.find("offline_batch"))
    else {
        return;
    };
    let count = request
        .number("count")
        .and_then(|count| usize::try_from(count).ok());
    turn.continue_offline(conn, count.unwrap_or(BATCH));
}
