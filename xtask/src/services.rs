//! PostgreSQL for the tests: a cluster of its own on a free port, durable settings left on, so that
//! what is tested is what runs.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// The environment variable that the tests read.
pub(crate) const POSTGRES_VARIABLE: &str = "WAGATE_TEST_POSTGRES_URL";

/// Starts PostgreSQL unless it runs already; returns its URL.
pub(crate) fn postgres_up() -> Result<String> {
    if let Ok(url) = fs::read_to_string(folder().join("url"))
        && is_up()
    {
        return Ok(url);
    }
    if bin_folder().is_none() {
        run::install(&["postgresql"])?;
    }
    let bin = bin_folder().context("PostgreSQL was installed but its programs were not found")?;
    postgres_down()?;
    let folder = folder();
    fs::create_dir_all(&folder)?;
    if run::is_root() {
        run::output(Command::new("chown").arg("postgres").arg(&folder))?;
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let data = folder.join("data");
    println!("starting PostgreSQL on port {port} …");
    run::output(
        as_server_user(&bin.join("initdb"))
            .args([
                "--username",
                "postgres",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
            ])
            .args(["--no-instructions", "--pgdata"])
            .arg(&data),
    )?;
    let options = format!(
        "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c max_connections=300",
        folder.display()
    );
    run::output(
        as_server_user(&bin.join("pg_ctl"))
            .args([
                "start",
                "--wait",
                "--timeout",
                "60",
                "--options",
                &options,
                "--pgdata",
            ])
            .arg(&data)
            .arg("--log")
            .arg(folder.join("log")),
    )
    .with_context(|| format!("see {}", folder.join("log").display()))?;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    fs::write(folder.join("url"), &url)?;
    Ok(url)
}

/// Stops PostgreSQL, if it runs, and removes its data.
pub(crate) fn postgres_down() -> Result<()> {
    let folder = folder();
    if is_up()
        && let Some(bin) = bin_folder()
    {
        run::output(
            as_server_user(&bin.join("pg_ctl"))
                .args(["stop", "--mode", "fast", "--wait", "--pgdata"])
                .arg(folder.join("data")),
        )?;
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", folder.display())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where its data lies: outside the checkout, whose folders another user may not enter.
fn folder() -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    run::root().hash(&mut hasher);
    std::env::temp_dir().join(format!("wagate-postgres-{:016x}", hasher.finish()))
}

fn is_up() -> bool {
    let data = folder().join("data");
    bin_folder().is_some_and(|bin| {
        run::output(
            as_server_user(&bin.join("pg_ctl"))
                .args(["status", "--pgdata"])
                .arg(data),
        )
        .is_ok()
    })
}

/// The newest installed PostgreSQL: Debian keeps its programs outside the search path.
fn bin_folder() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| version(bin));
    newest.or_else(|| run::exists("initdb").then(PathBuf::new))
}

fn version(bin: &Path) -> u32 {
    let name = bin.parent().and_then(Path::file_name);
    name.and_then(|name| name.to_str())
        .and_then(|name| name.parse().ok())
        .unwrap_or(0)
}

/// PostgreSQL refuses to run as root.
fn as_server_user(program: &Path) -> Command {
    let mut command = if run::is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}
