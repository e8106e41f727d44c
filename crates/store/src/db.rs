//! The database: opening it, migrating it, and running closures on its threads.
//!
//! `write` and `read` send a closure to a database thread and wait for the answer; no SQL ever runs on
//! an async task. SQLite has one writing thread with group commit (`writer.rs`) and a few readers;
//! PostgreSQL has a bounded pool of threads with a connection each (`postgres.rs`). In front of both,
//! tenants take turns (`turns.rs`). Where the two differ in words is `dialect.rs`.

mod dialect;
mod job;
mod migrate;
#[cfg(test)]
mod plans;
mod postgres;
mod sql;
mod sqlite;
mod statements;
mod turns;
mod tx;
mod value;
mod waiting;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wagate_domain::TenantId;

pub use dialect::Dialect;
pub use migrate::MigrationReport;
pub use tx::Tx;

pub(crate) use dialect::Lock;
pub(crate) use sql::{steps, values};
pub(crate) use value::{Row, Value, params};

use crate::device_state::{self, Put};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::seal::Sealer;
use job::{Kind, Message, PutJob, TypedJob, once};

/// How soon something is to be committed, and how firmly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Somebody waits for it.
    Now,
    /// It may stay some milliseconds until another commit takes it along. On SQLite; elsewhere as `Now`.
    Soon,
    /// As `Now`, but a loss of power may undo it, together with all that followed; the end of the process
    /// does not. For what is done again, to the same end, by whoever finds it undone. On SQLite, whose file
    /// loses its power together with its only user; elsewhere as `Now`.
    Unsynced,
}

/// How to open a database.
#[derive(Clone)]
pub struct DbOptions {
    /// `sqlite:/path/file.db`, `sqlite::memory:` (for tests) or `postgres://…`.
    pub url: String,
    /// SQLite: threads that read.
    pub readers: usize,
    /// PostgreSQL: connections, each with a thread of its own.
    pub pool: usize,
    /// Closures that may wait for a thread; more wait themselves, `queue_wait` at most.
    pub queue_max: usize,
    /// The longest wait for a place in the queue; then [`StoreError::Busy`].
    pub queue_wait: Duration,
    /// How long a statement waits for a lock that another transaction holds.
    pub busy_timeout: Duration,
    /// PostgreSQL: the longest time for one statement.
    pub statement_timeout: Duration,
    /// PostgreSQL: the longest wait for a connection.
    pub connect_timeout: Duration,
    /// SQLite: closures that may share one commit.
    pub group_max: usize,
    /// SQLite: closures of one tenant in a commit while others have some too, or just had.
    pub tenant_share: usize,
    /// SQLite: the file's bound in pages of 4 KiB, for tests of a full disk.
    pub pages_max: Option<u32>,
}

impl DbOptions {
    /// The defaults for the database that `url` names.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            readers: 2,
            pool: 8,
            queue_max: 4096,
            queue_wait: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            group_max: 256,
            tenant_share: 8,
            pages_max: None,
        }
    }
}

