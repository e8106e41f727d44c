//! Who comes next among what waits for a database thread: tenants take turns.
//!
//! Each tenant has a lane, first come first served, so what one session asks for keeps its order. A round
//! takes the oldest of each lane. So nobody waits for more than one piece of work of each other tenant,
//! however much a tenant has waiting and over however many sessions it is spread. What belongs to no
//! tenant has a place of its own in the round, and never waits longer than in a plain queue.
//!
//! A group (what shares a commit) holds at most `share` of one tenant while others are there, so that the
//! commit that somebody just missed is short too. A tenant that has been alone for a while may fill it.

use std::collections::{HashMap, VecDeque};

use wagate_domain::TenantId;

/// After so many groups with nobody else a tenant has them to itself.
const ALONE_AFTER: u32 = 64;

/// What waits, and whose turn it is.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// What waits of each tenant, oldest first; no lane is empty.
    lanes: HashMap<TenantId, VecDeque<T>>,
    /// Each lane once, and what has none.
    round: VecDeque<Turn<T>>,
    len: usize,
    share: usize,
    /// Of whom alone the last groups were, and how many they were.
    alone: Option<TenantId>,
    groups_alone: u32,
}

#[derive(Debug)]
enum Turn<T> {
    Lane(TenantId),
    Single(T),
}

