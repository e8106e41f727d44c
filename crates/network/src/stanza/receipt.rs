//! `receipt`: a device says that a message arrived, was read, or must be sent again.
//!
//! The server acknowledges it, takes the message out of the device's mailbox, and tells the author's
//! devices. A retry goes to the one device that can encrypt again, and leaves the message in the mailbox:
//! clients acknowledge it besides (the library's `handle_decrypt_failure` says that a retry alone does
//! not clear the queue).

use crate::jid::Jid;
use crate::node::{Node, Value};
use crate::stanza::server_ack;
use crate::world::turn::{Origin, Turn};
use crate::world::{AccountId, DeviceId};

/// Whom a receipt concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Only the server: it is acknowledged and goes no further.
    Server,
    /// The one device that encrypted the message.
    Device,
    /// All devices of the author.
    Author,
    /// The author's devices, and the reader's own other devices, which mark the chat as read.
    AuthorAndSelf,
    /// Only the reader's own other devices.
    OwnDevices,
}

fn route(kind: Option<&str>) -> Route {
    match kind {
        Some("retry") => Route::Device,
        Some("read" | "played") => Route::AuthorAndSelf,
        Some("read-self" | "played-self") => Route::OwnDevices,
        Some("peer_msg" | "hist_sync" | "sender" | "server-error" | "enc_rekey_retry") => {
            Route::Server
        }
        _ => Route::Author,
    }
}

/// Takes what a receipt names out of the device's mailbox.
fn confirm(turn: &mut Turn<'_>, origin: Origin, id: &str, node: &Node) {
    turn.confirm(origin, "message", id, node);
    let list = node.find("list");
    let items = list.iter().flat_map(|list| list.all("item"));
    for further in items.filter_map(|item| item.get("id")) {
        turn.confirm(origin, "message", &further, node);
    }
}

pub(crate) fn handle(turn: &mut Turn<'_>, origin: Origin, node: &Node) {
    let (Some((account, device)), Some(id), Some(to)) =
        (origin.who(), node.get("id"), node.jid("to"))
    else {
        turn.protocol_error(origin, "receipt without id or to");
        return;
    };
    turn.world.counters.receipts_in += 1;
    let route = route(node.get("type").as_deref());
    if route != Route::Device {
        confirm(turn, origin, &id, node);
    }
    let ack = server_ack("receipt", node).attr_opt("type", node.value("type").cloned());
    turn.emit(origin, ack);

    let Some(author) = turn.world.owner(&to) else {
        return;
    };
    let receipt = Receipt {
        node,
        to: &to,
        account,
        device,
        author,
    };
    match route {
        Route::Server => {}
        Route::Device => {
            turn.world.counters.retries += 1;
            receipt.forward_to(turn, to.device);
        }
        // One's own message to oneself: nobody else to tell.
        _ if author == account => {}
        Route::Author => receipt.forward(turn),
        Route::AuthorAndSelf => {
            receipt.forward(turn);
            receipt.tell_own_devices(turn);
        }
        Route::OwnDevices => receipt.tell_own_devices(turn),
    }
}

struct Receipt<'a> {
    node: &'a Node,
    to: &'a Jid,
    account: AccountId,
    device: DeviceId,
    author: AccountId,
}

impl Receipt<'_> {
    fn forward(&self, turn: &mut Turn<'_>) {
        for number in turn.world.device_numbers(self.author) {
            self.forward_to(turn, number);
        }
    }

    fn forward_to(&self, turn: &mut Turn<'_>, number: DeviceId) {
        // A retry is answered to the device that asks, so it must say which one it is.
        let retry = self.node.get("type").as_deref() == Some("retry");
        let named = retry || turn.world.options().receipt_from_device;
        let Some(reader) = turn.world.account(self.account) else {
            return;
        };
        let from = reader.address(self.to.server, if named { self.device } else { 0 });
        let forwarded = self.copy(turn, from, self.node.value("type").cloned());
        turn.world.counters.receipts_forwarded += 1;
        turn.deliver(self.author, number, forwarded);
    }

    /// Tells the reader's other devices that the chat was read here.
    fn tell_own_devices(&self, turn: &mut Turn<'_>) {
        let played = self
            .node
            .get("type")
            .is_some_and(|kind| kind.starts_with("played"));
        let kind = if played { "played-self" } else { "read-self" };
        let Some(reader) = turn.world.account(self.account) else {
            return;
        };
        let from = reader.address(self.to.server, 0);
        let mut copy = self.copy(turn, from, Some(Value::from(kind)));
        copy.set("recipient", self.to.bare());
        for number in turn.world.device_numbers(self.account) {
            if number != self.device {
                turn.deliver(self.account, number, copy.clone());
            }
        }
    }

    fn copy(&self, turn: &Turn<'_>, from: Jid, kind: Option<Value>) -> Node {
        Node::new("receipt")
            .attr("from", from)
            .attr_opt("id", self.node.value("id").cloned())
            .attr("t", turn.seconds())
            .attr_opt("type", kind)
            .attr_opt("participant", self.node.value("participant").cloned())
            .attr_opt("recipient", self.node.value("recipient").cloned())
            .children(self.node.nodes().iter().cloned())
    }
}
