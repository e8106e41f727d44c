//! A database for one test, and the few rows that most tests begin with.

pub(crate) mod queues;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wagate_domain::message::Content;
use wagate_domain::session::{Desired, SessionName};
use wagate_domain::{Jid, SessionId, TenantId, Timestamp, WorkerId};
use wagate_store::leases::{self, Lease};
use wagate_store::messages::{self, Message, NewOutbound, Priority};
use wagate_store::queue::{self, Claimed};
use wagate_store::sessions::{self, NewSession, Session};
use wagate_store::{Db, DbOptions, MasterKey, Sealer, StoreError, Tx, tenants};

/// Makes `sqlite::name` and `postgres::name` of each function `async fn name(f: Fixture)`.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::Fixture::sqlite().await).await;
            }
        )*}
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs PostgreSQL"]
            async fn $name() {
                super::$name(crate::support::Fixture::postgres().await).await;
            }
        )*}
    };
}

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
pub(crate) const TTL: Duration = Duration::from_secs(15);

/// An open, migrated database that is removed with the fixture.
pub(crate) struct Fixture {
    pub(crate) db: Db,
    pub(crate) options: DbOptions,
    pub(crate) key: MasterKey,
    place: Place,
}

/// Where the database is; removed when dropped.
pub(crate) enum Place {
    Folder(tempfile::TempDir),
    Schema(Schema),
}

pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The client must not run on an async thread.
        let dropped = std::thread::spawn(move || {
            let mut client = postgres::Client::connect(&server, postgres::NoTls)?;
            client.batch_execute(&format!(
                "SET lock_timeout = 2000; DROP SCHEMA {name} CASCADE"
            ))
        });
        drop(dropped.join());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where PostgreSQL is"
)]
pub(crate) fn postgres_url() -> String {
    std::env::var("WAGATE_TEST_POSTGRES_URL")
        .expect("WAGATE_TEST_POSTGRES_URL names a PostgreSQL server for the tests")
}

