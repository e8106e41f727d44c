//! The nouns and rules of wagate, with no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | every id newtype |
//! | [`jid`], [`phone`] | WhatsApp's addresses, phone numbers, what may be a recipient |
//! | [`session`] | a tenant's slot for one linked device: names, desired state, link challenge, [`session::LinkState`] |
//! | [`message`] | content, direction, [`message::MessageState`] and how it moves |
//! | [`receipt`] | what a device says about a message |
//! | [`event`] | the one enum that tenants see |
//! | [`retry`] | retry classes and backoff; the table of every refusal and fault |
//! | [`pacing`] | how fast a session may send, and when WhatsApp wants it to wait |
//! | [`limits`] | every bound |
//! | [`clock`], [`time`] | where the time comes from, and how it is written |
//! | [`failpoint`] | named points at which a test kills the process |
//! | [`plant`] | named bugs, to prove that the tests find them |

pub mod clock;
pub mod event;
pub mod failpoint;
pub mod id;
pub mod jid;
pub mod limits;
pub mod message;
pub mod pacing;
pub mod phone;
pub mod plant;
pub mod receipt;
pub mod retry;
pub mod session;
pub mod time;

pub use clock::{Clock, ManualClock, SystemClock, shift_system_clock};
pub use event::Event;
pub use id::{
    ApiKeyId, EventSeq, FencingToken, MessageId, SessionId, TenantId, WaMessageId, WorkerId,
};
pub use jid::{Jid, Server};
pub use message::{Content, Direction, MessageState, Priority};
pub use pacing::{PacingRules, Scope};
pub use phone::PhoneNumber;
pub use receipt::ReceiptKind;
pub use retry::{Backoff, RetryClass};
pub use session::{Desired, LinkChallenge, LinkMethod, LinkState, SessionName};
pub use time::Timestamp;
