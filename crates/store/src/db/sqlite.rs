//! A connection to SQLite: settings, statements, and what its errors mean.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};

use super::DbOptions;
use super::sql::Form;
use super::statements::Prepared;
use super::value::{Row, Value};
use crate::error::StoreError;

/// A connection on its way to the thread that it is for: statements cannot go to another.
pub(super) struct Opened(Connection);

pub(super) struct SqliteConn {
    prepared: Prepared,
    /// Commits wait for the disk.
    synced: Cell<bool>,
}

/// Where the database is, from `sqlite:/path` or `sqlite::memory:`.
pub(super) fn path_of(url: &str) -> Result<&str, StoreError> {
    match url
        .strip_prefix("sqlite:")
        .map(|path| path.strip_prefix("//").unwrap_or(path))
    {
        Some("") | None => Err(StoreError::Options("the SQLite URL names no file".into())),
        Some(path) => Ok(path),
    }
}

pub(super) fn is_memory(path: &str) -> bool {
    path == ":memory:"
}

impl Opened {
    pub(super) fn new(path: &str, options: &DbOptions) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !is_memory(path) {
            create(Path::new(path))?;
        }
        let conn = Connection::open_with_flags(path, flags).map_err(error)?;
        conn.busy_timeout(options.busy_timeout).map_err(error)?;
        // Otherwise a statement is planned anew whenever a value is bound that a partial index or a
        // statistic might care about: half of the writer's time.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(error)?;
        // FULL, since an answered write must survive a loss of power, unless its caller says otherwise
        // (`sync_commits`); group commit pays for it.
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384; \
             PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(error)?;
        if let Some(pages) = options.pages_max {
            conn.pragma_update(None, "max_page_count", pages)
                .map_err(error)?;
        }
        Ok(Self(conn))
    }

    /// Refuses every change from now on: for the readers.
    pub(super) fn refuse_writes(&self) -> Result<(), StoreError> {
        self.0
            .execute_batch("PRAGMA query_only = ON")
            .map_err(error)
    }
}

impl SqliteConn {
    pub(super) fn of(opened: Opened) -> Self {
        Self {
            prepared: Prepared::on(opened.0),
            synced: Cell::new(true),
        }
    }

    /// Whether the commits that follow wait for the disk. What an unsynced one wrote is on the disk with
    /// the next that does, or with the next checkpoint. Not within a transaction.
    pub(super) fn sync_commits(&self, synced: bool) -> Result<(), StoreError> {
        if self.synced.get() != synced {
            let level = if synced { "FULL" } else { "NORMAL" };
            self.batch(&format!("PRAGMA synchronous = {level}"))?;
            self.synced.set(synced);
        }
        Ok(())
    }

