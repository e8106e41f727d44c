//! The world's own part of the evidence: what is queued and who is connected when the check is made.

use super::{Facts, Report, check};
use crate::transcript::Target;
use crate::world::World;

impl World {
    /// Judges everything that its transcript remembers.
    pub fn check(&self) -> Report {
        self.check_after(0)
    }

    /// Judges what came after this entry, for runs that are too long to be judged as a whole.
    pub fn check_after(&self, seq: u64) -> Report {
        let mut facts = self.facts();
        facts.complete &= seq == 0;
        check(self.transcript.entries(seq), &facts)
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
