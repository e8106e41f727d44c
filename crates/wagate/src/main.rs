//! The production binary: everything is in the library half, so that tests run the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    wagate::cli::main_from(std::env::args_os())
}
