//! `wagate-bench`: the benchmark scenarios, each ended by the checker.
//!
//! The gateway runs as a process of its own (this program again, with a hidden command), so that its
//! memory and CPU time are its own; the simulated network and the load generator share this process,
//! and report theirs. One JSON line a scenario goes to standard output, progress to standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results and progress are printed"
)]

mod calibration;
mod events;
mod load;
mod process;
mod report;
mod rig;
mod scenarios;
mod shelf;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use scenarios::{Load, campaign, fairness, inbound};

/// Measures wagate against the simulated network on this machine.
#[derive(Debug, Parser)]
#[command(name = "wagate-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// B01: paired sessions, the gateway cold, all allowed to connect at once.
    ConnectStorm {
        #[arg(long, value_delimiter = ',', default_value = "100,1000")]
        sessions: Vec<usize>,
    },
    /// B02: memory of an idle connected session, as the slope between two numbers of sessions.
    IdleMemory {
        #[arg(long, value_delimiter = ',', default_value = "200,1000")]
        sessions: Vec<usize>,
        /// How long to stay quiet before measuring, in seconds.
        #[arg(long, default_value_t = 60)]
        quiet: u64,
    },
    /// B02, state S1: memory of a session that has written to some contacts, as a slope likewise.
    ActiveMemory {
        #[arg(long, value_delimiter = ',', default_value = "20,100")]
        sessions: Vec<usize>,
        #[arg(long, default_value_t = 20)]
        contacts: usize,
        /// How long to stay quiet before each measurement, in seconds.
        #[arg(long, default_value_t = 10)]
        quiet: u64,
        /// The run fails when a session costs more KiB than this.
        #[arg(long, default_value_t = 1024.0)]
        limit_kib: f64,
    },
    /// B03: sends that wait for WhatsApp's acknowledgement, open loop.
    SyncSend {
        /// Sends a second, one run each.
        #[arg(long, value_delimiter = ',', default_value = "25,100,500")]
        rates: Vec<u32>,
        /// Length of each run, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        #[command(flatten)]
        load: Load,
    },
    /// B04: sends that do not wait, as many as go: accepted, acknowledged, delivered, recorded.
    Saturated {
        #[arg(long, default_value_t = 50_000)]
        messages: usize,
        #[command(flatten)]
        load: Load,
        /// Messages accepted and not yet delivered at any time.
        #[arg(long, default_value_t = 1024)]
        in_flight: usize,
    },
    /// B05: texts that come in, until their events were read.
    Inbound(inbound::Options),
    /// B06: first messages to many recipients, while another tenant sends steadily.
    Campaign(campaign::Options),
    /// B07: many tenants that send steadily beside one with a large backlog; then equal backlogs.
    Fairness(fairness::Options),
    /// How queueing and claiming grow with what waits (the store alone).
    GrowthQueue {
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "1000,10000,100000,1000000"
        )]
        queued: Vec<usize>,
        /// Fewer than the smallest queue has messages, so that at each step all chats have some waiting.
        #[arg(long, default_value_t = 100)]
        chats: usize,
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// How storing a message and showing the newest grow with what is stored (the store alone).
    GrowthHistory {
        #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
        messages: Vec<usize>,
        #[arg(long, default_value_t = 100)]
        sessions: usize,
        #[arg(long, default_value_t = 200)]
        chats: usize,
        #[arg(long, default_value_t = 500)]
        rounds: usize,
    },
    /// The gateway under measurement.
    #[command(hide = true, disable_help_flag = true)]
    Gateway {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Scenario::Gateway { arguments } = cli.scenario {
        let name = std::iter::once("wagate".to_owned());
        return wagate::cli::main_from(name.chain(arguments));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.scenario)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wagate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: Scenario) -> Result<()> {
    match scenario {
        Scenario::ConnectStorm { sessions } => scenarios::connect_storm::run(&sessions).await,
        Scenario::IdleMemory { sessions, quiet } => {
            scenarios::idle_memory::run(&sessions, quiet).await
        }
        Scenario::ActiveMemory {
            sessions,
            contacts,
            quiet,
            limit_kib,
        } => scenarios::active_memory::run(&sessions, contacts, quiet, limit_kib).await,
        Scenario::GrowthQueue {
            queued,
            chats,
            rounds,
        } => scenarios::growth_queue::run(&queued, chats, rounds).await,
        Scenario::GrowthHistory {
            messages,
            sessions,
            chats,
            rounds,
        } => scenarios::growth_history::run(&messages, sessions, chats, rounds).await,
        Scenario::SyncSend {
            rates,
            seconds,
            load,
        } => scenarios::sync_send::run(&rates, seconds, load).await,
        Scenario::Saturated {
            messages,
            load,
            in_flight,
        } => scenarios::saturated::run(messages, in_flight, load).await,
        Scenario::Inbound(options) => inbound::run(options).await,
        Scenario::Campaign(options) => campaign::run(options).await,
        Scenario::Fairness(options) => fairness::run(options).await,
        Scenario::Gateway { .. } => Ok(()),
    }
}
