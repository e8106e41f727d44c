//! The set-up of a run: network, phones, database, gateways, tenants, linked sessions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wagate::client::Client;
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::transcript::TranscriptOptions;

use super::journal::Book;
use super::keeper::{Hand, Keeper, Order};
use super::plan::{Kind, Shape};
use crate::cluster::Cluster;
use crate::people::{account, contact_number, link, owner_number};
use crate::process::{GatewayProcess, Program};

/// Entries of the transcript for each send of a round, with its share of texts that come in and of what is
/// said again: about twice of what a round makes, since the one before is still there.
const ENTRIES_PER_SEND: usize = 24;
/// Entries of the transcript at least.
const ENTRIES_MIN: usize = 100_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long linking may take.
const LINK_MAX: Duration = Duration::from_secs(60);

/// Settings of every gateway of a run: what takes long by default is short here.
const SETTINGS: [(&str, &str); 10] = [
    ("WAGATE_WORKER__ACK_TIMEOUT", "3s"),
    ("WAGATE_WORKER__RESEND_AFTER", "1s"),
    ("WAGATE_WORKER__LEASE_TTL", "3s"),
    ("WAGATE_WORKER__TICK", "500ms"),
    ("WAGATE_WORKER__RECONNECT_WITHIN", "10s"),
    ("WAGATE_WORKER__RESTORE_PER_SECOND", "1000"),
    ("WAGATE_WHATSAPP__CONNECTS_PER_SECOND", "1000"),
    ("WAGATE_SHUTDOWN__TIMEOUT", "10s"),
    ("WAGATE_LOG__LEVEL", "warn,wagate=info"),
    ("WAGATE_TESTING__ABORT_AT", ""),
];

/// A session and the phone that owns it.
#[derive(Clone, Debug)]
pub struct Slot {
    pub name: String,
    pub tenant: usize,
    pub owner: PhoneHandle,
}

/// Everything that a run works with.
#[derive(Debug)]
pub struct Rig {
    pub shape: Shape,
    pub network: Network,
    pub hands: Vec<Hand>,
    /// One API key a tenant.
    pub keys: Vec<String>,
    pub slots: Vec<Slot>,
    pub contacts: Vec<PhoneHandle>,
    pub book: Arc<Book>,
    pub cluster: Option<Cluster>,
    /// The files that move the gateways' clocks.
    pub clocks: Vec<PathBuf>,
    keepers: JoinSet<()>,
    folder: TempDir,
}

/// A network that remembers all of a round with so many sends.
async fn network(sends: u32) -> Result<Network> {
    let entries = usize::try_from(sends)?.saturating_mul(ENTRIES_PER_SEND);
    let options = NetworkOptions {
        transcript: TranscriptOptions::lean(entries.max(ENTRIES_MIN)),
        ..NetworkOptions::default()
    };
    Ok(Network::start(options).await?)
}

/// Some contacts read what they get, some only when they are told to.
pub fn reads_by_himself(contact: usize) -> bool {
    contact.is_multiple_of(2)
}

impl Rig {
    /// Starts everything and links the sessions. `plant` is a bug to plant into the gateways.
    ///
    /// A round may have `sends` sends.
    pub async fn start(
        gateway: &Path,
        shape: Shape,
        sends: u32,
        plant: Option<&str>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wagate-soak-").tempdir()?;
        let network = network(sends).await?;
        let mut program = Program::new(gateway, folder.path(), &network.ws_url());
        for (name, value) in SETTINGS {
            program.set(name, value);
        }
        let cluster = match shape.database {
            Kind::Sqlite => None,
            Kind::Postgres => Some(Cluster::start().await?),
        };
        if let Some(cluster) = &cluster {
            program.set("WAGATE_STORE__URL", &cluster.url());
        }
        program.survive_full_disk();
        // Linking is no part of what is judged: the first lives are sound.
        let mut planted = program.clone();
        if let Some(plant) = plant {
            planted.set("WAGATE_TESTING__PLANT", plant);
        }
        let book = Arc::new(Book::default());
        let (mut hands, mut keepers) = (Vec::new(), JoinSet::new());
        let mut first_key: Option<String> = None;
        let (mut clients, mut clocks) = (Vec::new(), Vec::new());
        for number in 0..shape.gateways {
            let clock = folder.path().join(format!("clock-{number}"));
            let arguments = ["--clock".to_owned(), clock.display().to_string()];
            let (mut program, mut planted) = (program.clone(), planted.clone());
            for program in [&mut program, &mut planted] {
                program.prefix.extend(arguments.clone());
            }
            clocks.push(clock);
            let process = GatewayProcess::start(&program, first_key.as_deref()).await?;
            first_key.get_or_insert_with(|| process.client().key().to_owned());
            clients.push(process.client().clone());
            let (book, network) = (Arc::clone(&book), network.clone());
            let (keeper, hand) = Keeper::new(number, planted, process, book, network);
            keepers.spawn(keeper.run());
            hands.push(hand);
        }
        let mut keys: Vec<String> = first_key.into_iter().collect();
        for number in 1..shape.tenants {
            keys.push(program.tenant(&format!("tenant-{number}")).await?);
        }
        let mut rig = Self {
            shape,
            network,
            hands,
            keys,
            slots: Vec::new(),
            contacts: Vec::new(),
            book,
            cluster,
            clocks,
            keepers,
            folder,
        };
        let client = clients.first().context("there must be a gateway")?;
        rig.people(client).await?;
        if plant.is_some() {
            for hand in &rig.hands {
                let (rest, point) = (Duration::ZERO, None);
                hand.order(Order::Kill { rest, point }).await;
            }
        }
        Ok(rig)
    }

    async fn people(&mut self, client: &Client) -> Result<()> {
        for n in 0..self.shape.contacts {
            let phone = account(&self.network, &contact_number(n), "Contact")?;
            if reads_by_himself(n) {
                phone.read_after(Duration::from_millis(150));
            }
            self.contacts.push(phone);
        }
        for n in 0..self.shape.sessions {
            let owner = account(&self.network, &owner_number(n), "Owner")?;
            let slot = Slot {
                name: format!("soak-{n:03}"),
                tenant: n % self.shape.tenants,
                owner,
            };
            let client = client.with_key(&self.keys[slot.tenant]);
            let linked = async {
                link(&client, &slot.name, &slot.owner).await?;
                until_connected(&client, &slot.name).await
            };
            timeout(LINK_MAX, linked)
                .await
                .with_context(|| format!("{} was not linked in time", slot.name))??;
            self.slots.push(slot);
        }
        Ok(())
    }

    /// The file of an embedded database.
    pub fn database_file(&self) -> PathBuf {
        self.folder.path().join("wagate.db")
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.hands.clear();
        self.keepers.shutdown().await;
        self.network.stop().await;
    }
}

/// The phone has scanned before the gateway knows of it: until then there is nothing to judge.
async fn until_connected(client: &Client, session: &str) -> Result<()> {
    let path = format!("/api/v1/sessions/{session}/status");
    while client.get(&path).await?.data()["status"] != "connected" {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}
