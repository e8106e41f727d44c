//! What time a gateway may have believed that it was, when its clock was moved.

use crate::soak::journal::{Broken, Journal};

/// A gateway looks at its clock's offset within this.
const NOTICE_MS: i64 = 1_000;

/// A time during which a gateway's clock may have been so far ahead.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: i64,
    to: i64,
    ahead: i64,
}

/// All gateways' clocks over a round. Any of them may have done what is judged.
#[derive(Clone, Debug)]
pub(super) struct Clocks(Vec<Span>);

impl Clocks {
    pub(super) fn of(journal: &Journal) -> Self {
        let mut spans = Vec::new();
        let mut gateways: Vec<usize> = journal.shifts.iter().map(|shift| shift.gateway).collect();
        gateways.push(0);
        gateways.sort_unstable();
        gateways.dedup();
        for gateway in gateways {
            let (mut from, mut ahead) = (i64::MIN / 2, 0);
            for shift in journal.shifts.iter().filter(|s| s.gateway == gateway) {
                let to = noticed(journal, gateway, shift.at);
                spans.push(Span { from, to, ahead });
                (from, ahead) = (shift.at, shift.ahead);
            }
            let to = i64::MAX / 2;
            spans.push(Span { from, to, ahead });
        }
        Self(spans)
    }

    /// Nobody's clock was moved.
    pub(super) fn steady(&self) -> bool {
        self.0.iter().all(|span| span.ahead == 0)
    }

    /// The latest time that a gateway may have read between these two.
    pub(super) fn most(&self, from: i64, to: i64) -> i64 {
        let spans = self.0.iter().filter(|s| s.from <= to && s.to >= from);
        spans.map(|s| s.to.min(to) + s.ahead).max().unwrap_or(to)
    }

    /// The earliest.
    pub(super) fn least(&self, from: i64, to: i64) -> i64 {
        let spans = self.0.iter().filter(|s| s.from <= to && s.to >= from);
        spans
            .map(|s| s.from.max(from) + s.ahead)
            .min()
            .unwrap_or(from)
    }
}

/// When a gateway knows of a change: who sleeps knows after he has woken.
fn noticed(journal: &Journal, gateway: usize, at: i64) -> i64 {
    let asleep = journal.windows.iter().filter(|window| {
        window.what == Broken::Asleep(gateway)
            && window.from <= at + NOTICE_MS
            && window.to.is_none_or(|to| to >= at)
    });
    let woken = asleep.map(|window| window.to.unwrap_or(i64::MAX / 4));
    woken.max().unwrap_or(at).max(at) + NOTICE_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::journal::{Shift, Window};

    #[test]
    fn a_moved_clock_is_reckoned_with_until_it_is_noticed() {
        let mut journal = Journal::default();
        let clocks = Clocks::of(&journal);
        assert_eq!((clocks.least(10, 20), clocks.most(10, 20)), (10, 20));
        for (at, ahead) in [(10_000, 60_000), (20_000, 0)] {
            let gateway = 1;
            journal.shifts.push(Shift { gateway, at, ahead });
        }
        let clocks = Clocks::of(&journal);
        assert_eq!(clocks.most(0, 9_999), 9_999);
        assert_eq!(
            (clocks.least(12_000, 13_000), clocks.most(12_000, 13_000)),
            (12_000, 73_000)
        );
        assert_eq!(clocks.most(20_500, 30_000), 81_000);
        assert_eq!(clocks.most(21_500, 30_000), 30_000);
        journal.windows.push(Window {
            what: Broken::Asleep(1),
            from: 19_000,
            to: Some(25_000),
        });
        assert_eq!(Clocks::of(&journal).most(25_500, 30_000), 86_000);
    }
}
