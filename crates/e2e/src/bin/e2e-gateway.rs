//! The gateway as the end-to-end tests run it: the production command line, linked to the simulated
//! network instead of WhatsApp, as a process that can be killed.
//!
//! With `--clock FILE` before the gateway's own arguments, its clock is as many milliseconds ahead of the
//! machine's as the file says, whenever that changes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    if arguments.len() > 2 && arguments[1] == "--clock" {
        let file = PathBuf::from(arguments.remove(2));
        arguments.remove(1);
        look(&file);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(LOOK_EVERY);
                look(&file);
            }
        });
    }
    wagate::cli::main_from(arguments)
}

/// Sets the clock as the file says; one that is not there says nothing.
fn look(file: &Path) {
    let said = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(ahead) = said.trim().parse() {
        wagate_domain::shift_system_clock(ahead);
    }
}
