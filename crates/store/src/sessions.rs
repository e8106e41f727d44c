//! Sessions: what is wanted of each, and what the worker that holds its lease last saw.
//!
//! Requests write the desired state with a new generation ([`set_desired`]); the worker carries it out
//! and reports ([`observe`]). Both emit the events that a tenant sees (EV-1).

mod observe;

use wagate_domain::limits::SESSIONS_PER_TENANT_MAX;
use wagate_domain::session::{Desired, LinkChallenge, LinkMethod, LinkState, SessionName};
use wagate_domain::{Event, Jid, SessionId, TenantId, Timestamp};

pub use observe::{Observation, Patch, note_silence, observe};

use crate::db::{Row, Tx, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::outbox;
use crate::page::{Page, PageRequest};
use crate::seal::Sealer;

/// The number of a request for a desired state; it rises with each.
pub type Generation = i64;

/// A tenant's slot for one linked device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub tenant: TenantId,
    /// What callers name it by.
    pub name: SessionName,
    /// What people call it.
    pub label: Option<String>,
    pub user_id: Option<String>,
    pub desired: Desired,
    /// How it is to be linked, while it is not.
    pub method: Option<LinkMethod>,
    pub generation: Generation,
    /// The newest generation that a worker has carried out.
    pub generation_done: Generation,
    pub link: LinkState,
    pub challenge: Option<LinkChallenge>,
    /// The linked account; none while nothing is linked.
    pub identity: Option<Identity>,
    pub last_activity: Option<Timestamp>,
    pub connected_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The account that a session is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub jid: Jid,
    pub lid: Option<Jid>,
    pub push_name: Option<String>,
    pub platform: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// None: the generated id is the name too.
    pub name: Option<SessionName>,
    pub label: Option<String>,
    pub user_id: Option<String>,
}

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accepted and not finished yet.
    pub queued: u64,
    pub sent: u64,
    pub delivered: u64,
    pub read: u64,
    pub failed: u64,
    pub received: u64,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "session" };
const COLUMNS: &str = "id, tenant_id, name, label, user_id, desired, method, generation, \
                       generation_done, link, challenge, jid, lid, push_name, platform, \
                       last_activity_ms, connected_ms, created_ms, updated_ms";

/// Creates a session that nobody asked to run yet. Emits `session.created`.
///
/// [`StoreError::Conflict`] when the name is taken, [`StoreError::Limit`] at the tenant's bound.
pub fn create(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    new: &NewSession,
    now: Timestamp,
) -> Result<Session, StoreError> {
    if count(tx, tenant)? >= u64::from(SESSIONS_PER_TENANT_MAX) {
        return Err(StoreError::Limit {
            what: "sessions of the tenant",
        });
    }
    let id = SessionId::generate();
    let name = match &new.name {
        Some(name) => name.clone(),
        None => SessionName::parse(id.as_str()).map_err(|_| StoreError::corrupt("a session id"))?,
    };
    let (desired, link) = (Desired::Stopped, LinkState::Idle);
    let added = tx.execute(
        "INSERT INTO sessions (id, tenant_id, name, label, user_id, desired, generation, \
         generation_done, link, created_ms, updated_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, $8, $8) ON CONFLICT DO NOTHING",
        params![
            &id,
            tenant,
            &name,
            new.label.as_ref(),
            new.user_id.as_ref(),
            desired.as_str(),
            to_json(&link)?,
            now
        ],
    )?;
    if added == 0 {
        return Err(StoreError::Conflict {
            what: format!("there is a session {name}"),
        });
    }
    for sql in [
        "INSERT INTO leases (session_id, tenant_id, token, expires_ms, wanted) \
         VALUES ($1, $2, 0, 0, 0)",
        "INSERT INTO session_counters (session_id, tenant_id) VALUES ($1, $2)",
    ] {
        tx.execute(sql, params![&id, tenant])?;
    }
    outbox::append(
        tx,
        tenant,
        Some(&id),
        &Event::SessionCreated { session: name },
        now,
    )?;
    find(tx, &id)
}

