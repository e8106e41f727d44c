//! How many there were in a sliding window, remembered in a few buckets.
//!
//! A bucket counts until all of it has left the window, so the answer is never too small: what is allowed
//! by it is allowed in every window of that length, wherever it begins.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A window's length and the width of its buckets, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    length: u64,
    width: u64,
}

pub(super) const MINUTE: Shape = Shape {
    length: 60_000,
    width: 2_000,
};
pub(super) const DAY: Shape = Shape {
    length: 24 * 3_600_000,
    width: 1_800_000,
};

/// Counts by bucket, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window(VecDeque<(u64, u32)>);

impl Shape {
    /// When the last of a bucket has left the window.
    fn leaves(self, bucket: u64) -> u64 {
        (bucket + 1)
            .saturating_mul(self.width)
            .saturating_add(self.length)
    }
}

impl Window {
    /// Notes one more.
    pub(super) fn add(&mut self, shape: Shape, at: u64) {
        self.forget(shape, at);
        let bucket = at / shape.width;
        match self.0.back_mut() {
            Some((last, count)) if *last == bucket => *count = count.saturating_add(1),
            _ => self.0.push_back((bucket, 1)),
        }
    }

    /// How many there were at most in the window that ends at `at`.
    pub(super) fn count(&self, shape: Shape, at: u64) -> u64 {
        self.inside(shape, at)
            .map(|(_, count)| u64::from(count))
            .sum()
    }

    /// When there is room for one more under `limit`; nothing when there is now.
    pub(super) fn free_at(&self, shape: Shape, at: u64, limit: u64) -> Option<u64> {
        let mut total = self.count(shape, at);
        let mut free = None;
        for (bucket, count) in self.inside(shape, at) {
            if total < limit {
                break;
            }
            total -= u64::from(count);
            free = Some(shape.leaves(bucket));
        }
        free
    }

    fn inside(&self, shape: Shape, at: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let outside = move |(bucket, _): &(u64, u32)| shape.leaves(*bucket) <= at;
        self.0.iter().copied().skip_while(outside)
    }

    fn forget(&mut self, shape: Shape, at: u64) {
        while self
            .0
            .front()
            .is_some_and(|(bucket, _)| shape.leaves(*bucket) <= at)
        {
            self.0.pop_front();
        }
    }
}
