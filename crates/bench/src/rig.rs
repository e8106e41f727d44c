//! The set-up of a scenario: the network here, the gateway in a child process, sessions linked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::{Instant, timeout};
use wagate::client::Client;
use wagate_e2e::people;
pub(crate) use wagate_e2e::people::{contact_number, owner_number};
use wagate_e2e::process::{GatewayProcess, Program};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::transcript::TranscriptOptions;

use crate::process::{self, Usage};

/// Opens the gateway's metrics to this program.
const METRICS_TOKEN: &str = "the-benchmarks-own-metrics-token";

/// Entries of the transcript in a run: about ten a message.
const TRANSCRIPT_ENTRIES: usize = 4_000_000;

/// A network, a gateway attached to it, and the folder of its database.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) network: Network,
    pub(crate) client: Client,
    gateway: GatewayProcess,
    program: Program,
    /// Of the database; removed at the end.
    _folder: tempfile::TempDir,
}

impl Rig {
    /// Starts both, with an empty database. Phones acknowledge and send receipts but do not decrypt,
    /// so that what is measured is the gateway.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wagate-bench-").tempdir()?;
        let mut options = NetworkOptions::default();
        options.phones.decrypt = false;
        // All of a run, so that the checkers judge all of it.
        options.transcript = TranscriptOptions::lean(TRANSCRIPT_ENTRIES);
        let network = Network::start(options).await?;
        let program = program(&network, folder.path())?;
        let gateway = GatewayProcess::start(&program, None).await?;
        let client = gateway.client().clone();
        Ok(Self {
            network,
            client,
            gateway,
            program,
            _folder: folder,
        })
    }

    /// Kills the gateway as `kill -9` would, and starts it again; returns when it answers.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.gateway.kill().await?;
        let key = self.client.key().to_owned();
        self.gateway = GatewayProcess::start(&self.program, Some(&key)).await?;
        self.client = self.gateway.client().clone();
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(Some(self.gateway.pid().context("the gateway has ended")?))
    }

    /// Makes another tenant; returns a client with its key.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Client> {
        Ok(self.client.with_key(self.program.tenant(name).await?))
    }

    /// Links sessions `from..to` of the first tenant, eight at a time.
    pub(crate) async fn link(&self, from: usize, to: usize) -> Result<()> {
        self.link_of(&self.client, from, to).await
    }

    /// Links sessions `from..to` of the tenant that `client` has a key of. All sessions of the rig are
    /// numbered on, whoever owns them.
    pub(crate) async fn link_of(&self, client: &Client, from: usize, to: usize) -> Result<()> {
        eprintln!("linking sessions {from} to {to} …");
        let bound = Duration::from_secs(60);
        stream::iter(from..to)
            .map(|n| async move {
                timeout(bound, self.link_one(client, n))
                    .await
                    .with_context(|| {
                        format!("session {n} was not linked in {} s", bound.as_secs())
                    })?
                    .with_context(|| format!("linking session {n}"))
            })
            .buffer_unordered(8)
            .try_collect::<Vec<()>>()
            .await?;
        self.until_connected(to, Duration::from_secs(60)).await
    }

    async fn link_one(&self, client: &Client, n: usize) -> Result<()> {
        let phone = self.account(&owner_number(n), "Owner")?;
        people::link(client, &session_name(n), &phone).await
    }

    /// Makes an account on the network.
    pub(crate) fn account(&self, number: &str, name: &str) -> Result<PhoneHandle> {
        people::account(&self.network, number, name)
    }

    /// Waits until the gateway itself says that so many sessions are connected.
    pub(crate) async fn until_connected(&self, count: usize, bound: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let connected = self.connected().await?;
            if connected >= count {
                return Ok(());
            }
            if started.elapsed() > bound {
                bail!(
                    "{connected} of {count} sessions connected within {} s",
                    bound.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn connected(&self) -> Result<usize> {
        let metrics = self.client.with_key(METRICS_TOKEN).text("/metrics").await?;
        Ok(metrics
            .lines()
            .find_map(|line| line.strip_prefix("wagate_sessions_connected "))
            .and_then(|value| value.trim().parse::<f64>().ok())
            .map_or(0, |value| format!("{value:.0}").parse().unwrap_or(0)))
    }

    /// The network's checkers over its transcript; a run that they do not pass has no result.
    pub(crate) fn check(&self) -> Result<()> {
        let violations = self.network.check();
        if let Some(first) = violations.first() {
            bail!(
                "the checkers found {} violation(s), the first: {first:?}",
                violations.len()
            );
        }
        Ok(())
    }

    /// Kills the gateway in the midst of its work, and waits until the phones have done theirs.
    pub(crate) async fn halt(&mut self) -> Result<()> {
        self.gateway.kill().await?;
        let settled = timeout(Duration::from_secs(60), self.network.phones().idle());
        settled.await.context("the phones are still busy")
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.gateway.kill().await?;
        self.network.stop().await;
        Ok(())
    }
}

/// What session number `n` is called.
pub(crate) fn session_name(n: usize) -> String {
    format!("bench-{n:05}")
}

fn program(network: &Network, folder: &Path) -> Result<Program> {
    let mut program = Program::new(&std::env::current_exe()?, folder, &network.ws_url());
    program.prefix = vec!["gateway".to_owned()];
    for (name, value) in [
        ("WAGATE_WHATSAPP__CONNECTS_PER_SECOND", "1000"),
        ("WAGATE_WORKER__SESSIONS_MAX", "20000"),
        ("WAGATE_WORKER__RESTORE_PER_SECOND", "1000"),
        ("WAGATE_LOG__LEVEL", "warn"),
        ("WAGATE_SECURITY__METRICS_TOKEN", METRICS_TOKEN),
    ] {
        program.set(name, value);
    }
    Ok(program)
}
