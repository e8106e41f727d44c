//! What the network's own checkers say, by the rule that it breaks (R8, R9 and others).

use wagate_network::check::{Rule, Violation};

use super::{Breach, Index, breach};
use crate::soak::journal::Broken;

/// A sleeper that has just woken needs a moment to see that it lost its leases.
const WAKE_MS: i64 = 5_000;

pub(super) fn network(index: &Index<'_>, found: &mut Vec<Breach>) {
    for violation in &index.all.network {
        let rule = match violation.rule {
            Rule::ShownOnce => "R2",
            Rule::Order => "R6",
            Rule::Receipt => "R3",
            Rule::Delivered => "R1",
            Rule::OneConnection if explained(index, violation) => continue,
            Rule::OneConnection => "R8",
            Rule::PrekeyOnce | Rule::CounterOnce => "R9",
            Rule::Protocol => "R12",
        };
        breach(found, rule, violation.to_string());
    }
}

/// Who sleeps cannot hang up: somebody else's connection then replaces his.
fn explained(index: &Index<'_>, violation: &Violation) -> bool {
    let entries = &index.all.entries;
    let at = entries.partition_point(|entry| entry.seq < violation.seq);
    // Older than this round: judged then.
    let Some(entry) = entries.get(at).filter(|_| violation.seq > 0) else {
        return false;
    };
    entry.seq != violation.seq
        || index.broken(entry.at - WAKE_MS, entry.at, |what| {
            matches!(what, Broken::Asleep(_))
        })
}
