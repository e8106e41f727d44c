//! Every bound (BD-1). A bound that an operator may want to move is a default here and a key in the
//! configuration; the rest is fixed.

use std::time::Duration;

/// Longest text of one message, in bytes of UTF-8. WhatsApp's own clients stop at 65,536 characters.
pub const TEXT_BYTES_MAX: usize = 65_536;
/// Largest body of an ordinary request, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Most rows of one page.
pub const PAGE_ROWS_MAX: u32 = 200;
/// Rows of a page when the caller does not say.
pub const PAGE_ROWS_DEFAULT: u32 = 50;
/// How long a send waits for WhatsApp's acknowledgement when the caller does not say.
pub const SEND_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest bounded wait of a request.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Attempts to send one message.
pub const SEND_ATTEMPTS_MAX: u32 = 5;
/// Messages of one session in flight at once.
pub const CONCURRENCY_DEFAULT: u32 = 3;
/// The most messages of one session in flight at once that a tenant may ask for.
pub const CONCURRENCY_MAX: u32 = 20;
/// How far ahead a message may be scheduled, and how long it may be valid.
pub const SCHEDULE_AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Messages that one request clears, retries or deletes; what is left takes another request.
pub const QUEUE_CHANGE_MAX: u32 = 10_000;
/// Queued messages of one session; more are refused before they are accepted.
pub const QUEUE_PER_SESSION_MAX: u32 = 1_000_000;
/// Sessions of one tenant.
pub const SESSIONS_PER_TENANT_MAX: u32 = 10_000;
/// How long a worker's right to a session lasts between renewals.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How long events stay readable in the outbox.
pub const EVENT_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a pairing code is valid, as WhatsApp has it.
pub const PAIRING_CODE_TTL: Duration = Duration::from_secs(180);
/// How long a session may try to be linked before it gives up.
pub const LINK_WAIT_MAX: Duration = Duration::from_secs(180);
/// The longest gap between two messages that pacing may ask for.
pub const PACING_GAP_MAX: Duration = Duration::from_secs(60 * 60);
/// The largest budget of a minute and of a day that pacing may have.
pub const PACING_PER_MINUTE_MAX: u32 = 6_000;
pub const PACING_PER_DAY_MAX: u32 = 1_000_000;
/// The longest time in which a young number warms up, in days.
pub const PACING_WARM_UP_DAYS_MAX: u32 = 90;
/// No pause is longer, whatever WhatsApp names: then it is tried again.
pub const PAUSE_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// How long "typing" is shown for each character of a text, and its bounds.
pub const TYPING_PER_CHARACTER: Duration = Duration::from_millis(45);
pub const TYPING_MIN: Duration = Duration::from_millis(500);
pub const TYPING_MAX: Duration = Duration::from_secs(8);

const _: () = assert!(TEXT_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(CONCURRENCY_DEFAULT <= CONCURRENCY_MAX);
const _: () = assert!(PAGE_ROWS_DEFAULT <= PAGE_ROWS_MAX);
const _: () = assert!(SEND_WAIT_DEFAULT.as_secs() <= WAIT_MAX.as_secs());
