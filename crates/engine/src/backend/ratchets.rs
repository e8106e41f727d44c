//! Whether Signal's sessions in the library's memory are ahead of those in the database.
//!
//! A message that is decrypted can turn the ratchet: the library makes a new sending chain, keeps it in
//! memory and stores it 25 ms later, and until then it encrypts with it. A process that dies in between
//! has sent something under a chain that the database does not know; it makes another one from the same
//! place, and the recipient can open nothing of that until both have agreed on new keys, with a retry
//! receipt for each message. So before a message goes out, what was decrypted is stored.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what was decrypted, and how much of that is stored.
#[derive(Debug, Default)]
pub(crate) struct Ratchets {
    moved: AtomicU64,
    stored: AtomicU64,
}

impl Ratchets {
    /// Something was decrypted.
    pub(super) fn moved(&self) {
        self.moved.fetch_add(1, Ordering::SeqCst);
    }

    /// How much was decrypted so far.
    pub(crate) fn now(&self) -> u64 {
        self.moved.load(Ordering::SeqCst)
    }

    /// Sessions were stored, by a write that began when [`Self::now`] said this.
    pub(crate) fn stored(&self, moved: u64) {
        self.stored.fetch_max(moved, Ordering::SeqCst);
    }

    /// Something decrypted may not be stored.
    pub(crate) fn are_ahead(&self) -> bool {
        self.stored.load(Ordering::SeqCst) < self.now()
    }
}
