//! The project's tooling: `cargo xtask <command>`. What CI runs is what a developer runs.

#![expect(
    clippy::print_stdout,
    reason = "a command-line tool speaks by printing"
)]

mod node;
mod openapi;
mod run;
mod services;
mod soak;
mod suite;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, checks and tests wagate.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that must pass before a change lands: formatting, lints, source rules,
    /// documentation, the API description, and all tests.
    Ci,
    /// All tests, with the services and packages that they need: installed (Debian, npm) and started
    /// where they are absent.
    Test {
        /// Leaves out what needs PostgreSQL or Node packages.
        #[arg(long)]
        quick: bool,
        /// Passed on to `cargo nextest run`, for instance a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The source rules: layers, where which library may be named, file lengths, the unsafe feature.
    Tidy,
    /// Writes docs/openapi.json, or with --check compares it.
    Openapi {
        #[arg(long)]
        check: bool,
    },
    /// PostgreSQL for tests, on a free port of this machine.
    Services {
        #[command(subcommand)]
        action: Services,
    },
    /// Node and the packages of the JavaScript clients, for a test by hand; prints the search path that
    /// the tests want, where it is not this machine's own.
    Node,
    /// Breaks gateways on purpose and judges what comes of it: `cargo xtask soak --seed 1 --minutes 10`;
    /// `--help` has the rest.
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Starts the sandbox: a simulated WhatsApp network with a gateway attached to it.
    Dev,
}

#[derive(Debug, Subcommand)]
enum Services {
    /// Starts it and prints the variable that the tests read.
    Up,
    /// Stops it and removes its data.
    Down,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Ci => suite::ci(),
        Command::Test { quick, arguments } => suite::test(quick, &arguments),
        Command::Tidy => tidy::tidy(),
        Command::Openapi { check } => openapi::openapi(check),
        Command::Services {
            action: Services::Up,
        } => {
            println!(
                "{}={}",
                services::POSTGRES_VARIABLE,
                services::postgres_up()?
            );
            Ok(())
        }
        Command::Services {
            action: Services::Down,
        } => services::postgres_down(),
        Command::Node => {
            if let Some(path) = node::packages_up()? {
                println!("PATH={}", path.display());
            }
            Ok(())
        }
        Command::Soak { arguments } => soak::soak(&arguments),
        Command::Dev => run::cargo(&["run", "--package", "wagate-sandbox"]),
    }
}
