//! Rows that expire, in a wheel of thirty-two kinds.
//!
//! The store has no clock of its own, so a row's kind says when it may go: a spoke covers a span of time,
//! and is cleared as a whole when the span has passed. A row may so live up to one span too long, never
//! shorter. Reading asks all spokes; there is no hot path that reads.

use std::sync::atomic::{AtomicU32, Ordering};

use wagate_domain::SessionId;
use wagate_store::device_state::{self, StateKind};
use wagate_store::{Lease, StoreError, Tx};

const SPOKES: u8 = 32;

pub(super) struct Wheel {
    first: u8,
    span_secs: i64,
    /// A bit for each spoke that may hold rows: all at start, since an earlier life may have left some.
    used: AtomicU32,
}

impl Wheel {
    pub(super) const fn new(first: u8, span_secs: i64) -> Self {
        Self {
            first,
            span_secs,
            used: AtomicU32::new(u32::MAX),
        }
    }

    /// The kind for a row that belongs to the second `at`, marked as used.
    pub(super) fn spoke(&self, at: i64) -> StateKind {
        let index = self.index(at);
        self.used.fetch_or(1 << index, Ordering::SeqCst);
        self.kind(index)
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = StateKind> {
        let first = self.first;
        (0..SPOKES).map(move |index| StateKind(first + index))
    }

    /// Which spokes hold only rows of before `cutoff`, given that no row is of after `latest`.
    pub(super) fn stale(&self, cutoff: i64, latest: i64) -> Vec<StateKind> {
        let used = self.used.load(Ordering::SeqCst);
        let oldest = cutoff.div_euclid(self.span_secs);
        let newest = latest.div_euclid(self.span_secs);
        let live = (newest - oldest + 1).clamp(0, i64::from(SPOKES));
        let mut stale = used;
        for step in 0..live {
            stale &= !(1 << self.index((oldest + step) * self.span_secs));
        }
        (0..SPOKES)
            .filter(|index| stale & (1 << index) != 0)
            .map(|index| self.kind(index))
            .collect()
    }

    /// After the rows of these spokes were deleted.
    pub(super) fn cleared(&self, kinds: &[StateKind]) {
        for kind in kinds {
            self.used
                .fetch_and(!(1 << (kind.0 - self.first)), Ordering::SeqCst);
        }
    }

    fn index(&self, at: i64) -> u8 {
        u8::try_from(at.div_euclid(self.span_secs).rem_euclid(i64::from(SPOKES))).unwrap_or(0)
    }

    fn kind(&self, index: u8) -> StateKind {
        StateKind(self.first + index)
    }
}

/// Whether any of `kinds` holds a row.
pub(super) fn any_row(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kinds: &[StateKind],
) -> Result<bool, StoreError> {
    for kind in kinds {
        if device_state::exists(tx, session, *kind)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn delete_kinds(
    tx: &mut Tx<'_>,
    lease: &Lease,
    kinds: &[StateKind],
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for kind in kinds {
        deleted += device_state::delete_kind(tx, lease, *kind)?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoke_is_stale_only_when_its_whole_span_has_passed() {
        let wheel = Wheel::new(32, 600);
        wheel.cleared(&wheel.kinds().collect::<Vec<_>>());
        let now = 6_000_000;
        let kind = wheel.spoke(now);
        assert!(wheel.stale(now, now).is_empty());
        assert!(wheel.stale(now + 599, now + 7200).is_empty());
        assert_eq!(wheel.stale(now + 600, now + 7800), vec![kind]);
        wheel.cleared(&[kind]);
        assert!(wheel.stale(now + 600, now + 7800).is_empty());
    }

    #[test]
    fn everything_but_the_live_span_is_suspect_at_start() {
        let wheel = Wheel::new(32, 600);
        assert_eq!(wheel.stale(6_000_000 - 7200, 6_000_000).len(), 32 - 13);
    }
}
