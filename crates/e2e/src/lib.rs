//! The harness of the end-to-end tests: a simulated network here, the gateway in a process of its own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`process`] | a gateway process: started, asked, killed as `kill -9` would |
//! | [`cluster`] | a PostgreSQL server that can be crashed |
//! | [`people`] | accounts, phones, and the linking of sessions to them |
//! | [`harness`] | both, with the verbs that tests are written in; every wait has a bound |
//! | [`soak`] | seeded workload and faults against it all, judged round by round |

pub mod cluster;
pub mod harness;
pub mod people;
pub mod process;
pub mod soak;

pub use harness::{Database, Harness, Setup};
pub use process::GatewayProcess;
