//! Named points at which a test kills the process, as `kill -9` would.
//!
//! Inert unless the configuration names a point (`testing.abort_at`); then one relaxed load per pass.
//! The points lie between two steps of the message path whose order an invariant rests on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Every point, so that a misspelt name is refused at start.
pub const POINTS: [&str; 7] = [
    "accepted_committed",
    "claimed",
    "written_not_acked",
    "acked_not_committed",
    "inbound_decrypted",
    "inbound_committed",
    "asked_again",
];

struct Armed {
    point: String,
    /// Passes to let through before the process dies.
    skip: AtomicU32,
}

static ANY: AtomicBool = AtomicBool::new(false);
static ARMED: OnceLock<Armed> = OnceLock::new();

/// The name is not one of [`POINTS`], or a point was armed already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such failpoint, or one is armed already: `{0}` (there are: {known})", known = POINTS.join(", "))]
pub struct FailpointError(String);

/// Arms a point: the process aborts at its pass number `skip + 1`. Once a process.
///
/// `spec` is `name` or `name:skip`.
pub fn arm(spec: &str) -> Result<(), FailpointError> {
    let bad = || FailpointError(spec.to_owned());
    let (point, skip) = match spec.split_once(':') {
        Some((point, skip)) => (point, skip.parse().map_err(|_| bad())?),
        None => (spec, 0),
    };
    if !POINTS.contains(&point) {
        return Err(bad());
    }
    let armed = Armed {
        point: point.to_owned(),
        skip: AtomicU32::new(skip),
    };
    ARMED.set(armed).map_err(|_| bad())?;
    ANY.store(true, Ordering::SeqCst);
    Ok(())
}

/// Passes a point; does not return if a test wants the process to die here.
pub fn hit(point: &str) {
    if !ANY.load(Ordering::Relaxed) {
        return;
    }
    if let Some(armed) = ARMED.get()
        && armed.point == point
        && armed
            .skip
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_err()
    {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_point_is_refused() {
        assert!(arm("nowhere").is_err());
        assert!(arm("claimed:x").is_err());
        hit("claimed");
    }
}