impl<T> Turns<T> {
    /// Nothing waits yet; a group will hold `share` of one tenant while there are others.
    pub(super) fn new(share: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            round: VecDeque::new(),
            len: 0,
            share: share.max(1),
            alone: None,
            groups_alone: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds to the end of the tenant's lane.
    pub(super) fn push(&mut self, tenant: Option<TenantId>, item: T) {
        self.len += 1;
        let Some(tenant) = tenant else {
            self.round.push_back(Turn::Single(item));
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&tenant) {
            lane.push_back(item);
            return;
        }
        self.round.push_back(Turn::Lane(tenant.clone()));
        self.lanes.insert(tenant, VecDeque::from([item]));
    }

    /// The oldest of whoever's turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            let tenant = match self.round.pop_front()? {
                Turn::Single(item) => {
                    self.len -= 1;
                    return Some(item);
                }
                Turn::Lane(tenant) => tenant,
            };
            let Some(lane) = self.lanes.get_mut(&tenant) else {
                continue;
            };
            let item = lane.pop_front();
            if lane.is_empty() {
                self.lanes.remove(&tenant);
            } else {
                self.round.push_back(Turn::Lane(tenant));
            }
            if item.is_some() {
                self.len -= 1;
                return item;
            }
        }
    }

    /// What shares the next commit: round after round, `max` in all at most.
    pub(super) fn group(&mut self, max: usize) -> Vec<T> {
        let rounds = if self.is_alone() { max } else { self.share };
        let mut group = Vec::with_capacity(self.len.min(max));
        for _ in 0..rounds {
            for _ in 0..self.round.len().min(max - group.len()) {
                group.extend(self.pop());
            }
        }
        group
    }

    /// Notes who is there for this group, and says whether it has been one and the same tenant for long.
    fn is_alone(&mut self) -> bool {
        let mut tenants = self.lanes.keys();
        match (tenants.next(), tenants.next()) {
            (None, _) => {}
            (Some(only), None) if self.alone.as_ref() == Some(only) => {
                self.groups_alone = self.groups_alone.saturating_add(1);
            }
            (Some(only), None) => {
                self.alone = Some(only.clone());
                self.groups_alone = 1;
            }
            (Some(_), Some(_)) => {
                self.alone = None;
                self.groups_alone = 0;
            }
        }
        self.groups_alone > ALONE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SHARE: usize = 4;

    fn tenants(count: usize) -> Vec<TenantId> {
        (0..count).map(|_| TenantId::generate()).collect()
    }

    /// Nobody else was there for long.
    fn alone(tenant: &TenantId) -> Turns<usize> {
        let mut turns = Turns::new(SHARE);
        for _ in 0..ALONE_AFTER {
            turns.push(Some(tenant.clone()), 0);
            assert_eq!(turns.group(256), [0]);
        }
        turns
    }

    #[test]
    fn a_large_backlog_delays_another_tenant_by_one_place() {
        let all = tenants(2);
        let mut turns = Turns::new(SHARE);
        for n in 0..1_000_000 {
            turns.push(Some(all[0].clone()), n);
        }
        turns.push(Some(all[1].clone()), usize::MAX);
        assert_eq!(turns.group(256), [0, usize::MAX, 1, 2, 3]);
    }

    #[test]
    fn who_is_alone_for_long_fills_a_group_until_somebody_comes() {
        let all = tenants(2);
        let mut turns = alone(&all[0]);
        for n in 0..600 {
            turns.push(Some(all[0].clone()), n);
        }
        assert_eq!(turns.group(256), (0..256).collect::<Vec<_>>());
        turns.push(Some(all[1].clone()), usize::MAX);
        assert_eq!(turns.group(256), [256, usize::MAX, 257, 258, 259]);
        // Who was there a moment ago may come back: the next groups stay short.
        for group in 0..ALONE_AFTER as usize {
            let first = 260 + group * SHARE;
            assert_eq!(
                turns.group(256),
                (first..first + SHARE).collect::<Vec<_>>(),
                "{group}"
            );
        }
        assert_eq!(turns.group(256).len(), 600 - 260 - 64 * SHARE);
        assert!(turns.is_empty());
    }

    #[test]
    fn what_belongs_to_nobody_neither_waits_for_a_backlog_nor_ends_being_alone() {
        let all = tenants(1);
        let mut turns = alone(&all[0]);
        for n in 0..10 {
            turns.push(Some(all[0].clone()), n);
        }
        turns.push(None, 77);
        turns.push(None, 78);
        assert_eq!(turns.group(256), [0, 77, 78, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn who_did_not_fit_into_a_group_is_first_in_the_next() {
        let all = tenants(3);
        let mut turns = Turns::new(SHARE);
        for (n, tenant) in all.iter().enumerate() {
            turns.push(Some(tenant.clone()), n);
            turns.push(Some(tenant.clone()), n + 10);
        }
        assert_eq!(turns.group(2), [0, 1]);
        assert_eq!(turns.group(2), [2, 10]);
        assert_eq!(turns.group(2), [11, 12]);
    }

    proptest! {
        /// Equal backlogs advance equally.
        #[test]
        fn equal_backlogs_are_never_more_than_one_apart(
            count in 2usize..8, each in 1usize..60, max in 1usize..40,
        ) {
            let all = tenants(count);
            let mut turns = Turns::new(SHARE);
            for (n, tenant) in all.iter().enumerate() {
                for _ in 0..each {
                    turns.push(Some(tenant.clone()), n);
                }
            }
            let mut done = vec![0usize; count];
            while !turns.is_empty() {
                for n in turns.group(max) {
                    done[n] += 1;
                }
                let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{done:?}");
            }
            prop_assert!(done.iter().all(|done| *done == each));
        }

        /// Whatever comes in whatever order: each lane keeps its order, nothing is lost, a group holds no
        /// more than it may, and whoever waits is in one of the next groups.
        #[test]
        fn nothing_starves_and_a_lane_keeps_its_order(
            steps in prop::collection::vec((0usize..6, 0usize..30), 1..80), max in 1usize..20,
        ) {
            let all = tenants(5);
            let mut turns = Turns::new(SHARE);
            let (mut pushed, mut seen) = (0usize, HashSet::new());
            let mut newest = [None; 6];
            let mut ahead: Vec<VecDeque<usize>> = vec![VecDeque::new(); 6];
            let mut waited = [0usize; 6];
            let mut singles = 0;
            for (who, count) in steps.into_iter().chain([(0, 0); 2_000]) {
                for _ in 0..count {
                    turns.push(all.get(who).cloned(), (who, pushed));
                    ahead[who].push_back(pushed);
                    pushed += 1;
                }
                let waiting = turns.len();
                singles = singles.max(ahead[5].len());
                let group = turns.group(max);
                prop_assert!(group.len() <= max);
                prop_assert_eq!(turns.len(), waiting - group.len());
                prop_assert_eq!(group.is_empty(), waiting == 0);
                let mut of_each = [0usize; 6];
                for (who, n) in group {
                    prop_assert!(seen.insert(n));
                    prop_assert!(newest[who] < Some(n));
                    newest[who] = Some(n);
                    ahead[who].pop_front();
                    of_each[who] += 1;
                }
                let there = of_each[..5].iter().filter(|taken| **taken > 0).count();
                prop_assert!(there < 2 || of_each[..5].iter().all(|taken| *taken <= SHARE));
                for who in 0..5 {
                    let idle = of_each[who] == 0 && !ahead[who].is_empty();
                    waited[who] = if idle { waited[who] + 1 } else { 0 };
                    // Five lanes and the singles, of which never more were there at once.
                    prop_assert!(waited[who] <= (5 + singles).div_ceil(max) + 1);
                }
            }
            prop_assert_eq!(seen.len(), pushed);
        }
    }
}