/// A tenant's session by its name. One whose deletion was asked for is not found.
pub fn get(tx: &mut Tx<'_>, tenant: &TenantId, name: &SessionName) -> Result<Session, StoreError> {
    let sealer = tx.sealer();
    tx.query_opt(
        &format!(
            "SELECT {COLUMNS} FROM sessions \
             WHERE tenant_id = $1 AND name = $2 AND desired <> 'deleted'"
        ),
        params![tenant, name],
        |row| session(row, sealer),
    )?
    .ok_or(NOT_FOUND)
}

/// What decides whether a session may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub id: SessionId,
    pub desired: Desired,
    pub link: LinkState,
    /// It has an identity: some account is, or was, linked.
    pub has_identity: bool,
}

impl From<&Session> for Sender {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id.clone(),
            desired: session.desired,
            link: session.link.clone(),
            has_identity: session.identity.is_some(),
        }
    }
}

/// As [`get`], with only what every message to send is asked for.
pub fn sender(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name: &SessionName,
) -> Result<Sender, StoreError> {
    tx.query_opt(
        "SELECT id, desired, link, CAST(CASE WHEN jid IS NULL THEN 0 ELSE 1 END AS BIGINT) FROM sessions \
         WHERE tenant_id = $1 AND name = $2 AND desired <> 'deleted'",
        params![tenant, name],
        |row| {
            Ok(Sender {
                id: row.parse(0)?,
                desired: row.parse(1)?,
                link: row.json(2)?,
                has_identity: row.flag(3)?,
            })
        },
    )?
    .ok_or(NOT_FOUND)
}

/// A session by its id, for the worker that runs it; also one that is to be deleted.
pub fn find(tx: &mut Tx<'_>, id: &SessionId) -> Result<Session, StoreError> {
    let sealer = tx.sealer();
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = $1");
    tx.query_opt(&sql, params![id], |row| session(row, sealer))?
        .ok_or(NOT_FOUND)
}

/// A tenant's sessions, in order of creation.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    page: &PageRequest,
) -> Result<Page<Session>, StoreError> {
    let sealer = tx.sealer();
    let after = page.after.as_deref().unwrap_or("");
    let rows = tx.query(
        &format!(
            "SELECT {COLUMNS} FROM sessions WHERE tenant_id = $1 AND id > $2 \
             AND desired <> 'deleted' ORDER BY id LIMIT $3 OFFSET $4"
        ),
        params![tenant, after, page.sql_limit(), page.offset],
        |row| session(row, sealer),
    )?;
    Ok(Page::of(rows, page, |session| session.id.to_string()))
}

pub fn count(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM sessions WHERE tenant_id = $1 AND desired <> 'deleted'";
    tx.query_one(sql, params![tenant], |row| row.count(0))
}

/// Asks for a desired state and gives the request's generation; `Running` again is a restart.
///
/// `method` says how to link a session that is not linked; without it the last one stays. For `Deleted`
/// the session disappears from its tenant's sight at once, and emits `session.deleted`.
pub fn set_desired(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &SessionId,
    desired: Desired,
    method: Option<&LinkMethod>,
    now: Timestamp,
) -> Result<Generation, StoreError> {
    let method = method.map(to_json).transpose()?;
    // The lease before the session: the order in which a worker's writes lock them too.
    let wanted = "UPDATE leases SET wanted = 1 WHERE session_id = $1 AND tenant_id = $2";
    tx.execute(wanted, params![id, tenant])?;
    let (generation, name): (i64, SessionName) = tx
        .query_opt(
            "UPDATE sessions SET desired = $3, method = COALESCE($4, method), \
             generation = generation + 1, updated_ms = $5 \
             WHERE tenant_id = $1 AND id = $2 AND desired <> 'deleted' \
             RETURNING generation, name",
            params![tenant, id, desired.as_str(), method, now],
            |row| Ok((row.int(0)?, row.parse(1)?)),
        )?
        .ok_or(NOT_FOUND)?;
    if desired == Desired::Deleted {
        outbox::append(
            tx,
            tenant,
            Some(id),
            &Event::SessionDeleted { session: name },
            now,
        )?;
    }
    Ok(generation)
}

