//! PostgreSQL: a bounded pool of threads, each with a connection, fed from one queue.
//!
//! A thread that is free serves whichever tenant's turn it is, so a tenant that fills the pool holds others
//! up until the first of its transactions ends, and no longer.
//!
//! A thread whose connection is gone connects again before the next closure; while the server is away
//! closures are answered `Unavailable` at once rather than left waiting. A connection lost during the
//! commit is `InDoubt`, since nobody can know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postgres::error::{DbError, SqlState};
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Statement};
use tokio::time::Instant;

use super::job::Job;
use super::tx::{Conn, Tx};
use super::value::{Row, Value};
use super::waiting::{self, next};
use super::{DbOptions, Threads, spawn};
use crate::error::StoreError;
use crate::seal::Sealer;

/// After a failed attempt to connect, how long a thread answers `Unavailable` without another.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Prepared statements kept per connection; the store has fewer.
const STATEMENTS: usize = 1024;

/// Reads the URL and connects once, so that a wrong password fails at the start.
pub(super) fn start(options: &DbOptions, sealer: &Sealer) -> Result<Threads, StoreError> {
    let mut config: Config = options.url.parse().map_err(|error: postgres::Error| {
        StoreError::Options(format!("the PostgreSQL URL cannot be read: {error}"))
    })?;
    config
        .connect_timeout(options.connect_timeout)
        .tcp_user_timeout(Duration::from_secs(10));
    if config.get_application_name().is_none() {
        config.application_name("wagate");
    }
    let settings = Arc::new(Settings {
        config,
        session: session_settings(options),
    });
    let first = PgConn::connect(&settings)?;
    let (writer, waiting) = waiting::channel(options);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut conns = vec![Some(first)];
    conns.resize_with(options.pool.max(1), || None);
    let mut handles = Vec::new();
    for (number, conn) in conns.into_iter().enumerate() {
        let waiting = Arc::clone(&waiting);
        let mut thread = Worker {
            settings: Arc::clone(&settings),
            sealer: sealer.clone(),
            conn,
            connect_after: None,
        };
        handles.push(spawn(format!("db-{number}"), move || {
            while let Some(job) = next(&waiting) {
                thread.serve(job);
            }
        })?);
    }
    Ok(Threads {
        reader: writer.clone(),
        writer,
        handles,
    })
}

struct Settings {
    config: Config,
    /// Statements that each new connection begins with.
    session: String,
}

fn session_settings(options: &DbOptions) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = 10000; SET client_min_messages = warning",
        options.statement_timeout.as_millis(),
        options.busy_timeout.as_millis(),
    )
}

struct Worker {
    settings: Arc<Settings>,
    sealer: Sealer,
    conn: Option<PgConn>,
    connect_after: Option<Instant>,
}

impl Worker {
    fn serve(&mut self, mut job: Box<dyn Job>) {
        let ended = self.transaction(&mut *job);
        if self
            .conn
            .as_ref()
            .is_some_and(|conn| conn.client.is_closed())
        {
            self.conn = None;
        }
        job.finish(ended);
    }

    fn transaction(&mut self, job: &mut dyn Job) -> Result<(), StoreError> {
        let begin = if job.writes() {
            "BEGIN"
        } else {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        };
        let sealer = self.sealer.clone();
        let conn = self.begun(begin)?;
        if job.run(&mut Tx::new(Conn::Postgres(conn), &sealer)) {
            conn.commit()
        } else {
            // A connection that cannot roll back is closed; the server then does it.
            if conn.batch("ROLLBACK").is_err() {
                self.conn = None;
            }
            Ok(())
        }
    }

    /// A connection with an open transaction. The server may have closed the connection while it was
    /// idle (a restart): nothing was done yet, so this connects again once.
    fn begun(&mut self, begin: &str) -> Result<&mut PgConn, StoreError> {
        if let Some(conn) = &mut self.conn
            && conn.batch(begin).is_err()
        {
            self.conn = None;
        } else if self.conn.is_some() {
            return self.conn.as_mut().ok_or(StoreError::Busy);
        }
        if self
            .connect_after
            .is_some_and(|after| Instant::now() < after)
        {
            return Err(StoreError::Unavailable(
                "the database refused the last connection".into(),
            ));
        }
        let connected = PgConn::connect(&self.settings).and_then(|mut conn| {
            conn.batch(begin)?;
            Ok(conn)
        });
        self.connect_after = connected.is_err().then(|| Instant::now() + CONNECT_PAUSE);
        Ok(self.conn.insert(connected?))
    }
}

/// A connection and its prepared statements.
pub(super) struct PgConn {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl PgConn {
    fn connect(settings: &Settings) -> Result<Self, StoreError> {
        let mut client = settings.config.connect(NoTls).map_err(unavailable)?;
        client
            .batch_execute(&settings.session)
            .map_err(unavailable)?;
        Ok(Self {
            client,
            statements: HashMap::new(),
        })
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let statement = self.prepared(sql)?;
        self.client
            .execute(&statement, &refs(values))
            .map_err(error)
    }

    pub(super) fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let statement = self.prepared(sql)?;
        let rows = self
            .client
            .query(&statement, &refs(values))
            .map_err(error)?;
        rows.iter().map(|row| read(Row::Postgres(row))).collect()
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(error)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        match self.client.batch_execute("COMMIT") {
            Ok(()) => Ok(()),
            // The server answered, so it did not commit.
            Err(refused) if refused.as_db_error().is_some_and(|e| !is_shutdown(e)) => {
                Err(error(refused))
            }
            Err(lost) => Err(StoreError::InDoubt(lost.into())),
        }
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(error)?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn refs<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect()
}

fn unavailable(error: postgres::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

fn is_shutdown(error: &DbError) -> bool {
    let code = error.code();
    *code == SqlState::ADMIN_SHUTDOWN
        || *code == SqlState::CRASH_SHUTDOWN
        || *code == SqlState::CANNOT_CONNECT_NOW
}

/// What an error of PostgreSQL means to the caller.
fn error(error: postgres::Error) -> StoreError {
    let Some(db) = error.as_db_error() else {
        // The connection is gone, or the driver could not read an answer.
        return if error.is_closed() || std::error::Error::source(&error).is_some_and(is_io) {
            unavailable(error)
        } else {
            StoreError::Sql(error.into())
        };
    };
    let code = db.code();
    if is_shutdown(db) {
        unavailable(error)
    } else if code.code().starts_with("23") {
        StoreError::Conflict {
            what: db.constraint().unwrap_or("a constraint").to_owned(),
        }
    } else if *code == SqlState::DISK_FULL {
        StoreError::Full
    } else if code.code().starts_with("40")
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::QUERY_CANCELED
        || code.code().starts_with("53")
    {
        StoreError::Busy
    } else {
        StoreError::Sql(error.into())
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
}
