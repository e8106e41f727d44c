//! One linked device of WhatsApp per session, over `whatsapp-rust`.
//!
//! This is the only crate that names `wacore` or `whatsapp_rust` types; none of them is in its public
//! interface (engine rule 10). The worker's session actors call it, and nobody else.
//!
//! | module | what it holds |
//! |---|---|
//! | [`engine`](Engine) | what all devices of a process share: connector, HTTP client, pacing, version |
//! | [`device`](Device) | one device: link, connect, send, log out, stop |
//! | [`endpoint`](Endpoint) | WhatsApp itself, or in an unsafe build a simulated network, never both |
//! | [`event`](EngineEvent) | what a device tells its actor |
//! | [`sink`](InboundSink) | inbound messages, committed before they are acknowledged (IN-1) |
//! | [`error`](EngineError) | what went wrong, and whether to try again |
//! | `acks` | server acknowledgements, correlated by id, with a time-out of our own (MP-5) |
//! | `backend` | the library's storage traits over `wagate_store::device_state` (SL-1, SL-2) |
//! | `runtime` | tokio for the library, with more patience in writing behind |
//! | `outbound`, `inbound`, `jid` | every conversion from and to the library's types |

mod acks;
mod backend;
mod device;
mod endpoint;
mod engine;
mod error;
mod event;
mod handler;
mod http;
mod inbound;
mod jid;
mod options;
mod outbound;
mod pairing;
mod runner;
mod runtime;
mod sink;
mod transport;
mod unbroken;
mod version;

pub use device::{Device, DeviceStats, Identity, Registration, Written};
pub use endpoint::{Endpoint, EndpointError};
pub use engine::Engine;
pub use error::EngineError;
pub use event::{Ended, EngineEvent};
pub use options::{EngineOptions, Liveness, Pace, WaVersion};
pub use sink::{InboundMessage, InboundSink, SinkError};