/// Removes the rows of a session that is to be deleted, `limit` messages at most.
///
/// True when nothing is left, the lease included. Large histories go in several transactions, so that
/// no other writer waits long.
pub fn delete_rows(tx: &mut Tx<'_>, lease: &Lease, limit: u32) -> Result<bool, StoreError> {
    tx.fence(lease)?;
    let id = &lease.session;
    let desired: Desired = tx.query_one(
        "SELECT desired FROM sessions WHERE id = $1",
        params![id],
        |row| row.parse(0),
    )?;
    if desired != Desired::Deleted {
        return Err(StoreError::Conflict {
            what: "the session is not to be deleted".into(),
        });
    }
    // Nothing may be sent any more, and no key may stay behind, from the first call on.
    for sql in [
        "DELETE FROM device_state WHERE session_id = $1",
        "DELETE FROM queue WHERE session_id = $1",
    ] {
        tx.execute(sql, params![id])?;
    }
    // Queue and history rows go with their message.
    let deleted = tx.execute(
        "DELETE FROM messages WHERE seq IN \
         (SELECT seq FROM messages WHERE session_id = $1 ORDER BY seq LIMIT $2)",
        params![id, limit],
    )?;
    if deleted >= u64::from(limit) {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM idempotency WHERE session_id = $1",
        "DELETE FROM session_counters WHERE session_id = $1",
        "DELETE FROM session_queues WHERE session_id = $1",
        "DELETE FROM session_pacing WHERE session_id = $1",
        "DELETE FROM absent_numbers WHERE session_id = $1",
        "DELETE FROM known_chats WHERE session_id = $1",
        "DELETE FROM leases WHERE session_id = $1",
        "DELETE FROM sessions WHERE id = $1",
    ] {
        tx.execute(sql, params![id])?;
    }
    Ok(true)
}

pub fn counters(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &SessionId,
) -> Result<Counters, StoreError> {
    tx.query_opt(
        "SELECT queued, sent, delivered, seen, failed, received FROM session_counters \
         WHERE tenant_id = $1 AND session_id = $2",
        params![tenant, id],
        |row| {
            Ok(Counters {
                queued: row.count(0)?,
                sent: row.count(1)?,
                delivered: row.count(2)?,
                read: row.count(3)?,
                failed: row.count(4)?,
                received: row.count(5)?,
            })
        },
    )?
    .ok_or(NOT_FOUND)
}

fn session(row: Row<'_>, sealer: &Sealer) -> Result<Session, StoreError> {
    let id: SessionId = row.parse(0)?;
    let identity = match row.opt_parse(11)? {
        Some(jid) => Some(Identity {
            jid,
            lid: row.opt_parse(12)?,
            push_name: row.opt_string(13)?,
            platform: row.opt_string(14)?,
        }),
        None => None,
    };
    Ok(Session {
        tenant: row.parse(1)?,
        name: row.parse(2)?,
        label: row.opt_string(3)?,
        user_id: row.opt_string(4)?,
        desired: row.parse(5)?,
        method: row.opt_json(6)?,
        generation: row.int(7)?,
        generation_done: row.int(8)?,
        link: row.json(9)?,
        challenge: row
            .opt_bytes(10)?
            .and_then(|sealed| open_challenge(sealer, &id, sealed)),
        identity,
        last_activity: row.opt_time(15)?,
        connected_at: row.opt_time(16)?,
        created_at: row.time(17)?,
        updated_at: row.time(18)?,
        id,
    })
}

fn seal_challenge(
    sealer: &Sealer,
    id: &SessionId,
    challenge: &LinkChallenge,
) -> Result<Vec<u8>, StoreError> {
    sealer.seal(&challenge_place(id), to_json(challenge)?.as_bytes())
}

/// A challenge that cannot be opened (the key was rotated) is worth nothing; the next one replaces it.
fn open_challenge(sealer: &Sealer, id: &SessionId, sealed: &[u8]) -> Option<LinkChallenge> {
    let json = sealer.open(&challenge_place(id), sealed).ok()?;
    serde_json::from_slice(&json).ok()
}

fn challenge_place(id: &SessionId) -> Vec<u8> {
    format!("challenge:{id}").into_bytes()
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Sql(error.into()))
}
