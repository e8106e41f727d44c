//! Use cases: what a caller may ask for, checked, in one transaction.
//!
//! Every surface (canonical routes, dialects, command line) calls these functions, so that a rule stands
//! in one place. A use case takes a [`Caller`] first (TN-1), or an [`Operator`] where it acts on the
//! installation. Nothing here knows HTTP, and nothing here talks to WhatsApp: a request writes what is
//! wanted, then waits, bounded, for the worker to make it true.
//!
//! | module | what it holds |
//! |---|---|
//! | [`sessions`] | create, connect, disconnect, restart, log out, delete; the words for their states |
//! | [`messages`] | accept a message and wait for WhatsApp's acknowledgement; read |
//! | [`queue`] | what waits and what failed: figures, settings, clearing, trying again |
//! | [`pacing`] | how fast a session sends, and what WhatsApp asked of it |
//! | [`events`] | read the outbox from a cursor, waiting for news |
//! | [`api_keys`] | authenticate; list, create, revoke |
//! | [`tenants`] | what the operator does: tenants and their first keys |
//! | [`qr`] | link challenges as images |
//! | [`error`] | [`AppError`] and the stable words of failures |

pub mod api_keys;
mod app;
mod caller;
pub mod error;
pub mod events;
mod key_cache;
pub mod messages;
pub mod pacing;
pub mod qr;
pub mod queue;
pub mod sessions;
pub mod tenants;
mod waits;

pub use app::{App, AppOptions};
pub use caller::{Caller, CallerKind, Operator};
pub use error::{AppError, Code, Detail};
pub use events::EventsRequest;
pub use messages::{SendRequest, Sent, Validity};
pub use pacing::SessionPacing;
pub use queue::{Changed, Clear, QueueConfig, QueueFigures, QueueStanding, Withdrawn};
pub use sessions::{CreateSession, SessionStatus, Settled, Status};
pub use wagate_store::api_keys::ApiKey;
pub use wagate_store::messages::{HistoryEntry, Message, MessageFilter, MessageWithHistory};
pub use wagate_store::outbox::StoredEvent;
pub use wagate_store::queue::{
    DeadLetter, Job, JobState, QueueSettings, SessionQueue, SettingsChange, TenantQueue,
};
pub use wagate_store::sessions::{Counters, Session};
pub use wagate_store::tenants::Tenant;
pub use wagate_store::{Page, PageRequest};