    fn with<R>(
        &self,
        sql: &str,
        form: Form<'_>,
        work: impl FnOnce(&mut Statement<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let done = self.prepared.with(sql, form, work);
        done.map_err(error)?
    }

    pub(super) fn execute(
        &self,
        sql: &str,
        form: Form<'_>,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.with(sql, form, |statement| {
            bind(statement, 1, values)?;
            changed(statement)
        })
    }

    pub(super) fn query<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.with(sql, Form::Plain, |statement| {
            bind(statement, 1, values)?;
            let mut answers = Vec::new();
            answer(statement, &mut answers, &mut read)?;
            Ok(answers)
        })
    }

    /// Runs a statement about many rows once for each row: here that costs less than one statement for
    /// all of them, which SQLite would begin by building a table of the rows.
    pub(super) fn execute_each(
        &self,
        sql: &str,
        fixed: &[Value<'_>],
        (template, arity): (&str, usize),
        rows: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let first = fixed.len() + 1;
        self.with(sql, Form::Rows(template, 1, first), |statement| {
            bind(statement, 1, fixed)?;
            let mut sum = 0;
            for row in rows.chunks_exact(arity) {
                bind(statement, first, row)?;
                sum += changed(statement)?;
            }
            Ok(sum)
        })
    }

    /// As [`Self::execute_each`] for statements with answers. A row that comes twice is asked about once.
    pub(super) fn query_each<T>(
        &self,
        sql: &str,
        fixed: &[Value<'_>],
        (template, arity): (&str, usize),
        rows: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let first = fixed.len() + 1;
        self.with(sql, Form::Rows(template, 1, first), |statement| {
            bind(statement, 1, fixed)?;
            let mut asked = HashSet::new();
            let mut answers = Vec::with_capacity(rows.len() / arity);
            for row in rows.chunks_exact(arity) {
                if rows.len() > arity && !asked.insert(row) {
                    continue;
                }
                bind(statement, first, row)?;
                answer(statement, &mut answers, &mut read)?;
            }
            Ok(answers)
        })
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.prepared.conn().execute_batch(sql).map_err(error)
    }

    /// One of the fixed statements that begin and end transactions.
    pub(super) fn control(&self, sql: &str) -> Result<(), StoreError> {
        self.with(sql, Form::Plain, |statement| changed(statement).map(drop))
    }

    /// No transaction is open: SQLite ends one by itself after some errors, such as a full disk.
    pub(super) fn is_idle(&self) -> bool {
        self.prepared.conn().is_autocommit()
    }

    pub(super) fn last_insert_id(&self) -> i64 {
        self.prepared.conn().last_insert_rowid()
    }

    /// Rows changed since the connection was opened.
    pub(super) fn changes(&self) -> u64 {
        self.prepared.conn().total_changes()
    }
}

fn bind(
    statement: &mut Statement<'_>,
    first: usize,
    values: &[Value<'_>],
) -> Result<(), StoreError> {
    for (index, value) in (first..).zip(values) {
        statement.raw_bind_parameter(index, value).map_err(error)?;
    }
    Ok(())
}

fn changed(statement: &mut Statement<'_>) -> Result<u64, StoreError> {
    let changed = statement.raw_execute().map_err(error)?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

fn answer<T>(
    statement: &mut Statement<'_>,
    answers: &mut Vec<T>,
    read: &mut impl FnMut(Row<'_>) -> Result<T, StoreError>,
) -> Result<(), StoreError> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(error)? {
        answers.push(read(Row::Sqlite(row))?);
    }
    Ok(())
}

#[cfg(test)]
impl SqliteConn {
    pub(super) fn forget_statements(&self) {
        self.prepared.forget();
    }

    /// The statements that were run with parameters.
    pub(super) fn statements(&self) -> Vec<String> {
        self.prepared.texts()
    }

    /// How often a statement was planned anew since it was prepared.
    pub(super) fn replanned(&self, sql: &str) -> i32 {
        self.prepared.replanned(sql)
    }

    /// The steps of a statement's program, by their names.
    pub(super) fn program(&self, sql: &str) -> Vec<String> {
        let mut statement = self
            .prepared
            .conn()
            .prepare(&format!("EXPLAIN {sql}"))
            .unwrap();
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get(1).unwrap());
        }
        steps
    }

    /// What the planner says about a statement, a step a line.
    pub(super) fn explain(&self, sql: &str) -> Vec<String> {
        let mut statement = self
            .prepared
            .conn()
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let mut rows = statement.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            lines.push(row.get(3).unwrap());
        }
        lines
    }
}

/// Makes the file and its folder, readable by the owner only: it holds messages.
fn create(path: &Path) -> Result<(), StoreError> {
    let away = |error: std::io::Error| StoreError::Unavailable(error.into());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(away)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(away)
}

/// What an error of SQLite means to the caller.
pub(super) fn error(error: rusqlite::Error) -> StoreError {
    let code = error.sqlite_error_code();
    match code {
        Some(ErrorCode::ConstraintViolation) => StoreError::Conflict {
            what: error.to_string(),
        },
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::corrupt(error.to_string())
        }
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => StoreError::Unavailable(error.into()),
        _ => StoreError::Sql(error.into()),
    }
}
