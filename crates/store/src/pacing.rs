//! How sessions are paced, in the database: so that limits hold across a crash and a change of workers.
//!
//! A tenant writes the rules, the holder of the lease the state, each its own column of one row. What
//! WhatsApp said about numbers that nobody has is here as well: it keeps first messages from being asked
//! for twice.

use std::time::Duration;

use wagate_domain::pacing::{Pacing, PacingPatch, Pause, Reason};
use wagate_domain::{Desired, Event, Jid, SessionId, SessionName, TenantId, Timestamp};

use crate::db::{Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::{outbox, queue, sessions};

/// What is stored about a session's pacing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// What the tenant changed.
    pub rules: PacingPatch,
    pub state: Pacing,
}

/// A session's pacing, for the worker that runs it.
pub fn load(tx: &mut Tx<'_>, session: &SessionId) -> Result<Stored, StoreError> {
    let found = tx.query_opt(
        "SELECT rules, state FROM session_pacing WHERE session_id = $1",
        params![session],
        |row| {
            Ok(Stored {
                rules: row.opt_json(0)?.unwrap_or_default(),
                state: row.opt_json(1)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(found.unwrap_or_default())
}

/// A session's pacing, for its tenant.
pub fn get(tx: &mut Tx<'_>, tenant: &TenantId, session: &SessionId) -> Result<Stored, StoreError> {
    let known = tx.query_opt(
        "SELECT 1 FROM sessions WHERE id = $1 AND tenant_id = $2",
        params![session, tenant],
        |_| Ok(()),
    )?;
    known.ok_or(StoreError::NotFound { what: "session" })?;
    load(tx, session)
}

/// As [`get`], for whoever changes the rules by what they are: others who do so wait until this transaction
/// is over, so that of two changes at once none is lost.
pub fn get_to_change(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
) -> Result<Stored, StoreError> {
    queue::hold(tx, tenant, session)?;
    load(tx, session)
}

/// Replaces what a tenant changed of the defaults. Emits `pacing.configured` when that differs.
///
/// [`StoreError::NotFound`] when the tenant has no such session.
pub fn configure(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    session: &SessionId,
    rules: &PacingPatch,
    now: Timestamp,
) -> Result<(), StoreError> {
    let name = queue::hold(tx, tenant, session)?;
    if load(tx, session)?.rules == *rules {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO session_pacing (session_id, tenant_id, rules) VALUES ($1, $2, $3) \
         ON CONFLICT (session_id) DO UPDATE SET rules = excluded.rules",
        params![session, tenant, to_json(rules)?],
    )?;
    let event = Event::PacingConfigured { session: name };
    outbox::append(tx, tenant, Some(session), &event, now)
}

/// Writes how far a session has used its limits, under its lease.
pub fn save(tx: &mut Tx<'_>, lease: &Lease, state: &Pacing) -> Result<(), StoreError> {
    tx.fence(lease)?;
    tx.execute(
        "INSERT INTO session_pacing (session_id, tenant_id, state) VALUES ($1, $2, $3) \
         ON CONFLICT (session_id) DO UPDATE SET state = excluded.state",
        params![&lease.session, &lease.tenant, to_json(state)?],
    )?;
    Ok(())
}

/// Tells of a pause, and notes when to come back after a ban. After [`save`]. Emits `session.paused`.
pub fn paused(
    tx: &mut Tx<'_>,
    lease: &Lease,
    pause: &Pause,
    now: Timestamp,
) -> Result<(), StoreError> {
    let session = note_ban(tx, lease, pause, Some(pause.until))?;
    let event = Event::SessionPaused {
        session,
        scope: pause.scope,
        reason: pause.reason,
        until: pause.until,
    };
    outbox::append(tx, &lease.tenant, Some(&lease.session), &event, now)
}

/// Tells of a pause that is over. Emits `session.resumed`.
pub fn resumed(
    tx: &mut Tx<'_>,
    lease: &Lease,
    pause: &Pause,
    now: Timestamp,
) -> Result<(), StoreError> {
    let session = note_ban(tx, lease, pause, None)?;
    let event = Event::SessionResumed {
        session,
        scope: pause.scope,
        reason: pause.reason,
    };
    outbox::append(tx, &lease.tenant, Some(&lease.session), &event, now)
}

/// Notes until when a pause keeps a session from connecting, where it is a ban; gives the session's name.
fn note_ban(
    tx: &mut Tx<'_>,
    lease: &Lease,
    pause: &Pause,
    until: Option<Timestamp>,
) -> Result<SessionName, StoreError> {
    let session = tx.fence(lease)?;
    if pause.reason == Reason::Banned {
        let sql = "UPDATE session_pacing SET banned_until_ms = $2 WHERE session_id = $1";
        tx.execute(sql, params![&lease.session, until])?;
    }
    Ok(session)
}

/// Whether [`end_bans`] would find something.
pub fn any_ban_over(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let found = tx.query_opt(
        "SELECT 1 FROM session_pacing \
         WHERE banned_until_ms IS NOT NULL AND banned_until_ms <= $1 LIMIT 1",
        params![now],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Lets sessions connect again whose ban is over, where their tenants want them to run. Any worker calls
/// it now and then; gives those that were touched.
pub fn end_bans(tx: &mut Tx<'_>, now: Timestamp, limit: u32) -> Result<Vec<SessionId>, StoreError> {
    let over: Vec<(SessionId, TenantId, Desired)> = tx.query(
        "SELECT p.session_id, p.tenant_id, s.desired FROM session_pacing p \
         JOIN sessions s ON s.id = p.session_id \
         WHERE p.banned_until_ms IS NOT NULL AND p.banned_until_ms <= $1 LIMIT $2",
        params![now, limit],
        |row| Ok((row.parse(0)?, row.parse(1)?, row.parse(2)?)),
    )?;
    let mut woken = Vec::new();
    for (session, tenant, desired) in over {
        // Whoever clears it asks for the connection: once, whatever the other workers do.
        let cleared = tx.execute(
            "UPDATE session_pacing SET banned_until_ms = NULL \
             WHERE session_id = $1 AND banned_until_ms <= $2",
            params![&session, now],
        )?;
        if cleared > 0 && desired == Desired::Running {
            sessions::set_desired(tx, &tenant, &session, Desired::Running, None, now)?;
            woken.push(session);
        }
    }
    Ok(woken)
}

/// Notes that these chats have got a message: whoever comes next there is no stranger.
pub fn note_known(tx: &mut Tx<'_>, lease: &Lease, chats: &[Jid]) -> Result<(), StoreError> {
    tx.fence(lease)?;
    for chat in chats {
        tx.execute(
            "INSERT INTO known_chats (session_id, chat) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            params![&lease.session, &chat.to_string()],
        )?;
    }
    Ok(())
}

/// Notes that nobody has these numbers, and forgets what was noted too long ago.
pub fn note_absent(
    tx: &mut Tx<'_>,
    lease: &Lease,
    chats: &[Jid],
    keep: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.fence(lease)?;
    tx.execute(
        "DELETE FROM absent_numbers WHERE session_id = $1 AND checked_ms <= $2",
        params![&lease.session, now.minus(keep)],
    )?;
    for chat in chats {
        tx.execute(
            "INSERT INTO absent_numbers (session_id, chat, checked_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (session_id, chat) DO UPDATE SET checked_ms = excluded.checked_ms",
            params![&lease.session, &chat.to_string(), now],
        )?;
    }
    Ok(())
}

/// Which of these were found absent after `since`.
pub fn absent(
    tx: &mut Tx<'_>,
    session: &SessionId,
    chats: &[Jid],
    since: Timestamp,
) -> Result<Vec<Jid>, StoreError> {
    let names: Vec<String> = chats.iter().map(Jid::to_string).collect();
    let keys: Vec<Value<'_>> = names.iter().map(|name| name.as_str().into()).collect();
    tx.query_keys(
        "SELECT chat FROM absent_numbers WHERE session_id = $1 AND checked_ms > $2 \
         AND chat IN ({})",
        params![session, since],
        &keys,
        |row| row.parse(0),
    )
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Sql(error.into()))
}
