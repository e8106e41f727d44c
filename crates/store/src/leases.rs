//! Leases: a worker's right to run a session until a time, with a number that rises at each grant.
//!
//! SL-1 rests on the number: a holder that was cut off and comes back finds its writes refused
//! ([`crate::StoreError::LeaseLost`]), whatever it believes. The time only decides when others may take
//! over; a holder that cannot renew in time must stop by itself.

use std::time::Duration;

use wagate_domain::{FencingToken, SessionId, TenantId, Timestamp, WorkerId, plant};

use crate::db::{Dialect, Lock, Row, Tx, Value, params};
use crate::error::StoreError;

/// The right to run a session until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub session: SessionId,
    pub tenant: TenantId,
    pub worker: WorkerId,
    pub token: FencingToken,
    pub expires: Timestamp,
}

const COLUMNS: &str = "session_id, tenant_id, worker_id, token, expires_ms";

/// The time by which leases are given and end: the database's where several processes share one, since
/// their clocks need not agree (SL-1), and otherwise the only process's own, `here`.
pub fn now(tx: &mut Tx<'_>, here: Timestamp) -> Result<Timestamp, StoreError> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(here);
    }
    let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
    tx.query_one(sql, params![], |row| row.time(0))
}

/// Takes up to `max` sessions that want a worker and have none, those waiting longest first.
///
/// A session wants a worker when it should run and nothing forbids that for good, or when a request
/// for its desired state was not carried out yet.
pub fn acquire_some(
    tx: &mut Tx<'_>,
    worker: &WorkerId,
    max: u32,
    ttl: Duration,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    let free = tx.locked(
        "SELECT l.session_id FROM leases l WHERE l.wanted = 1 AND l.expires_ms <= $1 \
         ORDER BY l.expires_ms, l.session_id LIMIT $2",
        // What another worker is just taking is left to it.
        Lock::UpdateSkip("l"),
    );
    let until = if plant::is("no_fencing") {
        now.plus(ttl * 10)
    } else {
        now
    };
    let free: Vec<SessionId> = tx.query(&free, params![until, max], |row| row.parse(0))?;
    let keys: Vec<Value<'_>> = free.iter().map(Value::from).collect();
    tx.query_keys(
        &format!(
            "UPDATE leases SET worker_id = $1, token = token + 1, expires_ms = $2 \
             WHERE session_id IN ({{}}) RETURNING {COLUMNS}"
        ),
        params![worker, now.plus(ttl)],
        &keys,
        lease,
    )
}

/// Renews everything that this worker holds, and returns it. A session that is missing, or has another
/// token, is lost to the caller.
pub fn renew(
    tx: &mut Tx<'_>,
    worker: &WorkerId,
    ttl: Duration,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    lock_all(tx, worker)?;
    tx.query(
        &format!("UPDATE leases SET expires_ms = $2 WHERE worker_id = $1 RETURNING {COLUMNS}"),
        params![worker, now.plus(ttl)],
        lease,
    )
}

/// Locks a worker's rows in one order, so that two transactions with several of them never wait for
/// each other.
fn lock_all(tx: &mut Tx<'_>, worker: &WorkerId) -> Result<(), StoreError> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    let sql = "SELECT session_id FROM leases WHERE worker_id = $1 ORDER BY session_id";
    let sql = tx.locked(sql, Lock::Update);
    tx.query(&sql, params![worker], |_| Ok(())).map(drop)
}

/// Gives a session back, so that another worker may take it at once.
pub fn release(tx: &mut Tx<'_>, lease: &Lease) -> Result<(), StoreError> {
    let released = tx.execute(
        "UPDATE leases SET worker_id = NULL, expires_ms = 0 \
         WHERE session_id = $1 AND tenant_id = $2 AND token = $3 AND worker_id = $4",
        params![&lease.session, &lease.tenant, lease.token, &lease.worker],
    )?;
    if released == 0 {
        Err(StoreError::LeaseLost)
    } else {
        Ok(())
    }
}

/// Gives back everything that an earlier life of this worker held. Called at its start, before
/// [`acquire_some`], so that a restart need not wait for the leases' end.
pub fn release_all(tx: &mut Tx<'_>, worker: &WorkerId) -> Result<u64, StoreError> {
    lock_all(tx, worker)?;
    tx.execute(
        "UPDATE leases SET worker_id = NULL, expires_ms = 0 WHERE worker_id = $1",
        params![worker],
    )
}

/// Sessions that this worker holds and of which something is wanted that was not carried out yet: what a
/// lost wake-up leaves behind.
pub fn undone(tx: &mut Tx<'_>, worker: &WorkerId) -> Result<Vec<SessionId>, StoreError> {
    tx.query(
        "SELECT l.session_id FROM leases l JOIN sessions s ON s.id = l.session_id \
         WHERE l.worker_id = $1 AND s.generation_done < s.generation",
        params![worker],
        |row| row.parse(0),
    )
}

/// Who holds the session at `now`, if somebody does.
pub fn get(
    tx: &mut Tx<'_>,
    session: &SessionId,
    now: Timestamp,
) -> Result<Option<Lease>, StoreError> {
    tx.query_opt(
        &format!(
            "SELECT {COLUMNS} FROM leases \
             WHERE session_id = $1 AND worker_id IS NOT NULL AND expires_ms > $2"
        ),
        params![session, now],
        lease,
    )
}

fn lease(row: Row<'_>) -> Result<Lease, StoreError> {
    Ok(Lease {
        session: row.parse(0)?,
        tenant: row.parse(1)?,
        worker: row.worker(2)?,
        token: FencingToken(row.int(3)?),
        expires: row.time(4)?,
    })
}
