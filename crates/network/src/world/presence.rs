//! Who is available, who wants to know, and who types.

use std::collections::BTreeSet;

use super::turn::{Origin, Turn};
use super::{AccountId, DeviceId, Millis};
use crate::jid::Server;
use crate::node::Node;

/// The presence of one account. Subscriptions belong to devices and outlive their connections.
#[derive(Debug, Default)]
pub(crate) struct PresenceState {
    pub(crate) available: BTreeSet<DeviceId>,
    pub(crate) last_seen: Option<Millis>,
    /// Who is told, and in which family of addresses they asked.
    subscribers: BTreeSet<(AccountId, DeviceId, Server)>,
}

impl PresenceState {
    pub(crate) fn forget(&mut self, device: DeviceId) {
        self.available.remove(&device);
    }
}

impl Turn<'_> {
    /// A device became available or not; subscribers hear of it when the account's state changes.
    pub(crate) fn set_available(&mut self, id: AccountId, number: DeviceId, available: bool) {
        let now = self.now;
        let Some(account) = self.world.account_mut(id) else {
            return;
        };
        let presence = &mut account.presence;
        let before = !presence.available.is_empty();
        if available {
            presence.available.insert(number);
        } else {
            presence.available.remove(&number);
        }
        let after = !presence.available.is_empty();
        if before == after {
            return;
        }
        presence.last_seen = Some(now);
        let subscribers: Vec<_> = presence.subscribers.iter().copied().collect();
        for (who, device, server) in subscribers {
            self.tell_presence(id, who, device, server);
        }
    }

    /// Subscribes a device to an account's presence and tells it the present state.
    pub(crate) fn subscribe(&mut self, origin: Origin, target: AccountId, server: Server) {
        let Some((who, device)) = origin.who() else {
            return;
        };
        let Some(account) = self.world.account_mut(target) else {
            return;
        };
        account.presence.subscribers.insert((who, device, server));
        self.tell_presence(target, who, device, server);
    }

    pub(crate) fn unsubscribe(&mut self, origin: Origin, target: AccountId) {
        let Some((who, device)) = origin.who() else {
            return;
        };
        if let Some(account) = self.world.account_mut(target) {
            account
                .presence
                .subscribers
                .retain(|(a, d, _)| (*a, *d) != (who, device));
        }
    }

    fn tell_presence(&mut self, of: AccountId, who: AccountId, device: DeviceId, server: Server) {
        let Some(account) = self.world.account(of) else {
            return;
        };
        if account.has_blocked(who) {
            return;
        }
        let hidden = |category: &str| account.privacy.get(category).is_some_and(|v| v == "none");
        let available = account.is_available() && !hidden("online");
        let kind = if available {
            "available"
        } else {
            "unavailable"
        };
        let mut node = Node::new("presence")
            .attr("from", account.address(server, 0))
            .attr("type", kind);
        if !available {
            let last = match account.presence.last_seen {
                Some(seen) if !hidden("last") => seen.div_euclid(1_000).to_string(),
                _ => "deny".to_owned(),
            };
            node.set("last", last);
        }
        self.send(who, device, node);
    }

    /// Passes a typing state on to an account's devices; who is away gets it if they return within a
    /// few seconds.
    pub(crate) fn typing(&mut self, from: AccountId, to: AccountId, node: &Node) {
        let until = self.now + self.world.options.chatstate_ttl_ms;
        for number in self.world.device_numbers(to) {
            let live = self.world.is_live(to, number);
            if live {
                self.send(to, number, node.clone());
            } else if let Some(device) = self.world.device_mut(to, number) {
                device.typing.insert(from, (until, node.clone()));
            }
        }
    }

    /// Sends the typing states that are still fresh to a device that has come back.
    pub(super) fn deliver_typing(&mut self, account: AccountId, number: DeviceId) {
        let Some(device) = self.world.device_mut(account, number) else {
            return;
        };
        let waiting = std::mem::take(&mut device.typing);
        for (until, node) in waiting.into_values() {
            if self.now < until {
                self.send(account, number, node);
            }
        }
    }
}

impl super::World {
    /// Whether a device takes live stanzas at this moment.
    pub(crate) fn is_live(&self, account: AccountId, number: DeviceId) -> bool {
        let Some(owner) = self.account(account) else {
            return false;
        };
        if number == 0 {
            return owner.phone_online;
        }
        owner
            .device(number)
            .and_then(|device| self.connections.get(&device.conn?))
            .is_some_and(|connection| connection.live && !connection.silent)
    }
}
