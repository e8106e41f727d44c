//! A gateway as a process of its own, so that its death is real and its memory its own.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use wagate::client::Client;

/// How long a start may take: a debug build on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of output kept for a failure's report.
const LINES_KEPT: usize = 400;

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and what precedes the gateway's own arguments.
    pub path: PathBuf,
    pub prefix: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    pub folder: PathBuf,
}

/// A gateway process; killed when dropped.
#[derive(Debug)]
pub struct GatewayProcess {
    child: Child,
    client: Client,
    output: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Debug, Default)]
struct Found {
    address: Option<String>,
    key: Option<String>,
    ended: bool,
}

impl GatewayProcess {
    /// Starts `serve` and returns when it listens. `key` is an API key that is known already; without
    /// one, the database must be empty, so that the gateway makes its first key and prints it.
    pub async fn start(program: &Program, key: Option<&str>) -> Result<Self> {
        let mut child = program
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.path.display()))?;
        let output = Arc::new(Mutex::new(Vec::new()));
        let (found, mut seen) = watch::channel(Found {
            key: key.map(str::to_owned),
            ..Found::default()
        });
        let found = Arc::new(found);
        let stdout = child.stdout.take().context("no output")?;
        let stderr = child.stderr.take().context("no error output")?;
        follow(stdout, Arc::clone(&output), Arc::clone(&found));
        follow(stderr, Arc::clone(&output), found);
        let ready = timeout(
            START_MAX,
            seen.wait_for(|found| found.ended || (found.address.is_some() && found.key.is_some())),
        )
        .await;
        let found = match ready {
            Ok(Ok(found)) if !found.ended => found.clone(),
            _ => bail!("the gateway did not start:\n{}", shown(&output)),
        };
        let client = Client::new(
            found.address.unwrap_or_default(),
            found.key.unwrap_or_default(),
        )?;
        Ok(Self {
            child,
            client,
            output,
        })
    }

    /// A client with the first tenant's key.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it printed last, for a failure's report.
    pub fn output(&self) -> String {
        shown(&self.output)
    }

    /// Kills it as `kill -9` would.
    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .context("the gateway cannot be killed")
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.context("the gateway has ended")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Bounds the size that its files may grow to, as a full disk would; `None` lifts the bound. Needs
    /// [`Program::survive_full_disk`].
    pub async fn bound_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = self.pid().context("the gateway has ended")?;
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let mut command = Command::new("prlimit");
        command.args([format!("--pid={pid}"), format!("--fsize={soft}:")]);
        must(command).await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, bound: Duration) -> Result<ExitStatus> {
        match timeout(bound, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "the gateway still runs after {} s:\n{}",
                bound.as_secs(),
                self.output()
            ),
        }
    }
}

impl GatewayProcess {
    /// Waits until it has ended, however long that takes.
    pub async fn exited(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// How it ended, if it has.
    pub fn try_exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Program {
    /// The program with these arguments, in its folder and environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.prefix)
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the gateway to its end; returns its exit code and all that it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let output = timeout(
            START_MAX,
            self.command(arguments).stdin(Stdio::null()).output(),
        )
        .await
        .with_context(|| format!("`{}` did not end", arguments.join(" ")))??;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }

    /// Makes a tenant on the command line; gives its first key.
    pub async fn tenant(&self, name: &str) -> Result<String> {
        let (code, text) = self.run(&["tenant", "create", name]).await?;
        let key = text.split_whitespace().find(|word| word.starts_with("wg_"));
        key.map(str::to_owned)
            .with_context(|| format!("no tenant was made ({code:?}): {text}"))
    }

    /// The settings that every test needs: a port of its own, its folder, the simulated network.
    pub fn new(path: &Path, folder: &Path, network_url: &str) -> Self {
        let text = |path: PathBuf| path.display().to_string();
        let environment = [
            ("WAGATE_SERVER__HOST", "127.0.0.1".to_owned()),
            ("WAGATE_SERVER__PORT", "0".to_owned()),
            (
                "WAGATE_STORE__URL",
                format!("sqlite:{}", text(folder.join("wagate.db"))),
            ),
            (
                "WAGATE_SECURITY__MASTER_KEY_FILE",
                text(folder.join("master.key")),
            ),
            ("WAGATE_WHATSAPP__URL", network_url.to_owned()),
            (
                "WAGATE_LOG__LEVEL",
                "info,wagate_engine=debug,wagate_worker=debug".to_owned(),
            ),
        ];
        Self {
            path: path.to_owned(),
            prefix: Vec::new(),
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            folder: folder.to_owned(),
        }
    }

    /// Makes a write over the bound of [`GatewayProcess::bound_files`] an error, as on a full disk, and
    /// not the process's end.
    pub fn survive_full_disk(&mut self) {
        let program = std::mem::replace(&mut self.path, PathBuf::from("/bin/sh"));
        let script = r#"trap "" XFSZ; exec "$0" "$@""#;
        let before = ["-c".to_owned(), script.to_owned()];
        let prefix = before.into_iter().chain([program.display().to_string()]);
        self.prefix.splice(0..0, prefix);
    }

    /// Adds or replaces a setting.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }
}

/// Runs a program of the system; it must succeed.
async fn must(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Reads the process's output to its end, so that a full pipe never stops it, and looks for the
/// address and the key that it prints for people.
fn follow(
    stream: impl AsyncRead + Unpin + Send + 'static,
    output: Arc<Mutex<Vec<String>>>,
    found: Arc<watch::Sender<Found>>,
) {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the process whose output it reads"
    )]
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            for word in line.split_whitespace() {
                if word.starts_with("http://") {
                    found.send_modify(|found| {
                        found.address = Some(word.trim_end_matches('/').to_owned());
                    });
                } else if word.starts_with("wg_") {
                    found.send_modify(|found| found.key = Some(word.to_owned()));
                }
            }
            if line.contains("wagate_api::middleware::observe") {
                // The harness's own questions would push everything else out.
                continue;
            }
            let mut kept = output.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LINES_KEPT {
                kept.remove(0);
            }
            kept.push(line);
        }
        found.send_modify(|found| found.ended = true);
    });
}

fn shown(output: &Mutex<Vec<String>>) -> String {
    output
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .join("\n")
}
