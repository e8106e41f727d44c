//! A network and a gateway, and the verbs in which tests are written. Every wait is bounded and says
//! what it waited for and what it saw.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use wagate::client::{Answer, Client, ClientError};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;

use crate::people;
use crate::process::{GatewayProcess, Program};

/// The bound of every wait: generous, since debug builds share two cores; no test is slower for it.
pub const WAIT_MAX: Duration = Duration::from_secs(45);
/// How often something is asked for that sends no event.
const ASK_EVERY: Duration = Duration::from_millis(40);

/// Which database the gateway uses.
#[derive(Clone, Debug, Default)]
pub enum Database {
    /// A file in the harness's folder.
    #[default]
    Sqlite,
    /// A database of its own on this server.
    Postgres(String),
}

/// How a harness is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub database: Database,
    /// Settings of the gateway, beside those that every test needs.
    pub settings: Vec<(String, String)>,
    pub network: NetworkOptions,
    /// See [`Program::survive_full_disk`].
    pub survive_full_disk: bool,
}

/// A network, and a gateway that is attached to it.
#[derive(Debug)]
pub struct Harness {
    pub network: Network,
    pub program: Program,
    gateway: GatewayProcess,
    folder: tempfile::TempDir,
}

impl Harness {
    /// Starts both. `gateway` is the test gateway's program: `env!("CARGO_BIN_EXE_e2e-gateway")`.
    pub async fn start(gateway: &str, setup: Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wagate-e2e-").tempdir()?;
        let network = Network::start(setup.network).await?;
        let mut program = Program::new(Path::new(gateway), folder.path(), &network.ws_url());
        if let Database::Postgres(url) = &setup.database {
            program.set("WAGATE_STORE__URL", url);
        }
        for (name, value) in &setup.settings {
            program.set(name, value);
        }
        if setup.survive_full_disk {
            program.survive_full_disk();
        }
        let gateway = GatewayProcess::start(&program, None).await?;
        Ok(Self {
            network,
            program,
            gateway,
            folder,
        })
    }

    /// The first tenant's client.
    pub fn client(&self) -> &Client {
        self.gateway.client()
    }

    pub fn gateway(&mut self) -> &mut GatewayProcess {
        &mut self.gateway
    }

    /// Starts another gateway beside the first, on the same database: PostgreSQL only.
    pub async fn second(&self) -> Result<GatewayProcess> {
        GatewayProcess::start(&self.program, Some(self.client().key())).await
    }

    /// From now on this gateway is asked; returns the one that was.
    pub fn replace(&mut self, gateway: GatewayProcess) -> GatewayProcess {
        std::mem::replace(&mut self.gateway, gateway)
    }

