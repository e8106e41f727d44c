//! The harness of the end-to-end tests: a simulated network here, the gateway in a process of its own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`process`] | a gateway process: started, asked, killed as `kill -9` would |
//! | [`harness`] | both, with the verbs that tests are written in; every wait has a bound |

pub mod harness;
pub mod process;

pub use harness::{Database, Harness, Setup};
pub use process::GatewayProcess;
