//! App state: the server keeps, per account and collection, a list of patches that it cannot read. The
//! version of a collection is the length of its list.

use std::collections::BTreeMap;

use bytes::Bytes;
use waproto::buffa::Message as _;
use waproto::whatsapp::{SyncdPatch, SyncdVersion};

use crate::node::Str;

/// Patches in one answer; a client asks again while `has_more_patches` says so.
pub(crate) const PATCHES_PER_ANSWER: usize = 50;

/// Patches kept per collection. One more is refused as if the collection were in conflict.
const PATCHES_MAX: usize = 20_000;

/// The collections of an account.
#[derive(Debug, Default)]
pub(crate) struct Collections(BTreeMap<Str, Vec<Bytes>>);

/// A patch that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchError {
    /// It was made on another version than the present one.
    Conflict,
    /// It is no `SyncdPatch`.
    Malformed,
}

impl Collections {
    pub(crate) fn version(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |patches| patches.len() as u64)
    }

    /// The patches after a version, as many as fit an answer, and whether there are more.
    pub(crate) fn after(&self, name: &str, version: u64) -> (&[Bytes], bool) {
        let patches = self.0.get(name).map_or(&[][..], Vec::as_slice);
        let start = usize::try_from(version)
            .unwrap_or(usize::MAX)
            .min(patches.len());
        let end = patches.len().min(start + PATCHES_PER_ANSWER);
        (&patches[start..end], end < patches.len())
    }

    /// Appends a patch that was made on `version`; answers the new version.
    pub(crate) fn append(
        &mut self,
        name: &str,
        version: u64,
        patch: &[u8],
    ) -> Result<u64, PatchError> {
        let mut decoded =
            SyncdPatch::decode_from_slice(patch).map_err(|_| PatchError::Malformed)?;
        let current = self.version(name);
        if version != current || current >= PATCHES_MAX as u64 {
            return Err(PatchError::Conflict);
        }
        // Clients leave the version empty; the server fills it in.
        decoded.version = waproto::buffa::MessageField::some(SyncdVersion {
            version: Some(current + 1),
        });
        let bytes = decoded.encode_to_bytes();
        self.0
            .entry(name.to_owned().into())
            .or_default()
            .push(bytes);
        Ok(current + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_patches_and_conflicts_are_refused() {
        let mut collections = Collections::default();
        let patch = SyncdPatch::default().encode_to_vec();
        assert_eq!(collections.append("regular", 0, &patch), Ok(1));
        assert_eq!(
            collections.append("regular", 0, &patch),
            Err(PatchError::Conflict)
        );
        assert_eq!(
            collections.append("regular", 1, b"\xff"),
            Err(PatchError::Malformed)
        );
        let (patches, more) = collections.after("regular", 0);
        assert!(!more);
        let stored = SyncdPatch::decode_from_slice(&patches[0]).unwrap();
        assert_eq!(stored.version.version, Some(1));
    }

    #[test]
    fn long_histories_come_in_pieces() {
        let mut collections = Collections::default();
        let patch = SyncdPatch::default().encode_to_vec();
        for version in 0..60 {
            collections.append("regular", version, &patch).unwrap();
        }
        assert_eq!(collections.after("regular", 0).0.len(), PATCHES_PER_ANSWER);
        assert!(collections.after("regular", 0).1);
        assert_eq!(collections.after("regular", 50).0.len(), 10);
        assert_eq!(collections.after("regular", 99).0.len(), 0);
    }
}