    /// The folder of the database and the master key.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Kills the gateway as `kill -9` would, if it still lives, and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// The same, with settings for this run only.
    pub async fn restart_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        let key = self.client().key().to_owned();
        if self.gateway.pid().is_some() {
            self.gateway.kill().await?;
        }
        let mut program = self.program.clone();
        for (name, value) in settings {
            program.set(name, value);
        }
        self.gateway = GatewayProcess::start(&program, Some(&key)).await?;
        Ok(())
    }

    /// Makes an account and its phone.
    pub fn account(&self, number: &str, name: &str) -> Result<PhoneHandle> {
        people::account(&self.network, number, name)
    }

    pub fn account_with(&self, spec: AccountSpec) -> Result<PhoneHandle> {
        Ok(self.network.add_phone(spec)?)
    }

    /// Creates a session and links it to the phone by QR; returns when it is connected.
    pub async fn link(&self, session: &str, phone: &PhoneHandle) -> Result<Value> {
        people::link(self.client(), session, phone).await?;
        self.until_session(session, "connected").await
    }

    /// Links a session that exists.
    pub async fn link_again(&self, session: &str, phone: &PhoneHandle) -> Result<Value> {
        people::link_again(self.client(), session, phone).await?;
        self.until_session(session, "connected").await
    }

    /// Sends a text without waiting; returns the message's id.
    pub async fn send(&self, session: &str, to: &PhoneHandle, text: &str) -> Result<String> {
        let answer = self.post_text(session, &to.number(), text, "0").await?;
        Ok(answer.data()["id"]
            .as_str()
            .context("no id in the answer")?
            .to_owned())
    }

    /// Sends a text as a careful client does: with a key, again and again until it is accepted. Returns
    /// the message's id and what the refusals on the way were.
    pub async fn insist(
        &self,
        session: &str,
        to: &PhoneHandle,
        text: &str,
    ) -> Result<(String, Vec<ClientError>)> {
        let path = format!("/api/v1/sessions/{session}/messages?wait=0");
        let body = json!({ "to": to.number(), "type": "text", "message": text });
        let key = [("idempotency-key", text)];
        let started = Instant::now();
        let mut refusals = Vec::new();
        loop {
            let client = self.client();
            match client.call(Method::POST, &path, Some(&body), &key).await {
                Ok(answer) => {
                    let id = answer.data()["id"]
                        .as_str()
                        .context("no id in the answer")?;
                    return Ok((id.to_owned(), refusals));
                }
                Err(error) if started.elapsed() < WAIT_MAX => refusals.push(error),
                Err(error) => return Err(error).context(format!("{text} is never accepted")),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Sends a text and returns the whole answer.
    pub async fn post_text(
        &self,
        session: &str,
        to: &str,
        text: &str,
        wait: &str,
    ) -> Result<Answer, ClientError> {
        let path = format!("/api/v1/sessions/{session}/messages?wait={wait}");
        let body = json!({ "to": to, "type": "text", "message": text });
        self.client().post(&path, &body).await
    }

    pub async fn session(&self, session: &str) -> Result<Value> {
        let path = format!("/api/v1/sessions/{session}/status");
        Ok(self.client().get(&path).await?.data().clone())
    }

    pub async fn message(&self, message: &str) -> Result<Value> {
        Ok(self
            .client()
            .get(&format!("/api/v1/messages/{message}"))
            .await?
            .data()
            .clone())
    }

    /// Waits until a session has this status.
    pub async fn until_session(&self, session: &str, status: &str) -> Result<Value> {
        self.until(&format!("session {session} {status}"), || async {
            let seen = self.session(session).await?;
            let there = seen["status"] == status;
            Ok((there, seen))
        })
        .await
    }

    /// Waits until a message has this status, or one that lies behind it.
    pub async fn until_message(&self, message: &str, status: &str) -> Result<Value> {
        self.until(&format!("message {message} {status}"), || async {
            let seen = self.message(message).await?;
            let reached = seen["history"]
                .as_array()
                .is_some_and(|steps| steps.iter().any(|step| step["status"] == status));
            let there = seen["status"] == status || reached;
            Ok((there, seen))
        })
        .await
    }

    /// Waits until a session has received so many messages; returns them, newest first.
    pub async fn until_received(&self, session: &str, count: usize) -> Result<Vec<Value>> {
        let path = format!("/api/v1/sessions/{session}/messages?direction=inbound&limit=200");
        let seen = self
            .until(
                &format!("{count} inbound message(s) of {session}"),
                || async {
                    let answer = self.client().get(&path).await?;
                    let inbound: Vec<Value> = answer
                        .data()
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter(|message| message["direction"] == "inbound")
                        .cloned()
                        .collect();
                    Ok((inbound.len() >= count, Value::Array(inbound)))
                },
            )
            .await?;
        Ok(seen.as_array().cloned().unwrap_or_default())
    }

    /// Asks again and again until the answer is as wanted, bounded. A gateway that is away is asked
    /// again too.
    pub async fn until<F, A>(&self, what: &str, ask: F) -> Result<Value>
    where
        F: Fn() -> A,
        A: Future<Output = Result<(bool, Value)>>,
    {
        let started = Instant::now();
        loop {
            let seen = match ask().await {
                Ok((true, seen)) => return Ok(seen),
                Ok((false, seen)) => seen.to_string(),
                Err(error) => format!("{error:#}"),
            };
            if started.elapsed() > WAIT_MAX {
                bail!(
                    "waited {} s for: {what}\nlast seen: {seen}\nthe gateway printed:\n{}",
                    WAIT_MAX.as_secs(),
                    self.gateway.output()
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// All events of the tenant, from the first.
    pub async fn events(&self) -> Result<Vec<Value>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/events?after={after}&limit=200");
            let answer = self.client().get(&path).await?;
            let page = answer.data().as_array().cloned().unwrap_or_default();
            let Some(last) = page.last() else {
                return Ok(all);
            };
            after = last["seq"].as_i64().context("an event has no seq")?;
            all.extend(page);
        }
    }

    /// The network's verdict over everything that crossed: the last line of every test.
    pub fn check(&self) -> Result<()> {
        let violations = self.network.check();
        if violations.is_empty() {
            return Ok(());
        }
        bail!(
            "the network's checkers found {} violation(s): {violations:#?}",
            violations.len()
        )
    }
}
