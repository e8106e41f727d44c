//! The gateway of the sandbox: embedded SQLite in a folder of its own, attached to the network.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wagate::config::Config;
use wagate::serve::Gateway;
use wagate_network::network::Network;

/// Marks a folder as ours, so that nobody else's is ever emptied.
const MARK: &str = ".wagate-sandbox";

/// The sandbox's folder; a temporary one goes with the value.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    /// Makes the folder, or empties it if an earlier run made it: the network forgets its accounts at
    /// its end, so an old database would only hold devices that nobody knows any more.
    pub(crate) fn prepare(wanted: Option<PathBuf>) -> Result<Self> {
        let Some(path) = wanted else {
            let temporary = tempfile::Builder::new()
                .prefix("wagate-sandbox-")
                .tempdir()?;
            return Ok(Self {
                path: temporary.path().to_owned(),
                _temporary: Some(temporary),
            });
        };
        let shown = path.display();
        fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {shown}"))?;
        let empty = fs::read_dir(&path)?.next().is_none();
        if !empty && !path.join(MARK).exists() {
            bail!("{shown} is not empty and no earlier run of the sandbox made it; name another");
        }
        for name in ["wagate.db", "wagate.db-wal", "wagate.db-shm"] {
            remove_if_there(&path.join(name))?;
        }
        fs::write(path.join(MARK), "")?;
        Ok(Self {
            path,
            _temporary: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Running {
    gateway: Gateway,
    api_key: String,
}

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    pub(crate) fn api_key(&self) -> &str {
        &self.api_key
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
    }
}

/// Starts the gateway on `listen`, attached to the network.
pub(crate) async fn start(
    network: &Network,
    folder: &Folder,
    listen: SocketAddr,
) -> Result<Running> {
    let mut config = Config::defaults()?;
    config.server.host = listen.ip().to_string();
    config.server.port = listen.port();
    config.store.url = format!("sqlite:{}", folder.path().join("wagate.db").display()).into();
    config.security.master_key_file = folder.path().join("master.key");
    config.whatsapp.url = network.ws_url();
    config.shutdown.timeout = Duration::from_secs(5);
    let gateway = Gateway::start(config).await.with_context(|| {
        format!(
            "the gateway cannot start on port {}; try --port 0",
            listen.port()
        )
    })?;
    let api_key = gateway
        .first_api_key()
        .context("the gateway made no API key")?
        .to_owned();
    Ok(Running { gateway, api_key })
}

/// Logs of both go to standard error, so that standard output stays readable.
pub(crate) fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter}: not a log filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Returns at Ctrl-C or SIGTERM.
pub(crate) async fn until_interrupted() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