/// A URL whose connections live in a new schema.
pub(crate) fn new_schema(server: &str) -> (String, Schema) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    let name = format!("t_{}_{number}", SessionId::generate().as_str());
    let (url, created) = (server.to_owned(), name.clone());
    std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client
            .batch_execute(&format!("CREATE SCHEMA {created}"))
            .unwrap();
    })
    .join()
    .unwrap();
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options=-c%20search_path%3D{name}");
    (
        url,
        Schema {
            server: server.to_owned(),
            name,
        },
    )
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!(
            "sqlite:{}",
            folder.path().join("data").join("wagate.db").display()
        );
        Self::open(DbOptions::new(url), Place::Folder(folder), true).await
    }

    pub(crate) async fn postgres() -> Self {
        let (url, schema) = new_schema(&postgres_url());
        let mut options = DbOptions::new(url);
        options.pool = 4;
        Self::open(options, Place::Schema(schema), true).await
    }

    /// Takes the database away from the threads, so that a test opens it its own way.
    pub(crate) async fn open(options: DbOptions, place: Place, migrate: bool) -> Self {
        let key = MasterKey::generate().unwrap();
        let db = Db::open(options.clone(), Sealer::new(&key, &[]))
            .await
            .unwrap();
        if migrate {
            db.migrate().await.unwrap();
        }
        Self {
            db,
            options,
            key,
            place,
        }
    }

    /// Another handle with threads of its own, as another process would have.
    pub(crate) async fn another(&self) -> Db {
        Db::open(self.options.clone(), Sealer::new(&self.key, &[]))
            .await
            .unwrap()
    }

    /// An equal empty database that is not migrated.
    pub(crate) async fn fresh(&self) -> Self {
        match &self.place {
            Place::Folder(folder) => {
                let path = folder.path().join(format!("{}.db", SessionId::generate()));
                let mut options = self.options.clone();
                options.url = format!("sqlite:{}", path.display());
                Self::open(options, Place::Folder(tempfile::tempdir().unwrap()), false).await
            }
            Place::Schema(old) => {
                let (url, schema) = new_schema(&old.server);
                let mut options = self.options.clone();
                options.url = url;
                Self::open(options, Place::Schema(schema), false).await
            }
        }
    }

    /// Runs SQL behind the store's back, as an operator or another version could.
    pub(crate) fn raw(&self, sql: &str) -> Result<(), String> {
        let (url, sql) = (self.options.url.clone(), sql.to_owned());
        match url.strip_prefix("sqlite:") {
            Some(path) => rusqlite::Connection::open(path)
                .and_then(|conn| conn.execute_batch(&format!("PRAGMA foreign_keys = ON; {sql}")))
                .map_err(|error| error.to_string()),
            None => std::thread::spawn(move || {
                postgres::Client::connect(&url, postgres::NoTls)
                    .and_then(|mut client| client.batch_execute(&sql))
                    .map_err(|error| format!("{error:?}"))
            })
            .join()
            .unwrap(),
        }
    }

    pub(crate) async fn write<R: Send + 'static>(
        &self,
        closure: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> R {
        self.db.write(closure).await.unwrap()
    }

    pub(crate) async fn read<R: Send + 'static>(
        &self,
        closure: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> R {
        self.db.read(closure).await.unwrap()
    }

    pub(crate) async fn tenant(&self, name: &'static str) -> TenantId {
        self.write(move |tx| tenants::create(tx, name, NOW))
            .await
            .id
    }

    pub(crate) async fn session(&self, tenant: &TenantId, name: &'static str) -> Session {
        let tenant = tenant.clone();
        let new = NewSession {
            name: Some(SessionName::parse(name).unwrap()),
            ..Default::default()
        };
        self.write(move |tx| sessions::create(tx, &tenant, &new, NOW))
            .await
    }

    /// A tenant with a running session that worker `w1` holds.
    pub(crate) async fn running(&self) -> (Session, Lease) {
        let tenant = self.tenant("acme").await;
        let session = self.session(&tenant, "main").await;
        let lease = self.start(&session, "w1").await;
        (session, lease)
    }

    pub(crate) async fn start(&self, session: &Session, worker: &str) -> Lease {
        let (tenant, id) = (session.tenant.clone(), session.id.clone());
        self.write(move |tx| sessions::set_desired(tx, &tenant, &id, Desired::Running, None, NOW))
            .await;
        let leases = self.acquire(worker, NOW).await;
        leases
            .into_iter()
            .find(|lease| lease.session == session.id)
            .expect("the session is free")
    }

    pub(crate) async fn acquire(&self, worker: &str, now: Timestamp) -> Vec<Lease> {
        let worker = WorkerId::parse(worker).unwrap();
        self.write(move |tx| leases::acquire_some(tx, &worker, 100, TTL, now))
            .await
    }

    pub(crate) async fn send(&self, session: &Session, chat: &str, text: &str) -> Message {
        self.send_with(session, chat, text, Priority::Normal, None)
            .await
    }

    pub(crate) async fn send_with(
        &self,
        session: &Session,
        chat: &str,
        text: &str,
        priority: Priority,
        not_before: Option<Timestamp>,
    ) -> Message {
        let (tenant, mut new) = (session.tenant.clone(), outbound(session, chat, text));
        new.priority = priority;
        new.not_before = not_before;
        self.write(move |tx| messages::accept(tx, &tenant, new, NOW))
            .await
            .message
    }

    pub(crate) async fn claim(&self, lease: &Lease, max: u32, now: Timestamp) -> Vec<Claimed> {
        let lease = lease.clone();
        self.write(move |tx| queue::claim(tx, &lease, max, now))
            .await
    }

    pub(crate) async fn state(&self, message: &Message) -> messages::MessageWithHistory {
        let (tenant, id) = (message.tenant.clone(), message.id.clone());
        self.read(move |tx| messages::get(tx, &tenant, &id)).await
    }
}

pub(crate) fn chat(user: &str) -> Jid {
    Jid::pn(format!("62812000{user}"))
}

pub(crate) fn outbound(session: &Session, to: &str, text: &str) -> NewOutbound {
    NewOutbound {
        session: session.id.clone(),
        chat: chat(to),
        content: Content::text(text).unwrap(),
        priority: Priority::Normal,
        not_before: None,
        expires_at: None,
        idempotency: None,
    }
}

pub(crate) fn after(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

/// The texts of claimed messages.
pub(crate) fn texts(claimed: &[Claimed]) -> Vec<&str> {
    claimed
        .iter()
        .map(|claimed| claimed.content.as_text().unwrap())
        .collect()
}
