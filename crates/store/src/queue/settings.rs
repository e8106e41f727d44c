//! How queues work, where a tenant said so: for all its sessions, and for one.
//!
//! A claim reads this, so that a change counts from the next claim on in whatever process makes it.

use wagate_domain::{Event, SessionId, TenantId, Timestamp};

use crate::db::{Tx, params};
use crate::error::StoreError;
use crate::outbox;

/// What is set; nothing where the next wider setting counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Messages on their way at once.
    pub concurrency: Option<u32>,
    /// Nothing goes out; only sessions can be paused.
    pub paused: bool,
}

/// What to change; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// `Some(None)` takes the setting back.
    pub concurrency: Option<Option<u32>>,
    pub paused: Option<bool>,
}

/// What is set for a session, or for all of the tenant's that have no setting of their own.
pub fn settings(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: Option<&SessionId>,
) -> Result<QueueSettings, StoreError> {
    let found = match session {
        Some(session) => tx.query_opt(
            "SELECT concurrency, paused FROM session_queues \
             WHERE session_id = $1 AND tenant_id = $2",
            params![session, tenant],
            |row| Ok((row.opt_int(0)?, row.flag(1)?)),
        )?,
        None => tx.query_opt(
            "SELECT concurrency FROM tenant_queues WHERE tenant_id = $1",
            params![tenant],
            |row| Ok((row.opt_int(0)?, false)),
        )?,
    };
    let (concurrency, paused) = found.unwrap_or_default();
    Ok(QueueSettings {
        concurrency: concurrency.and_then(|set| u32::try_from(set).ok()),
        paused,
    })
}

/// Changes what is set, and gives what is set now. Emits `queue.configured` when that differs.
///
/// [`StoreError::NotFound`] when the tenant has no such session. A tenant's default cannot be paused.
pub fn configure(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: Option<&SessionId>,
    change: SettingsChange,
    now: Timestamp,
) -> Result<QueueSettings, StoreError> {
    let name = match session {
        Some(session) => Some(super::hold(tx, tenant, session)?),
        None => None,
    };
    let before = settings(tx, tenant, session)?;
    let after = QueueSettings {
        concurrency: change.concurrency.unwrap_or(before.concurrency),
        paused: change.paused.unwrap_or(before.paused) && session.is_some(),
    };
    if after == before {
        return Ok(after);
    }
    match session {
        Some(session) => tx.execute(
            "INSERT INTO session_queues (session_id, tenant_id, concurrency, paused, updated_ms) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (session_id) DO UPDATE SET \
             concurrency = excluded.concurrency, paused = excluded.paused, \
             updated_ms = excluded.updated_ms",
            params![session, tenant, after.concurrency, after.paused, now],
        )?,
        None => tx.execute(
            "INSERT INTO tenant_queues (tenant_id, concurrency, updated_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant_id) DO UPDATE SET concurrency = excluded.concurrency, \
             updated_ms = excluded.updated_ms",
            params![tenant, after.concurrency, now],
        )?,
    };
    let event = Event::QueueConfigured {
        session: name,
        concurrency: after.concurrency,
        paused: after.paused,
    };
    outbox::append(tx, tenant, session, &event, now)?;
    Ok(after)
}
