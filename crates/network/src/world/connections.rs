//! Open connections: who is behind each, and what happens when one opens and ends.

use super::login;
use super::offline::Drain;
use super::turn::{Origin, Turn};
use super::{AccountId, ConnId, DeviceId, Hello, NetworkEvent};
use crate::faults::Action;
use crate::pairing::Link;
use crate::transcript::Note;

/// One socket after its handshake.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnId,
    /// The binary protocol's dictionary: 2 or 3.
    pub dictionary: u8,
    pub(crate) static_key: [u8; 32],
    /// Whose connection it is, once logged in.
    pub(crate) login: Option<(AccountId, DeviceId)>,
    /// A fault made it deaf and dumb.
    pub(crate) silent: bool,
    /// Whether the device takes live stanzas; false until its queue has been delivered.
    pub(crate) live: bool,
    /// The delivery of its queue, while it lasts.
    pub(crate) drain: Option<Drain>,
    /// What a registration waits for.
    pub(crate) link: Option<Box<Link>>,
    /// A login whose answer a fault delays.
    pub(crate) waiting: Option<Box<Hello>>,
}

impl Turn<'_> {
    pub(super) fn open(&mut self, hello: Hello) {
        self.world.counters.connections_opened += 1;
        let conn = hello.conn;
        self.world.connections.insert(
            conn,
            Connection {
                id: conn,
                dictionary: hello.dictionary,
                static_key: hello.static_key,
                login: None,
                silent: false,
                live: false,
                drain: None,
                link: None,
                waiting: None,
            },
        );
        let party = self.world.login_party(&hello);
        let Some(action) = self.world.faults.on_connect(self.now, &party) else {
            self.admit(&hello);
            return;
        };
        self.world.counters.faults += 1;
        let rule = self.world.faults.last_fired();
        self.world
            .transcript
            .note(self.now, Note::fault(rule, &action, &party, None));
        if let Action::Delay { ms } = action {
            let until = self.now.saturating_add_unsigned(ms);
            self.world
                .timers
                .at(until, super::timers::Timer::Login(conn));
            if let Some(connection) = self.world.connections.get_mut(&conn) {
                connection.waiting = Some(Box::new(hello));
            }
            return;
        }
        if let Action::Failure { reason, .. } = action {
            self.world.counters.logins_refused += 1;
            self.event(NetworkEvent::LoginRefused { reason });
        }
        self.disturb(Origin::Unlinked(conn), &action, None);
    }

    /// Answers a login that was delayed.
    pub(super) fn late_login(&mut self, conn: ConnId) {
        let waiting = self
            .world
            .connections
            .get_mut(&conn)
            .and_then(|c| c.waiting.take());
        if let Some(hello) = waiting {
            self.admit(&hello);
        }
    }

    fn admit(&mut self, hello: &Hello) {
        if login::is_registration(hello) {
            self.register(hello);
        } else {
            self.login(hello);
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.world.counters.connections_closed += 1;
        self.detach(conn);
    }

    /// Forgets a connection: its device is away from now on, its link request gone.
    pub(crate) fn detach(&mut self, conn: ConnId) {
        let Some(connection) = self.world.connections.remove(&conn) else {
            return;
        };
        self.world.held.forget(conn);
        if let Some(link) = connection.link {
            self.world.forget_link(&link);
        }
        let Some((account, number)) = connection.login else {
            return;
        };
        let party = self.world.party(Origin::Companion {
            account,
            device: number,
            conn,
        });
        self.world
            .transcript
            .note(self.now, Note::disconnected(&party, conn));
        let Some(device) = self.world.device_mut(account, number) else {
            return;
        };
        if device.conn == Some(conn) {
            device.conn = None;
            self.set_available(account, number, false);
            self.event(NetworkEvent::Disconnected {
                account,
                device: number,
            });
        }
    }

    /// Ends the older connection of a device that logs in again, and answers which that was.
    pub(super) fn replace(&mut self, account: AccountId, number: DeviceId) -> Option<ConnId> {
        let origin = self
            .world
            .device(account, number)
            .and_then(super::Device::origin)?;
        self.world.counters.connections_replaced += 1;
        let action = Action::StreamError {
            code: None,
            detail: Some(crate::faults::StreamErrorDetail::ConflictReplaced),
            close: true,
        };
        let Origin::Companion { conn, .. } = origin else {
            return None;
        };
        if self.world.origin_of(conn).is_some() {
            self.disturb(origin, &action, None);
        } else {
            // A silent connection would not hear the conflict; its socket goes without a word.
            self.close(conn, true);
        }
        Some(conn)
    }
}
