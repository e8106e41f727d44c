//! The world's own part of the evidence: what is queued and who is connected when the check is made.

use super::{Facts, Report, check};
use crate::transcript::Target;
use crate::world::World;

impl World {
    /// Judges everything that its transcript remembers.
    pub fn check(&self) -> Report {
        check(self.transcript.entries(0), &self.facts())
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts {
            complete: self.transcript.is_complete(),
            ..Facts::default()
        };
        for account in self.accounts() {
            for device in account.devices() {
                let target = Target {
                    phone: account.phone.to_string(),
                    device: device.number,
                };
                let waiting = device.unconfirmed().filter(|node| node.is("message"));
                let ids = waiting.filter_map(|node| node.get("id"));
                facts
                    .queued
                    .extend(ids.map(|id| (target.clone(), id.into_owned())));
                facts.live.extend(device.conn.map(|conn| (target, conn)));
            }
        }
        facts
    }
}
