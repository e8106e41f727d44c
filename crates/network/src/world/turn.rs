//! One call into the world, and its two choke points: [`Turn::inbound`] for a stanza that a device
//! sent, [`Turn::emit`] for one that goes to a device. Every fault and every line of the transcript
//! happens here and nowhere else.

use super::{AccountId, ConnId, DeviceId, Effect, Millis, NetworkEvent, World};
use crate::faults::{Action, Direction, Party};
use crate::node::Node;
use crate::stanza;
use crate::transcript::Note;

/// The world together with the time and the effects of the call in progress.
pub(crate) struct Turn<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) now: Millis,
    pub(crate) out: &'a mut Vec<Effect>,
}

/// Lanes of phones in [`crate::faults::Held`], which knows connections only. The shell numbers its
/// sockets from 1 upwards, so the two never meet.
const PHONE_LANE: ConnId = 1 << 63;

/// Where a stanza came from, and where its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A connection that is not linked yet.
    Unlinked(ConnId),
    /// A companion on its connection.
    Companion {
        account: AccountId,
        device: DeviceId,
        conn: ConnId,
    },
    /// The account's phone.
    Phone(AccountId),
}

impl Origin {
    pub(crate) fn phone(account: AccountId) -> Self {
        Self::Phone(account)
    }

    /// The account and device, where there is one.
    pub(crate) fn who(self) -> Option<(AccountId, DeviceId)> {
        match self {
            Self::Unlinked(_) => None,
            Self::Companion {
                account, device, ..
            } => Some((account, device)),
            Self::Phone(account) => Some((account, 0)),
        }
    }

    fn lane(self) -> ConnId {
        match self {
            Self::Unlinked(conn) | Self::Companion { conn, .. } => conn,
            Self::Phone(account) => PHONE_LANE | ConnId::from(account.0),
        }
    }
}

