//! `cargo xtask soak`: runs the soak, says how it goes, and ends with a code that says how it went.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results and progress are printed"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::time::Instant;
use wagate_e2e::soak::plan::{Kind, Shape};
use wagate_e2e::soak::{Soak, Summary};

/// Breaks gateways on purpose and looks whether they keep their promises.
#[derive(Debug, Parser)]
#[command(name = "soak", version, about)]
struct Cli {
    /// Decides the workload and the faults; the same seed makes the same plan.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No round begins after so many minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Rounds at most.
    #[arg(long, default_value_t = u32::MAX)]
    rounds: u32,
    /// Sends of a round; after each round everything is judged, and forgotten.
    #[arg(long, default_value_t = 3_000)]
    sends: u32,
    /// Sends a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    #[arg(long, default_value_t = 8)]
    contacts: usize,
    #[arg(long, default_value_t = 3)]
    tenants: usize,
    /// Milliseconds between two faults of a kind, about.
    #[arg(long, default_value_t = 4_000)]
    pause: u64,
    /// Milliseconds that a fault lasts at most.
    #[arg(long, default_value_t = 8_000)]
    longest: u64,
    /// Seconds that the work may take to end after the faults.
    #[arg(long, default_value_t = 150)]
    settle: u64,
    /// The database: with PostgreSQL there are two gateways and the server is crashed.
    #[arg(long, value_enum, default_value = "sqlite")]
    database: Database,
    /// Plants a named bug, which must then be found.
    #[arg(long)]
    plant: Option<String>,
    /// The gateway's program; the one beside this program if left out.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Prints the first round's plan and ends.
    #[arg(long)]
    plan: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#} (seed {})", cli.seed);
            ExitCode::from(2)
        }
    }
}

async fn run(cli: &Cli) -> Result<bool> {
    let soak = soak(cli)?;
    if cli.plan {
        print!("{}", soak.plan(0));
        return Ok(true);
    }
    let started = Instant::now();
    let summary = soak.run(|line| eprintln!("{line}")).await?;
    show(cli, &summary, started.elapsed());
    Ok(summary.breaches.is_empty())
}

fn soak(cli: &Cli) -> Result<Soak> {
    let beside = std::env::current_exe()?.with_file_name("e2e-gateway");
    let gateway = cli.gateway.clone().unwrap_or(beside);
    let gateway = gateway
        .canonicalize()
        .with_context(|| format!("there is no gateway at {}", gateway.display()))?;
    let (database, gateways) = match cli.database {
        Database::Sqlite => (Kind::Sqlite, 1),
        Database::Postgres => (Kind::Postgres, 2),
    };
    Ok(Soak {
        gateway,
        seed: cli.seed,
        shape: Shape {
            tenants: cli.tenants.max(1),
            sessions: cli.sessions.max(1),
            contacts: cli.contacts.max(1),
            gateways,
            database,
        },
        time: Duration::from_secs(cli.minutes * 60),
        rounds: cli.rounds,
        sends: cli.sends,
        rate: cli.rate,
        pause_ms: cli.pause.max(100),
        longest_ms: cli.longest.max(100),
        settle: Duration::from_secs(cli.settle),
        plant: cli.plant.clone(),
    })
}

fn show(cli: &Cli, summary: &Summary, time: Duration) {
    let seconds = time.as_secs();
    eprintln!(
        "\n{} rounds in {seconds} s: {} messages sent ({} delivered or read, {} failed with a reason), \
         {} received, {} requests refused, {} repeated, {} copies hidden by phones",
        summary.rounds,
        summary.sent,
        summary.delivered,
        summary.failed,
        summary.received,
        summary.refused,
        summary.retried,
        summary.copies
    );
    eprintln!("{} kills; faults:", summary.kills);
    for (name, count) in &summary.faults {
        eprintln!("  {count:>6} {name}");
    }
    if summary.breaches.is_empty() {
        eprintln!("0 violations");
    } else {
        eprintln!("{} violation(s):", summary.breaches.len());
        for breach in summary.breaches.iter().take(40) {
            eprintln!("  {breach}");
        }
        let round = summary.broken_round.unwrap_or(0);
        let file = std::env::temp_dir().join(format!("wagate-soak-{}-{round}.txt", cli.seed));
        match std::fs::write(&file, &summary.trace) {
            Ok(()) => eprintln!("what is known about them: {}", file.display()),
            Err(error) => eprintln!("{} cannot be written: {error}", file.display()),
        }
        eprintln!("seed {}, round {round}", cli.seed);
    }
    println!("{}", summary.to_json(cli.seed, seconds));
}
