//! Recently seen API keys, so that a request does not pay a query for its key.
//!
//! Holds digests, never secrets. Bounded in number and in time (BD-1): a key that another process
//! revokes stops working here when its entry ends, one revoked by this process at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use wagate_domain::{ApiKeyId, TenantId, Timestamp};

/// How long an entry is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most entries.
const ENTRIES_MAX: usize = 10_000;

/// The digest under which a key is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownKey {
    pub(crate) tenant: TenantId,
    pub(crate) key: ApiKeyId,
    pub(crate) expires_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    known: KnownKey,
    until: Instant,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct KeyCache {
    entries: Mutex<HashMap<KeyDigest, Entry>>,
}

impl KeyCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyDigest, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `now` is what the clock says, against which keys expire; `at` is when entries end.
    pub(crate) fn get(&self, digest: &KeyDigest, now: Timestamp, at: Instant) -> Option<KnownKey> {
        let entries = self.lock();
        let entry = entries.get(digest)?;
        let believed = at < entry.until;
        let valid = entry.known.expires_at.is_none_or(|end| now < end);
        (believed && valid).then(|| entry.known.clone())
    }

    pub(crate) fn put(&self, digest: KeyDigest, known: KnownKey, now: Instant) {
        let mut entries = self.lock();
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&digest) {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= ENTRIES_MAX {
            // Ten thousand keys within seconds: begin again rather than grow.
            entries.clear();
        }
        entries.insert(
            digest,
            Entry {
                known,
                until: now + BELIEVED,
            },
        );
    }

    /// Forgets a key that was revoked.
    pub(crate) fn forget(&self, key: &ApiKeyId) {
        self.lock().retain(|_, entry| entry.known.key != *key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(expires_at: Option<Timestamp>) -> KnownKey {
        KnownKey {
            tenant: TenantId::generate(),
            key: ApiKeyId::generate(),
            expires_at,
        }
    }

    #[test]
    fn an_entry_ends_by_time_by_expiry_and_by_revocation() {
        let cache = KeyCache::default();
        let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
        let at = Instant::now();
        let (plain, expiring) = (KeyDigest::of("a"), KeyDigest::of("b"));
        let first = known(None);
        cache.put(plain, first.clone(), at);
        cache.put(expiring, known(Some(later)), at);
        assert_eq!(cache.get(&plain, now, at), Some(first.clone()));
        assert!(cache.get(&expiring, now, at).is_some());
        assert!(cache.get(&expiring, later, at).is_none(), "an expired key");
        assert!(
            cache.get(&plain, now, at + BELIEVED).is_none(),
            "an old entry"
        );

        cache.forget(&first.key);
        assert!(cache.get(&plain, now, at).is_none(), "a revoked key");
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let cache = KeyCache::default();
        let at = Instant::now();
        for n in 0..ENTRIES_MAX + 5 {
            cache.put(KeyDigest::of(&n.to_string()), known(None), at);
        }
        assert!(cache.lock().len() <= ENTRIES_MAX);
    }
}
