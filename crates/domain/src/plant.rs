//! Named bugs that a test plants, to prove that the harness which looks for such bugs finds them.
//!
//! Inert unless the configuration names one (`testing.plant`), which only a build for the simulated
//! network accepts; then one relaxed load per pass. Each breaks one promise of `docs/invariants.md` at
//! the place that keeps it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Every bug, so that a misspelt name is refused at start.
pub const NAMES: [&str; 21] = [
    // A send is answered although its transaction is never committed (MP-1).
    "answer_before_commit",
    // What an earlier holder had in flight is forgotten at the next start (MP-1).
    "queue_row_lost",
    // What an earlier holder had in flight is never made due again (MP-1).
    "never_released",
    // A message fails and nobody says why (MP-1).
    "failed_without_reason",
    // Another attempt goes out under a new WhatsApp id (MP-2).
    "new_id_on_retry",
    // A repeated request makes a second message (MP-2).
    "key_ignored",
    // A withdrawal is answered, and nothing withdrawn.
    "cancel_forgotten",
    // A message is not kept until its time.
    "schedule_ignored",
    // A message has no end of its validity.
    "validity_ignored",
    // A receipt moves a message back (MP-3).
    "status_backwards",
    // A receipt is not recorded (EV-1).
    "receipt_dropped",
    // The newest message of a chat goes first (MP-4).
    "newest_first",
    // A session sends as many messages at once as it likes (BD-1).
    "no_limit",
    // `sent` is said when the message was written (MP-5).
    "sent_without_ack",
    // Leases are taken from whoever holds them, and nobody's token is checked (SL-1).
    "no_fencing",
    // Signal sessions are not stored, so that an older state comes back (SL-2).
    "signal_not_durable",
    // What came in is acknowledged before it is committed (IN-1).
    "ack_before_commit",
    // What came in is acknowledged and not stored (IN-1).
    "inbound_dropped",
    // What came in twice is stored twice (IN-1).
    "inbound_not_deduped",
    // A change has no event (EV-1).
    "event_skipped",
    // The caller's mistake is answered as ours.
    "conflict_is_500",
];

static ANY: AtomicBool = AtomicBool::new(false);
static PLANTED: OnceLock<String> = OnceLock::new();
static PASSES: AtomicU32 = AtomicU32::new(0);

/// The name is not one of [`NAMES`], or a bug was planted already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such bug, or one is planted already: `{0}` (there are: {known})", known = NAMES.join(", "))]
pub struct PlantError(String);

/// Plants a bug. Once a process.
pub fn plant(name: &str) -> Result<(), PlantError> {
    let bad = || PlantError(name.to_owned());
    if !NAMES.contains(&name) {
        return Err(bad());
    }
    PLANTED.set(name.to_owned()).map_err(|_| bad())?;
    ANY.store(true, Ordering::SeqCst);
    Ok(())
}

/// Whether this bug was planted.
pub fn is(name: &str) -> bool {
    ANY.load(Ordering::Relaxed) && PLANTED.get().is_some_and(|planted| planted == name)
}

/// Whether this bug was planted, and this is every so-many-th pass.
pub fn nth(name: &str, every: u32) -> bool {
    is(name) && PASSES.fetch_add(1, Ordering::Relaxed) % every == every - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_by_itself_and_a_misspelt_name_is_refused() {
        assert!(NAMES.iter().all(|name| !is(name) && !nth(name, 1)));
        assert!(plant("no_such_bug").is_err());
        plant("no_limit").unwrap();
        assert!(is("no_limit") && !is("key_ignored"));
        assert!(!nth("no_limit", 2) && nth("no_limit", 2) && !nth("no_limit", 2));
        assert!(plant("no_limit").is_err());
    }
}
