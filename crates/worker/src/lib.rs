//! The loops that run sessions and move messages. The right column of the architecture: it talks to
//! WhatsApp through the engine and meets the API only in the store.
//!
//! | module | what it does |
//! |---|---|
//! | [`worker`](Worker) | starts and stops the loops, holds what they share |
//! | `supervisor` | holds leases; makes running actors match what is wanted (SL-1) |
//! | `session` | one actor a session: mailbox, pure `step`, batches, inbound sink, sends |
//! | `shares` | what one tenant may have in work while others send too |
//! | `dispatcher` | wakes the actors that have something to send |
//! | `relay` | tells readers of the outbox that there is news |
//! | `heartbeat` | says that this worker lives, and what it carries |
//! | `janitor` | forgets what is kept for a time only |

mod dispatcher;
mod heartbeat;
mod janitor;
mod relay;
mod session;
mod shares;
mod supervisor;
mod worker;

pub use worker::{Worker, WorkerError, WorkerOptions, WorkerStats};