impl Turn<'_> {
    pub(crate) fn event(&mut self, event: NetworkEvent) {
        self.out.push(Effect::Event(event));
    }

    /// Seconds, as stanzas carry them.
    pub(crate) fn seconds(&self) -> i64 {
        self.now.div_euclid(1_000)
    }

    pub(crate) fn receive(&mut self, conn: ConnId, node: Node) {
        let Some(origin) = self.world.origin_of(conn) else {
            return;
        };
        self.inbound(origin, node);
    }

    /// The first choke point: a stanza that a device sent.
    pub(crate) fn inbound(&mut self, origin: Origin, node: Node) {
        let world = &mut *self.world;
        world.counters.stanzas_in += 1;
        let party = world.party(origin);
        let fault = world.faults.inbound(self.now, &party, &node);
        let Some(action) = fault else {
            self.accept(origin, node);
            return;
        };
        self.note_fault(&party, &node, &action);
        self.inbound_fault(origin, &action, node);
    }

    /// Handles a stanza that got through.
    fn accept(&mut self, origin: Origin, node: Node) {
        self.record_inbound(origin, &node);
        stanza::dispatch(self, origin, node);
    }

    fn record_inbound(&mut self, origin: Origin, node: &Node) {
        let party = self.world.party(origin);
        self.world
            .transcript
            .record(self.now, Direction::FromDevice, &party, node);
    }

    fn note_fault(&mut self, party: &Party, node: &Node, action: &Action) {
        self.world.counters.faults += 1;
        let rule = self.world.faults.last_fired();
        let note = Note::fault(rule, action, party, Some(node));
        self.world.transcript.note(self.now, note);
    }

    fn inbound_fault(&mut self, origin: Origin, action: &Action, node: Node) {
        match action {
            Action::Drop => {}
            Action::Delay { ms } => {
                let until = self.now + millis(*ms);
                self.world
                    .held
                    .delay(until, origin.lane(), Direction::FromDevice, node);
            }
            Action::Duplicate => {
                self.accept(origin, node.clone());
                self.accept(origin, node);
            }
            Action::Nack { .. } | Action::IqError { .. } => {
                if node.is("message") {
                    self.world.counters.messages_in += 1;
                    self.world.counters.messages_refused += 1;
                }
                self.record_inbound(origin, &node);
                if let Some(refusal) = action.refusal(self.now, &node) {
                    self.emit(origin, refusal);
                }
            }
            Action::NoAck => {
                self.record_inbound(origin, &node);
                stanza::message::handle(self, origin, node, stanza::Ack::Never);
            }
            Action::LateAck { ms } => {
                let until = self.now + millis(*ms);
                self.record_inbound(origin, &node);
                stanza::message::handle(self, origin, node, stanza::Ack::At(until));
            }
            Action::Replace { .. } | Action::Corrupt => {
                let changed = action.changed(node);
                self.accept(origin, changed);
            }
            Action::StreamError { .. }
            | Action::StreamEnd
            | Action::Failure { .. }
            | Action::Close { .. }
            | Action::Silence => self.disturb(origin, action, node.get("id").as_deref()),
            // Refused for this direction when the rule is added.
            Action::Reorder { .. } => self.accept(origin, node),
        }
    }

    /// The second choke point: a stanza that goes to a device.
    pub(crate) fn emit(&mut self, to: Origin, node: Node) {
        if !self.world.can_hear(to) {
            return;
        }
        let party = self.world.party(to);
        let Some(action) = self.world.faults.outbound(self.now, &party, &node) else {
            self.put(to, &party, node);
            self.release_overtaken(to);
            return;
        };
        self.note_fault(&party, &node, &action);
        let lane = to.lane();
        match &action {
            Action::Drop => return,
            Action::Delay { ms } => {
                let until = self.now + millis(*ms);
                self.world
                    .held
                    .delay(until, lane, Direction::ToDevice, node);
                return;
            }
            Action::Reorder { ms } => {
                let until = self.now + millis(*ms);
                self.world.held.overtake(until, lane, node);
                return;
            }
            Action::Duplicate => {
                self.put(to, &party, node.clone());
                self.put(to, &party, node);
            }
            Action::Replace { .. } | Action::Corrupt => {
                let changed = action.changed(node);
                self.put(to, &party, changed);
            }
            Action::StreamError { .. }
            | Action::StreamEnd
            | Action::Failure { .. }
            | Action::Close { .. }
            | Action::Silence => {
                self.disturb(to, &action, node.get("id").as_deref());
                return;
            }
            // Refused for this direction when the rule is added.
            Action::Nack { .. }
            | Action::NoAck
            | Action::LateAck { .. }
            | Action::IqError { .. } => self.put(to, &party, node),
        }
        self.release_overtaken(to);
    }

    /// Sends without asking the fault plan: for what a fault itself sends or has released.
    fn put(&mut self, to: Origin, party: &Party, node: Node) {
        let world = &mut *self.world;
        world.counters.stanzas_out += 1;
        world
            .transcript
            .record(self.now, Direction::ToDevice, party, &node);
        self.out.push(match to {
            Origin::Unlinked(conn) | Origin::Companion { conn, .. } => Effect::Send {
                conn,
                node,
                not_before: None,
            },
            Origin::Phone(account) => Effect::Phone { account, node },
        });
    }

    fn release_overtaken(&mut self, to: Origin) {
        for released in self.world.held.overtaken(to.lane()) {
            let party = self.world.party(to);
            self.put(to, &party, released.node);
        }
    }

    /// Lets go what a delay or a reorder fault held until now.
    pub(super) fn release_due(&mut self) {
        for released in self.world.held.due(self.now) {
            let Some(origin) = self.world.origin_of_lane(released.conn) else {
                continue;
            };
            match released.direction {
                Direction::FromDevice => self.accept(origin, released.node),
                Direction::ToDevice | Direction::Connect => {
                    if self.world.can_hear(origin) {
                        let party = self.world.party(origin);
                        self.put(origin, &party, released.node);
                    }
                }
            }
        }
    }

    /// Sends a stanza later, without asking the fault plan again.
    pub(crate) fn emit_at(&mut self, until: Millis, to: Origin, node: Node) {
        self.world
            .held
            .delay(until, to.lane(), Direction::ToDevice, node);
    }

    /// Ends a connection, or makes it useless, as a fault asks.
    pub(crate) fn disturb(&mut self, origin: Origin, action: &Action, id: Option<&str>) {
        let (Origin::Unlinked(conn) | Origin::Companion { conn, .. }) = origin else {
            return;
        };
        if self.world.can_hear(origin)
            && let Some(farewell) = action.farewell(id)
        {
            let party = self.world.party(origin);
            self.put(origin, &party, farewell);
        }
        if matches!(action, Action::Silence) {
            if let Some(connection) = self.world.connections.get_mut(&conn) {
                connection.silent = true;
            }
            self.out.push(Effect::Silence { conn });
        }
        if let Some(abrupt) = action.closes() {
            self.close(conn, abrupt);
        }
    }

    /// Closes a connection from the server's side.
    pub(crate) fn close(&mut self, conn: ConnId, abrupt: bool) {
        self.out.push(Effect::Close { conn, abrupt });
        self.detach(conn);
    }
}

impl World {
    /// Who is behind a connection; `None` for one that is gone.
    pub(crate) fn origin_of(&self, conn: ConnId) -> Option<Origin> {
        let connection = self
            .connections
            .get(&conn)
            .filter(|connection| !connection.silent)?;
        Some(match connection.login {
            Some((account, device)) => Origin::Companion {
                account,
                device,
                conn,
            },
            None => Origin::Unlinked(conn),
        })
    }

    fn origin_of_lane(&self, lane: ConnId) -> Option<Origin> {
        if lane & PHONE_LANE == 0 {
            return self.origin_of(lane);
        }
        u32::try_from(lane & !PHONE_LANE)
            .ok()
            .map(|account| Origin::Phone(AccountId(account)))
    }

    pub(crate) fn party(&self, origin: Origin) -> Party {
        let phone = |account: AccountId| {
            self.account(account)
                .map(|account| account.phone.clone().into_owned())
        };
        match origin {
            Origin::Unlinked(conn) => Party::unlinked(conn),
            Origin::Phone(account) => Party::phone(account, phone(account).unwrap_or_default()),
            Origin::Companion {
                account,
                device,
                conn,
            } => Party::device(
                account,
                phone(account).unwrap_or_default(),
                device,
                Some(conn),
            ),
        }
    }

    /// Whether a stanza for this receiver would reach anybody.
    fn can_hear(&self, to: Origin) -> bool {
        match to {
            Origin::Unlinked(conn) | Origin::Companion { conn, .. } => self
                .connections
                .get(&conn)
                .is_some_and(|connection| !connection.silent),
            Origin::Phone(account) => self.account(account).is_some(),
        }
    }
}

fn millis(ms: u64) -> Millis {
    Millis::try_from(ms).unwrap_or(Millis::MAX)
}
