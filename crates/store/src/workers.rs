//! The workers that run sessions: who they are and when they were last heard of.

use wagate_domain::{Timestamp, WorkerId};

use crate::db::{Row, Tx, params};
use crate::error::StoreError;

/// What a worker says about itself at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorker {
    pub id: WorkerId,
    pub endpoint: Option<String>,
    pub sessions_max: u32,
    pub version: String,
    pub environment: String,
}

/// A worker as it was last heard of.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    pub id: WorkerId,
    pub endpoint: Option<String>,
    pub sessions_max: u32,
    pub version: String,
    pub environment: String,
    pub status: String,
    /// What the last heartbeat carried, as it came.
    pub metrics: serde_json::Value,
    pub started_at: Timestamp,
    pub heartbeat_at: Timestamp,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "worker" };
const COLUMNS: &str = "id, endpoint, sessions_max, version, environment, status, metrics, \
                       started_ms, heartbeat_ms";

/// Records a worker's start; a worker that comes back replaces its row.
pub fn register(tx: &mut Tx<'_>, new: &NewWorker, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO workers (id, endpoint, sessions_max, version, environment, status, metrics, \
         started_ms, heartbeat_ms) VALUES ($1, $2, $3, $4, $5, 'online', '{}', $6, $6) \
         ON CONFLICT (id) DO UPDATE SET endpoint = excluded.endpoint, \
         sessions_max = excluded.sessions_max, version = excluded.version, \
         environment = excluded.environment, status = excluded.status, \
         metrics = excluded.metrics, started_ms = excluded.started_ms, \
         heartbeat_ms = excluded.heartbeat_ms",
        params![
            &new.id,
            new.endpoint.as_ref(),
            new.sessions_max,
            &new.version,
            &new.environment,
            now
        ],
    )?;
    Ok(())
}

/// Records a heartbeat of a registered worker.
pub fn heartbeat(
    tx: &mut Tx<'_>,
    id: &WorkerId,
    status: &str,
    metrics: &serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let found = tx.execute(
        "UPDATE workers SET status = $2, metrics = $3, heartbeat_ms = $4 WHERE id = $1",
        params![id, status, metrics.to_string(), now],
    )?;
    if found == 0 { Err(NOT_FOUND) } else { Ok(()) }
}

pub fn get(tx: &mut Tx<'_>, id: &WorkerId) -> Result<Worker, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM workers WHERE id = $1");
    tx.query_opt(&sql, params![id], worker)?.ok_or(NOT_FOUND)
}

/// Every worker that ever registered and was not removed.
pub fn list(tx: &mut Tx<'_>) -> Result<Vec<Worker>, StoreError> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM workers ORDER BY id"),
        params![],
        worker,
    )
}

/// Forgets a worker that will not come back.
pub fn remove(tx: &mut Tx<'_>, id: &WorkerId) -> Result<(), StoreError> {
    let found = tx.execute("DELETE FROM workers WHERE id = $1", params![id])?;
    if found == 0 { Err(NOT_FOUND) } else { Ok(()) }
}

fn worker(row: Row<'_>) -> Result<Worker, StoreError> {
    Ok(Worker {
        id: row.worker(0)?,
        endpoint: row.opt_string(1)?,
        sessions_max: row.small(2)?,
        version: row.string(3)?,
        environment: row.string(4)?,
        status: row.string(5)?,
        metrics: row.json(6)?,
        started_at: row.time(7)?,
        heartbeat_at: row.time(8)?,
    })
}
