//! What the world has to do at a later time. A timer that has lost its meaning when it fires does
//! nothing, so nobody has to cancel one.

use std::collections::BTreeMap;

use super::turn::Turn;
use super::{ConnId, Millis};

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Millis, u64), Timer>,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A login whose answer a fault delays.
    Login(ConnId),
    /// A QR reference or pairing code of this connection may have expired.
    Link(ConnId),
    /// The client should have asked for its next batch of queued stanzas by now.
    Batch { conn: ConnId, sent: u64 },
}

impl Timers {
    pub(crate) fn at(&mut self, when: Millis, timer: Timer) {
        self.next += 1;
        self.due.insert((when, self.next), timer);
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.due.first_key_value().map(|((when, _), _)| *when)
    }

    fn pop(&mut self, now: Millis) -> Option<Timer> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

impl Turn<'_> {
    pub(super) fn tick(&mut self) {
        self.release_due();
        while let Some(timer) = self.world.timers.pop(self.now) {
            match timer {
                Timer::Login(conn) => self.late_login(conn),
                Timer::Link(conn) => self.expire_links(conn),
                Timer::Batch { conn, sent } => self.batch_overdue(conn, sent),
            }
        }
    }
}
