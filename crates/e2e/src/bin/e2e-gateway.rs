//! The gateway as the end-to-end tests run it: the production command line, linked to the simulated
//! network instead of WhatsApp, as a process that can be killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    wagate::cli::main_from(std::env::args())
}
