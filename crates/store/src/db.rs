//! The database: opening, migrating, and running closures on its threads.
use std::time::Duration;
use crate::{error::StoreError, seal::Sealer};

#[derive(Clone, Debug)]
pub struct DbOptions {
    /// `sqlite:/path/file.db`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// SQLite: reading threads.
    pub readers: usize,
    /// PostgreSQL: connections, one database thread each.
    pub pool: usize,
    /// Closures that may wait; more make `write` wait itself, bounded by `queue_wait`.
    pub queue_max: usize,
    pub queue_wait: Duration,
    /// SQLite's busy time-out; PostgreSQL's lock time-out.
    pub busy_timeout: Duration,
    /// PostgreSQL's statement time-out.
    pub statement_timeout: Duration,
    /// SQLite: closures that share one commit.
    pub group_max: usize,
}

impl DbOptions {
    /// The defaults for this database.
    pub fn new(_url: impl Into<String>) -> Self { todo!() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect { Sqlite, Postgres }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport { pub from: i64, pub to: i64 }

#[derive(Clone, Debug)]
pub struct Db;
#[derive(Debug)]
pub struct Tx<'c>(std::marker::PhantomData<&'c ()>);

impl Db {
    /// Opens the database; refuses a newer schema, does not migrate.
    pub async fn open(_options: DbOptions, _sealer: Sealer) -> Result<Self, StoreError> { todo!() }
    pub async fn migrate(&self) -> Result<MigrationReport, StoreError> { todo!() }
    /// Committed when it returns `Ok`.
    pub async fn write<R: Send + 'static>(&self, _f: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static) -> Result<R, StoreError> { todo!() }
    pub async fn read<R: Send + 'static>(&self, _f: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static) -> Result<R, StoreError> { todo!() }
    pub fn sealer(&self) -> &Sealer { todo!() }
    pub async fn ping(&self) -> Result<(), StoreError> { todo!() }
    pub fn dialect(&self) -> Dialect { todo!() }
    pub async fn close(self) { todo!() }
}
