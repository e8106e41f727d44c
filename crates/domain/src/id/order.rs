//! The order of text ids: each one that a process makes is larger than those it made before.
//!
//! So a list that is sorted by id is in order of creation, even where many are made in one millisecond,
//! by whichever thread. Ids of two processes are ordered by their milliseconds, as far as the machines'
//! clocks agree. A clock that is set back changes nothing: the process stays at the latest time that it
//! has seen, and counts on from there until the clock has caught up with it.

use std::sync::{Mutex, PoisonError};

use ulid::Ulid;

use crate::time::Timestamp;

/// The end of time, in the year 10889: an id has 48 bits for it.
const LATEST: u64 = (1 << 48) - 1;

/// Makes ids, each larger than the one before.
#[derive(Debug)]
pub(super) struct Ulids(Mutex<Ulid>);

impl Ulids {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Ulid::nil()))
    }

    /// The next one: of that time with these random bits, where the time is later than any before.
    pub(super) fn next(&self, now: Timestamp, random: u128) -> Ulid {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0).min(LATEST);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = if millis > last.timestamp_ms() {
            Ulid::from_parts(millis, random)
        } else {
            after(*last, random)
        };
        *last
    }
}

/// One that is larger, by a random step: who knows an id cannot count up to the next one, and two
/// processes that began close to each other do not meet.
fn after(last: Ulid, random: u128) -> Ulid {
    let step = 1 + (random & u128::from(u32::MAX));
    // Past the last of a millisecond comes the first of the next: the time is the higher part.
    let next = last.0.checked_add(step);
    // At the end of time they are unique, and that is all.
    Ulid(next.unwrap_or(random))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::{Clock, ManualClock, SystemClock};

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn made(ulids: &Ulids, clock: &dyn Clock) -> Ulid {
        ulids.next(clock.now(), rand::random())
    }

    #[test]
    fn those_of_one_millisecond_are_in_order_of_creation() {
        let (ulids, clock) = (Ulids::new(), ManualClock::at(NOW));
        let all: Vec<Ulid> = (0..10_000).map(|_| made(&ulids, &clock)).collect();
        assert!(all.is_sorted_by(|one, next| one < next));
        assert_eq!(all[0].timestamp_ms(), 1_700_000_000_000);
    }

    #[test]
    fn a_later_millisecond_begins_anew_with_its_own_time() {
        let ulids = Ulids::new();
        ulids.next(NOW, u128::MAX);
        let later = Timestamp::from_millis(NOW.as_millis() + 1);
        let next = ulids.next(later, 7);
        assert_eq!(next, Ulid::from_parts(1_700_000_000_001, 7));
    }

    #[test]
    fn many_threads_make_no_id_twice_and_each_sees_its_own_rise() {
        let ulids = Ulids::new();
        let lists: Vec<Vec<Ulid>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..2_000).map(|_| made(&ulids, &SystemClock)).collect()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for list in &lists {
            assert!(list.is_sorted_by(|one, next| one < next));
        }
        let distinct: HashSet<Ulid> = lists.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 16_000);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_smaller_ones() {
        let (ulids, clock) = (Ulids::new(), ManualClock::at(NOW));
        let mut last = made(&ulids, &clock);
        for secs in [1_699_999_999, 1_600_000_000, 0, 1_699_999_999] {
            clock.set(Timestamp::from_secs(secs));
            let next = made(&ulids, &clock);
            assert!(next > last, "{secs}");
            assert_eq!(next.timestamp_ms(), last.timestamp_ms());
            last = next;
        }
        // Before 1970, too.
        assert!(ulids.next(Timestamp::from_millis(-1), 0) > last);
    }

    #[test]
    fn past_the_last_of_a_millisecond_comes_the_next() {
        let ulids = Ulids::new();
        let last = ulids.next(NOW, u128::MAX);
        let next = ulids.next(NOW, 0);
        assert_eq!(next.timestamp_ms(), last.timestamp_ms() + 1);
        assert_eq!(next.random(), 0);
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let ulids = Ulids::new();
        assert_eq!(
            ulids.next(Timestamp::from_millis(i64::MAX), u128::MAX).0,
            u128::MAX
        );
        assert_eq!(ulids.next(NOW, 5).0, 5);
    }
}