impl fmt::Debug for DbOptions {
    /// Leaves out the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbOptions")
            .field("readers", &self.readers)
            .field("pool", &self.pool)
            .field("queue_max", &self.queue_max)
            .finish_non_exhaustive()
    }
}

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    dialect: Dialect,
    sealer: Sealer,
    queue_wait: Duration,
    writer: mpsc::Sender<Message>,
    /// The same queue as `writer` where reads have no threads of their own.
    reader: mpsc::Sender<Message>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("dialect", &self.0.dialect)
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the database and starts its threads. Refuses a schema that is newer than this binary; does
    /// not migrate.
    pub async fn open(options: DbOptions, sealer: Sealer) -> Result<Self, StoreError> {
        let dialect = Dialect::of(&options.url)?;
        let queue_wait = options.queue_wait;
        let started = {
            let sealer = sealer.clone();
            tokio::task::spawn_blocking(move || match dialect {
                Dialect::Sqlite => writer::start(&options, &sealer),
                Dialect::Postgres => postgres::start(&options, &sealer),
            })
            .await
            .map_err(|error| StoreError::Panicked(error.to_string()))??
        };
        let Threads {
            writer,
            reader,
            handles,
        } = started;
        let threads = Mutex::new(handles);
        let db = Self(Arc::new(Inner {
            dialect,
            sealer,
            queue_wait,
            writer,
            reader,
            threads,
        }));
        db.read(migrate::refuse_newer).await?;
        Ok(db)
    }

    /// Brings the schema up to date in one transaction, under a lock: of several processes one does it
    /// and the others find it done.
    pub async fn migrate(&self) -> Result<MigrationReport, StoreError> {
        self.write(migrate::run).await
    }

    /// Compares the schema with the one that this binary knows, and changes nothing.
    pub async fn schema(&self) -> Result<MigrationReport, StoreError> {
        self.read(migrate::look).await
    }

    /// Runs a closure in a transaction. `Ok` means committed; `Err` means that nothing was changed
    /// (except for [`StoreError::InDoubt`]). The closure must not block on anything else. What a tenant
    /// or its sessions ask for goes through [`Db::write_for`].
    pub async fn write<R, F>(&self, closure: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        self.run(None, closure).await
    }

    /// As [`Db::write`], in the tenant's turn: tenants take turns, and what one of them asks for is done
    /// in the order in which it was asked.
    pub async fn write_for<R, F>(&self, tenant: &TenantId, closure: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        self.run(Some(tenant.clone()), closure).await
    }

    /// As [`Db::write_for`], not necessarily at once, for a closure that may run more than once: what it
    /// changed the first time is undone before, and only the last result is answered. For what is done
    /// often: on SQLite it needs no savepoint then, as long as all that shares the commit is of this kind.
    pub async fn write_repeatable<R, F>(
        &self,
        tenant: &TenantId,
        when: When,
        closure: F,
    ) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob::new(closure, reply, Kind::WritesRepeatably));
        let message = Message::Run(job, Some(tenant.clone()), when);
        self.submit(&self.0.writer, message, answer).await
    }

    async fn run<R, F>(&self, tenant: Option<TenantId>, closure: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob::new(once(closure), reply, Kind::Writes));
        let message = Message::Run(job, tenant, When::Now);
        self.submit(&self.0.writer, message, answer).await
    }

    /// Writes device state as [`device_state::put_many`] does, and more cheaply: values are sealed by the
    /// caller, and SQLite's writer puts what many sessions write into one statement. `Ok` means committed
    /// (SL-2). It goes before the closures of the same commit, and takes a turn of the session's tenant.
    pub async fn put_state(
        &self,
        lease: &Lease,
        puts: &[Put],
        when: When,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = self.put_job(lease, puts, Some(reply))?;
        self.submit(&self.0.writer, Message::Put(job, when), answer)
            .await
    }

    /// Hands device state over to be written with the next commit, and does not wait for it: what cannot
    /// be written is only logged. `Ok` means no more than that it was taken.
    pub async fn post_state(&self, lease: &Lease, puts: &[Put]) -> Result<(), StoreError> {
        let job = self.put_job(lease, puts, None)?;
        self.hand_over(&self.0.writer, Message::Put(job, When::Soon))
            .await
    }

    fn put_job(
        &self,
        lease: &Lease,
        puts: &[Put],
        reply: Option<oneshot::Sender<Result<(), StoreError>>>,
    ) -> Result<PutJob, StoreError> {
        Ok(PutJob {
            lease: lease.clone(),
            rows: device_state::seal(&self.0.sealer, &lease.session, puts)?,
            failed: None,
            reply,
        })
    }

    /// Runs a closure that only reads, on one consistent snapshot that has every write answered before.
    pub async fn read<R, F>(&self, closure: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob::new(once(closure), reply, Kind::Reads));
        let message = Message::Run(job, None, When::Now);
        self.submit(&self.0.reader, message, answer).await
    }

    /// The sealer with which the rows of this database are sealed.
    pub fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// Asks the database for an answer, for readiness checks.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|tx| tx.query_one("SELECT 1", params![], |_| Ok(())))
            .await
    }

    /// Finishes what was handed over, closes the connections and ends the threads. Later calls on other
    /// handles fail as unavailable.
    pub async fn close(self) {
        for queue in [&self.0.reader, &self.0.writer] {
            // An error means that the threads ended already.
            queue.send(Message::Stop).await.ok();
        }
        let handles = {
            let mut threads = self
                .0
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        let joined = tokio::task::spawn_blocking(move || {
            for handle in handles {
                if handle.join().is_err() {
                    tracing::error!("a database thread panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("waiting for the database threads failed");
        }
    }

    async fn submit<R>(
        &self,
        queue: &mpsc::Sender<Message>,
        message: Message,
        answer: oneshot::Receiver<Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        self.hand_over(queue, message).await?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn hand_over(
        &self,
        queue: &mpsc::Sender<Message>,
        message: Message,
    ) -> Result<(), StoreError> {
        match queue.send_timeout(message, self.0.queue_wait).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(StoreError::Busy),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(closed()),
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database was closed".into())
}

/// What a dialect's start function hands over.
struct Threads {
    writer: mpsc::Sender<Message>,
    reader: mpsc::Sender<Message>,
    handles: Vec<JoinHandle<()>>,
}

/// Starts a named database thread.
fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|error| StoreError::Unavailable(error.into()))
}
