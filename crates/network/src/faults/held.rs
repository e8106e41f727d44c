//! Stanzas that a fault keeps back: until a time, or until the next stanza has passed them.
//!
//! The world owns one of these; it asks for what is due in its `tick`, and for what was overtaken each
//! time something went out on a connection.

use crate::faults::Direction;
use crate::node::Node;
use crate::world::{ConnId, Millis};

/// What is kept back, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    stanzas: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    until: Millis,
    overtake: bool,
    released: Released,
}

/// A stanza that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub conn: ConnId,
    /// From the device: to be handled. To the device: to be sent.
    pub direction: Direction,
    pub node: Node,
}

impl Held {
    /// Keeps a stanza until this time.
    pub fn delay(&mut self, until: Millis, conn: ConnId, direction: Direction, node: Node) {
        let released = Released {
            conn,
            direction,
            node,
        };
        self.stanzas.push(Kept {
            until,
            overtake: false,
            released,
        });
    }

    /// Keeps a stanza until another one has gone out on its connection, at most until this time.
    pub fn overtake(&mut self, until: Millis, conn: ConnId, node: Node) {
        let released = Released {
            conn,
            direction: Direction::ToDevice,
            node,
        };
        self.stanzas.push(Kept {
            until,
            overtake: true,
            released,
        });
    }

    /// What waited for another stanza to go out on this connection. To be asked after it went.
    pub fn overtaken(&mut self, conn: ConnId) -> Vec<Released> {
        self.take(|kept| kept.overtake && kept.released.conn == conn)
    }

    /// What has waited long enough.
    pub fn due(&mut self, now: Millis) -> Vec<Released> {
        self.take(|kept| kept.until <= now)
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.stanzas.iter().map(|kept| kept.until).min()
    }

    /// Forgets a closed connection and returns what was on its way to the device.
    pub fn forget(&mut self, conn: ConnId) -> Vec<Node> {
        self.take(|kept| kept.released.conn == conn)
            .into_iter()
            .filter(|released| released.direction == Direction::ToDevice)
            .map(|released| released.node)
            .collect()
    }

    fn take(&mut self, wanted: impl Fn(&Kept) -> bool) -> Vec<Released> {
        if self.stanzas.is_empty() {
            return Vec::new();
        }
        self.stanzas
            .extract_if(.., |kept| wanted(kept))
            .map(|kept| kept.released)
            .collect()
    }
}
