//! Delivery to devices, and what waited for them: `offline_preview`, the queued stanzas in batches, then
//! `offline`. Live stanzas that arrive meanwhile join the queue's end, so that order holds (MP-4).

use super::timers::Timer;
use super::turn::{Origin, Turn};
use super::{AccountId, ConnId, DeviceId, NetworkEvent, WorldError};
use crate::jid::Jid;
use crate::node::Node;

/// How far the delivery of a queue is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drain {
    sent: u64,
}

impl Turn<'_> {
    /// Delivers a stanza that must arrive: at once, or after the device's next login.
    pub(crate) fn deliver(&mut self, account: AccountId, number: DeviceId, node: Node) {
        let message = node.is("message");
        let delivered = if number == 0 {
            self.deliver_to_phone(account, node)
        } else {
            self.deliver_to_companion(account, number, node)
        };
        if message {
            match delivered {
                true => self.world.counters.copies_delivered += 1,
                false => self.world.counters.copies_queued += 1,
            }
        }
    }

    fn deliver_to_phone(&mut self, account: AccountId, node: Node) -> bool {
        let Some(owner) = self.world.account_mut(account) else {
            return false;
        };
        if owner.phone_online {
            self.emit(Origin::Phone(account), node);
            return true;
        }
        if let Some(phone) = owner.devices.get_mut(&0) {
            phone.mailbox.push(node);
        }
        false
    }

    fn deliver_to_companion(&mut self, account: AccountId, number: DeviceId, node: Node) -> bool {
        let Some(device) = self.world.device(account, number) else {
            return false;
        };
        let live = device
            .origin()
            .filter(|_| self.world.is_live(account, number));
        let Some(device) = self.world.device_mut(account, number) else {
            return false;
        };
        let dropped = device.mailbox.dropped;
        // Kept until it is confirmed, although it goes out now: the connection may break before.
        let copy = live.map(|origin| (origin, node.clone()));
        device.mailbox.push(node);
        if copy.is_some() {
            device.mailbox.mark_all_sent();
        }
        if device.mailbox.dropped != dropped {
            if dropped == 0 {
                tracing::warn!(
                    device = number,
                    "a device's mailbox is full, its oldest stanzas are dropped"
                );
            }
            self.world.counters.mailbox_dropped += 1;
        }
        let Some((origin, node)) = copy else {
            return false;
        };
        self.emit(origin, node);
        true
    }

    /// Sends a stanza to a device if it is there, else to nobody.
    pub(crate) fn send(&mut self, account: AccountId, number: DeviceId, node: Node) {
        let Some(owner) = self.world.account(account) else {
            return;
        };
        if number == 0 {
            if owner.phone_online {
                self.emit(Origin::Phone(account), node);
            }
            return;
        }
        if let Some(origin) = owner.device(number).and_then(super::Device::origin) {
            self.emit(origin, node);
        }
    }

    /// Starts the delivery of what waited; the client takes it as the end of its login.
    pub(crate) fn begin_offline(&mut self, conn: ConnId) {
        let Some(connection) = self.world.connections.get_mut(&conn) else {
            return;
        };
        let Some((account, number)) = connection.login else {
            return;
        };
        if connection.live || connection.drain.is_some() {
            return;
        }
        connection.drain = Some(Drain::default());
        let Some(device) = self.world.device(account, number) else {
            return;
        };
        let mailbox = &device.mailbox;
        let preview = Node::new("offline_preview")
            .attr("count", mailbox.unsent())
            .attr("message", mailbox.unsent_of("message"))
            .attr("notification", mailbox.unsent_of("notification"))
            .attr("receipt", mailbox.unsent_of("receipt"))
            .attr("appdata", 0_u32)
            .attr("call", mailbox.unsent_of("call"));
        let origin = Origin::Companion {
            account,
            device: number,
            conn,
        };
        self.emit(origin, info(preview));
        let primer = self.world.options.offline_primer.unwrap_or(usize::MAX);
        self.continue_offline(conn, primer);
    }

    /// Sends up to `count` more of the queue.
    pub(crate) fn continue_offline(&mut self, conn: ConnId, count: usize) {
        for _ in 0..count {
            let Some(connection) = self.world.connections.get_mut(&conn) else {
                return;
            };
            let (Some((account, number)), Some(drain)) =
                (connection.login, connection.drain.as_mut())
            else {
                return;
            };
            drain.sent += 1;
            let position = drain.sent;
            let next = self
                .world
                .device_mut(account, number)
                .and_then(|d| d.mailbox.next_unsent());
            let Some(mut node) = next else {
                self.finish_offline(conn, account, number, position - 1);
                return;
            };
            node.set("offline", position);
            self.world.counters.offline_delivered += 1;
            self.emit(
                Origin::Companion {
                    account,
                    device: number,
                    conn,
                },
                node,
            );
        }
        self.after_batch(conn);
    }

    fn after_batch(&mut self, conn: ConnId) {
        let Some(connection) = self.world.connections.get(&conn) else {
            return;
        };
        let (Some((account, number)), Some(drain)) = (connection.login, connection.drain) else {
            return;
        };
        let left = self
            .world
            .device(account, number)
            .map_or(0, |device| device.mailbox.unsent());
        if left == 0 {
            self.finish_offline(conn, account, number, drain.sent);
            return;
        }
        let until = self.now + self.world.options.offline_batch_wait_ms;
        self.world.timers.at(
            until,
            Timer::Batch {
                conn,
                sent: drain.sent,
            },
        );
    }

    /// The client did not ask for its next batch in time: some never ask.
    pub(super) fn batch_overdue(&mut self, conn: ConnId, sent: u64) {
        let Some(connection) = self.world.connections.get(&conn) else {
            return;
        };
        if connection.drain.is_some_and(|drain| drain.sent == sent) {
            let primer = self.world.options.offline_primer.unwrap_or(usize::MAX);
            self.continue_offline(conn, primer);
        }
    }

    fn finish_offline(&mut self, conn: ConnId, account: AccountId, number: DeviceId, count: u64) {
        if let Some(connection) = self.world.connections.get_mut(&conn) {
            connection.drain = None;
            connection.live = true;
        }
        let origin = Origin::Companion {
            account,
            device: number,
            conn,
        };
        self.emit(origin, info(Node::new("offline").attr("count", count)));
        self.deliver_typing(account, number);
        self.event(NetworkEvent::OfflineDone {
            account,
            device: number,
            count,
        });
    }

    pub(super) fn set_phone_online(
        &mut self,
        id: AccountId,
        online: bool,
    ) -> Result<(), WorldError> {
        let account = self
            .world
            .account_mut(id)
            .ok_or(WorldError::UnknownAccount(id))?;
        account.phone_online = online;
        if !online {
            self.set_available(id, 0, false);
            return Ok(());
        }
        let waiting = account
            .devices
            .get_mut(&0)
            .map(|d| d.mailbox.take_all())
            .unwrap_or_default();
        for (position, mut node) in (1_u64..).zip(waiting) {
            node.set("offline", position);
            self.world.counters.offline_delivered += 1;
            self.emit(Origin::Phone(id), node);
        }
        Ok(())
    }

    /// A device confirmed a stanza: it leaves the mailbox.
    pub(crate) fn confirm(&mut self, origin: Origin, class: &str, id: &str, like: &Node) {
        let Some((account, number)) = origin.who() else {
            return;
        };
        if let Some(device) = self.world.device_mut(account, number) {
            device.mailbox.confirm(class, id, like);
        }
    }
}

/// `ib` of the server; its one child says what it means.
pub(super) fn info(child: Node) -> Node {
    Node::new("ib").attr("from", Jid::SERVER).child(child)
}
