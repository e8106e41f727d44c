//! A PostgreSQL server of one's own, so that it can be crashed without disturbing anybody else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running server; killed when dropped, its data removed.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Cluster {
    /// Makes a server with an empty database and starts it.
    pub async fn start() -> Result<Self> {
        tokio::task::spawn_blocking(Self::make).await?
    }

    fn make() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("wagate-e2e-pg-")
            .tempdir()?;
        let cluster = Self {
            programs: programs(),
            port: free_port()?,
            folder,
        };
        if is_root() {
            let mut chown = Command::new("chown");
            run(chown.arg("postgres").arg(cluster.folder.path()))?;
        }
        let mut initdb = cluster.command("initdb");
        run(initdb
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(cluster.data()))?;
        run(&mut cluster.control("start"))?;
        Ok(cluster)
    }

    /// The address of its only database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends all its processes at once, as a crash would, and starts it again.
    pub async fn crash_and_restart(&self) -> Result<()> {
        let mut restart = self.control("restart");
        restart.args(["--mode", "immediate"]);
        tokio::task::spawn_blocking(move || run(&mut restart)).await?
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `pg_ctl` with what every use of it needs; it waits until it is done.
    fn control(&self, verb: &str) -> Command {
        let folder = self.folder.path();
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={}",
            self.port,
            folder.display()
        );
        let mut command = self.command("pg_ctl");
        command.args([verb, "--wait", "--timeout", "60", "--pgdata"]);
        command.arg(self.data());
        if verb != "stop" {
            command.args(["--options", &options, "--log"]);
            command.arg(folder.join("log"));
        }
        command
    }

    /// A program of the server, as its user: it refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.control("stop");
        // Nobody is left to be told of a failure.
        let _stopped = quiet(stop.args(["--mode", "immediate"])).status();
    }
}

/// The server inherits what `pg_ctl` has open, so no pipe may be among it: its reader would never end.
fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

fn run(command: &mut Command) -> Result<()> {
    let status = quiet(command)
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| String::from_utf8_lossy(&id.stdout).trim() == "0")
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// The folder of the newest server's programs: Debian keeps them outside the search path.
fn programs() -> PathBuf {
    let version = |folder: &Path| -> u32 {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|folder| folder.join("bin/pg_ctl").exists())
        .max_by_key(|folder| version(folder));
    // Elsewhere they lie in the search path.
    newest.map_or_else(PathBuf::new, |folder| folder.join("bin"))
}
