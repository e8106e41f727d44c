//! wagate: the production binary and, for programs that embed a gateway, its library half.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`cli`] | the command line, one entry for every binary that carries it |
//! | [`client`] | a small client of the gateway's own API |
//! | [`config`] | layers, types, checks, with every problem at once |
//! | [`doctor`] | looks for what keeps a gateway from working, and says what to do |
//! | [`http`] | serves the API on a socket, within bounds |
//! | [`master_key`] | the key that seals device state: from the configuration, a file, or made |
//! | [`serve`] | the only wiring: [`serve::Gateway`] |
//! | [`shutdown`] | the signals that stop the process |
//! | [`telemetry`] | logs, metrics, and how errors are printed |

pub mod cli;
pub mod client;
pub mod config;
pub mod doctor;
mod files;
mod http;
pub mod master_key;
mod process;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
