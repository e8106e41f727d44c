//! Migrations: one numbered history for both databases, embedded in the binary, never changed once
//! released. All that are missing run in one transaction, so that a process killed half-way leaves
//! nothing, and of several processes one does the work.

use super::dialect::Dialect;
use super::tx::Tx;
use super::value::params;
use crate::error::StoreError;

/// The history: a migration's number is its place, from 1. `{words}` are filled by [`Dialect::render`].
const MIGRATIONS: &[(&str, &str)] = &[
    ("first", include_str!("../migrations/0001_first.sql")),
    ("queue", include_str!("../migrations/0002_queue.sql")),
    ("pacing", include_str!("../migrations/0003_pacing.sql")),
    ("narrow", include_str!("../migrations/0004_narrow.sql")),
    ("chat", include_str!("../migrations/0005_chat.sql")),
    ("resends", include_str!("../migrations/0006_resends.sql")),
    ("went_out", include_str!("../migrations/0007_went_out.sql")),
];

/// What [`crate::Db::migrate`] did: nothing when the versions are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The schema found; 0 for an empty database.
    pub from: i64,
    /// The schema now.
    pub to: i64,
}

/// The newest schema that this binary knows.
fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

pub(super) fn run(tx: &mut Tx<'_>) -> Result<MigrationReport, StoreError> {
    let dialect = tx.dialect();
    if let Some(lock) = dialect.migration_lock() {
        tx.batch(lock)?;
    }
    let from = version(tx)?;
    if from > newest() {
        return Err(StoreError::NewerSchema {
            found: from,
            known: newest(),
        });
    }
    if from == 0 {
        tx.batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations \
             (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL)",
        )?;
    }
    let done = usize::try_from(from).unwrap_or(0);
    for (number, (name, text)) in (1..).zip(MIGRATIONS).skip(done) {
        apply(tx, dialect, number, name, text)?;
    }
    Ok(MigrationReport { from, to: newest() })
}

fn apply(
    tx: &mut Tx<'_>,
    dialect: Dialect,
    number: i64,
    name: &str,
    text: &str,
) -> Result<(), StoreError> {
    tx.batch(&dialect.render(text))?;
    let record = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)";
    tx.execute(record, params![number, name])?;
    tracing::info!(version = number, name, "schema migrated");
    Ok(())
}

/// What [`run`] would do, undone.
pub(super) fn look(tx: &mut Tx<'_>) -> Result<MigrationReport, StoreError> {
    Ok(MigrationReport {
        from: version(tx)?,
        to: newest(),
    })
}

/// A newer binary's rows may mean what this one does not understand.
pub(super) fn refuse_newer(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let found = version(tx)?;
    if found > newest() {
        return Err(StoreError::NewerSchema {
            found,
            known: newest(),
        });
    }
    Ok(())
}

fn version(tx: &mut Tx<'_>) -> Result<i64, StoreError> {
    let there = tx.dialect().has_migrations_table();
    if tx.query_one(there, params![], |row| row.int(0))? == 0 {
        return Ok(0);
    }
    let sql = "SELECT COALESCE(MAX(version), 0) FROM schema_migrations";
    tx.query_one(sql, params![], |row| row.int(0))
}
