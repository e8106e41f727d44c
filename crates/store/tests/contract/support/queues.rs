//! What tests of queues have in common.

use wagate_domain::message::{Failure, MessageInput};
use wagate_domain::{Event, EventSeq, MessageId, Timestamp, WaMessageId};
use wagate_store::leases::Lease;
use wagate_store::messages::{self, Message, Update};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::queue::{self, Claimed, DeadFilter, Retry, SettingsChange};
use wagate_store::sessions::{self, Counters, Session};
use wagate_store::{PageRequest, tenants};

use super::{Fixture, NOW, outbound};

/// Sends a message that is worth sending until then.
pub(crate) async fn send_until(
    f: &Fixture,
    session: &Session,
    to: &str,
    until: Option<Timestamp>,
) -> Message {
    let (tenant, mut new) = (session.tenant.clone(), outbound(session, to, "valid"));
    new.expires_at = until;
    f.write(move |tx| messages::accept(tx, &tenant, new, NOW))
        .await
        .message
}

/// Ends what is past its validity.
pub(crate) async fn expire(f: &Fixture, now: Timestamp) -> Vec<MessageId> {
    f.write(move |tx| {
        let mut ended = Vec::new();
        for overdue in queue::overdue(tx, now, 100)? {
            ended.extend(queue::expire(tx, &overdue, now)?);
        }
        Ok(ended)
    })
    .await
}

/// Claims everything and lets it fail; gives how many.
pub(crate) async fn fail_all(f: &Fixture, lease: &Lease, code: &'static str) -> usize {
    let mut failed = 0;
    loop {
        let lease = lease.clone();
        let count = f
            .write(move |tx| {
                let failure = Failure {
                    code: code.into(),
                    reason: "For a test.".into(),
                };
                let claimed = queue::claim(tx, &lease, 10, NOW)?;
                let count = claimed.len();
                for one in claimed {
                    queue::fail(tx, &lease, one, &failure, NOW)?;
                }
                Ok(count)
            })
            .await;
        if count == 0 {
            return failed;
        }
        failed += count;
    }
}

/// WhatsApp's server takes it.
pub(crate) async fn ack(f: &Fixture, lease: &Lease, wa_id: &WaMessageId) {
    let lease = lease.clone();
    let update = Update {
        wa_id: wa_id.clone(),
        input: MessageInput::ServerAck,
        at: NOW,
        failure: None,
    };
    f.write(move |tx| messages::apply(tx, &lease, update, NOW))
        .await
        .unwrap();
}

/// Changes the settings of a session, or the default of its tenant, `acme`.
pub(crate) async fn configure(f: &Fixture, session: Option<&Session>, change: SettingsChange) {
    let tenant = match session {
        Some(session) => session.tenant.clone(),
        None => {
            f.read(|tx| tenants::get_by_name(tx, "acme"))
                .await
                .unwrap()
                .id
        }
    };
    let id = session.map(|session| session.id.clone());
    f.write(move |tx| queue::configure(tx, &tenant, id.as_ref(), change, NOW))
        .await;
}

/// So many messages on their way at once.
pub(crate) fn concurrency(most: u32) -> SettingsChange {
    SettingsChange {
        concurrency: Some(Some(most)),
        paused: None,
    }
}

/// What failed or expired, with its codes, the last accepted first.
pub(crate) async fn dead(f: &Fixture, session: &Session) -> Vec<(MessageId, String)> {
    let tenant = session.tenant.clone();
    let page = f
        .read(move |tx| queue::dead(tx, &tenant, &DeadFilter::default(), &PageRequest::default()))
        .await;
    page.items
        .into_iter()
        .map(|dead| (dead.message.id, dead.code))
        .collect()
}

/// All events of the tenant.
pub(crate) async fn events(f: &Fixture, session: &Session) -> Vec<Event> {
    let tenant = session.tenant.clone();
    let all = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &EventFilter::default(), 1000))
        .await;
    all.into_iter().map(|stored| stored.event).collect()
}

/// The tenant's events of these kinds.
pub(crate) async fn events_of(f: &Fixture, session: &Session, names: &[&str]) -> Vec<Event> {
    let mut events = events(f, session).await;
    events.retain(|event| names.contains(&event.name()));
    events
}

/// How many messages a session's counter says are not finished.
pub(crate) async fn queued(f: &Fixture, session: &Session) -> u64 {
    counters(f, session).await.queued
}

pub(crate) async fn counters(f: &Fixture, session: &Session) -> Counters {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.read(move |tx| sessions::counters(tx, &tenant, &id)).await
}

/// Lets an attempt end that counts; the next one is due then.
pub(crate) async fn retry(f: &Fixture, lease: &Lease, claimed: Claimed, due: Timestamp) {
    let (lease, counts) = (lease.clone(), true);
    f.write(move |tx| queue::retry(tx, &lease, claimed, Retry { due, counts }, NOW))
        .await;
}
