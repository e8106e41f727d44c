//! What a worker saw of a session, written under its lease, and the events that follow from it.

use wagate_domain::session::{Desired, LinkChallenge, LinkState};
use wagate_domain::{Event, Timestamp};

use super::{Generation, Identity, Session, find, seal_challenge, to_json};
use crate::db::{Tx, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::outbox;

/// What a change does to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    #[default]
    Keep,
    Set(T),
    Clear,
}

impl<T: Clone> Patch<T> {
    fn apply(&self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Set(value) => *field = Some(value.clone()),
            Self::Clear => *field = None,
        }
    }
}

/// What a worker saw; what it says nothing about stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    pub link: Option<LinkState>,
    /// Cleared by itself when the link state is another than `AwaitingScan`.
    pub challenge: Patch<LinkChallenge>,
    pub identity: Patch<Identity>,
    pub last_activity: Option<Timestamp>,
    /// The generation that has been carried out.
    pub generation_done: Option<Generation>,
}

/// Writes an observation and gives the session as it is now.
///
/// Emits `session.status` when the link state changed, and what follows from it: `session.qr`,
/// `session.pairing_code`, `session.connected`, `session.disconnected`, `session.logged_out`. A session
/// that is to be deleted emits nothing more.
pub fn observe(
    tx: &mut Tx<'_>,
    lease: &Lease,
    seen: &Observation,
    now: Timestamp,
) -> Result<Session, StoreError> {
    tx.fence(lease)?;
    let before = find(tx, &lease.session)?;
    let mut after = before.clone();
    if let Some(link) = &seen.link {
        after.link = link.clone();
        if !matches!(link, LinkState::AwaitingScan) {
            after.challenge = None;
        }
        if link.is_connected() && !before.link.is_connected() {
            after.connected_at = Some(now);
        }
    }
    seen.challenge.apply(&mut after.challenge);
    seen.identity.apply(&mut after.identity);
    after.last_activity = seen
        .last_activity
        .or(before.last_activity)
        .max(before.last_activity);
    let done = seen.generation_done.unwrap_or(0).min(before.generation);
    after.generation_done = before.generation_done.max(done);
    if after == before {
        return Ok(after);
    }
    after.updated_at = now;
    let wanted = save(tx, &after)?;
    if after.link != before.link || after.generation_done != before.generation_done {
        let sql = "UPDATE leases SET wanted = $2 WHERE session_id = $1 AND wanted <> $2";
        tx.execute(sql, params![&after.id, wanted])?;
    }
    if after.desired != Desired::Deleted {
        for event in events(&before, &after) {
            outbox::append(tx, &after.tenant, Some(&after.id), &event, now)?;
        }
    }
    Ok(after)
}

/// Tells the tenant that the connection was up and said nothing. Emits `session.silent`.
pub fn note_silence(tx: &mut Tx<'_>, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
    let session = tx.fence(lease)?;
    let event = Event::SessionSilent { session };
    outbox::append(tx, &lease.tenant, Some(&lease.session), &event, now)
}

/// Writes what was observed; says whether the session wants a worker now.
fn save(tx: &mut Tx<'_>, session: &Session) -> Result<bool, StoreError> {
    let challenge = session
        .challenge
        .as_ref()
        .map(|challenge| seal_challenge(tx.sealer(), &session.id, challenge))
        .transpose()?;
    let identity = session.identity.as_ref();
    // The desired state and its generation belong to the requests and are not written here.
    tx.query_one(
        "UPDATE sessions SET link = $2, challenge = $3, jid = $4, lid = $5, push_name = $6, \
         platform = $7, last_activity_ms = $8, connected_ms = $9, generation_done = $10, \
         updated_ms = $11 WHERE id = $1 RETURNING desired, generation",
        params![
            &session.id,
            to_json(&session.link)?,
            challenge,
            identity.map(|identity| &identity.jid),
            identity.and_then(|identity| identity.lid.as_ref()),
            identity.and_then(|identity| identity.push_name.as_ref()),
            identity.and_then(|identity| identity.platform.as_ref()),
            session.last_activity,
            session.connected_at,
            session.generation_done,
            session.updated_at
        ],
        |row| {
            let runs = row.parse::<Desired>(0)? == Desired::Running;
            let undone = row.int(1)? > session.generation_done;
            Ok(undone || (runs && !session.link.is_permanent()))
        },
    )
}

fn events(before: &Session, after: &Session) -> Vec<Event> {
    let name = || after.name.clone();
    let mut events = Vec::new();
    let moved = before.link != after.link;
    if moved {
        events.push(Event::SessionStatus {
            session: name(),
            status: after.link.clone(),
        });
    }
    if let Some(challenge) = after
        .challenge
        .as_ref()
        .filter(|_| before.challenge != after.challenge)
    {
        let challenge = challenge.clone();
        events.push(match challenge {
            LinkChallenge::Qr { .. } => Event::SessionQr {
                session: name(),
                challenge,
            },
            LinkChallenge::Code { .. } => Event::SessionPairingCode {
                session: name(),
                challenge,
            },
        });
    }
    let reason = || {
        let reason = after.link.reason();
        reason.map_or_else(
            || after.link.as_str().to_owned(),
            |reason| reason.code.clone(),
        )
    };
    if moved && after.link.is_connected() && !before.link.is_connected() {
        let phone = after
            .identity
            .as_ref()
            .and_then(|identity| identity.jid.phone());
        let phone_number = phone.map(|phone| format!("+{}", phone.digits()));
        events.push(Event::SessionConnected {
            session: name(),
            phone_number,
        });
    } else if moved && matches!(after.link, LinkState::LoggedOut { .. }) {
        events.push(Event::SessionLoggedOut {
            session: name(),
            reason: reason(),
        });
    } else if moved && before.link.is_connected() {
        events.push(Event::SessionDisconnected {
            session: name(),
            reason: reason(),
        });
    }
    events
}
