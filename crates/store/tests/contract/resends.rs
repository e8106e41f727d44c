//! What devices asked for again is watched until one of them confirms it, and sent again a few times.

use std::time::Duration;

use wagate_domain::message::MessageInput;
use wagate_domain::{Desired, ReceiptKind, Timestamp, WaMessageId, WorkerId};
use wagate_store::StoreError;
use wagate_store::leases::Lease;
use wagate_store::messages::{self, DueResends, Message, RESENDS_MAX, Update};
use wagate_store::sessions::{self, Session};

use crate::support::queues::{ack, fail_all};
use crate::support::{Fixture, NOW, after};

contract!(
    a_message_that_was_asked_for_is_sent_again_and_then_given_up,
    a_confirmed_message_is_watched_no_longer,
    what_the_queue_still_sends_is_left_to_it,
    only_ones_own_unconfirmed_messages_can_be_asked_for,
    a_request_belongs_to_whoever_holds_the_session,
    a_message_that_goes_takes_its_request_along,
    a_clock_that_was_ahead_delays_nothing,
);

async fn ask(f: &Fixture, lease: &Lease, wa_id: &WaMessageId, due: Timestamp) -> bool {
    let (lease, wa_id) = (lease.clone(), wa_id.clone());
    f.write(move |tx| messages::note_asked_again(tx, &lease, &wa_id, due))
        .await
}

/// The waits are 10 seconds and as much more each time.
fn wait(time: u32) -> Duration {
    Duration::from_secs(10) * (time + 1)
}

/// Looks after what is due.
async fn due(f: &Fixture, lease: &Lease, now: Timestamp) -> DueResends {
    let lease = lease.clone();
    f.write(move |tx| messages::take_due_resends(tx, &lease, now, wait))
        .await
}

/// The worker's sessions with something due.
async fn worked_on(f: &Fixture, worker: &'static str, now: Timestamp) -> usize {
    let worker = WorkerId::parse(worker).unwrap();
    let longest = wait(RESENDS_MAX);
    f.read(move |tx| messages::sessions_to_resend(tx, &worker, now, longest))
        .await
        .len()
}

/// A message that WhatsApp took.
async fn sent(f: &Fixture, (session, lease): (&Session, &Lease), text: &str) -> Message {
    let message = f.send(session, "1", text).await;
    f.claim(lease, 1, NOW).await;
    ack(f, lease, &message.wa_id).await;
    message
}

async fn a_message_that_was_asked_for_is_sent_again_and_then_given_up(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = sent(&f, (&session, &lease), "hello").await;
    assert!(ask(&f, &lease, &message.wa_id, after(10)).await);
    assert!(
        !ask(&f, &lease, &message.wa_id, after(1)).await,
        "it is watched already"
    );
    assert_eq!(due(&f, &lease, after(9)).await, DueResends::default());
    let mut now = after(10);
    for time in 1..=RESENDS_MAX {
        let found = due(&f, &lease, now).await;
        assert_eq!(found.given_up, []);
        let [resend] = &found.resends[..] else {
            panic!("{found:?}")
        };
        assert_eq!((&resend.wa_id, resend.time), (&message.wa_id, time));
        assert_eq!(
            (&resend.chat, resend.content.as_text()),
            (&message.chat, Some("hello"))
        );
        let next = now.plus(wait(time));
        let before = next.minus(Duration::from_secs(1));
        assert_eq!(due(&f, &lease, before).await, DueResends::default());
        now = next;
    }
    let found = due(&f, &lease, now).await;
    assert_eq!((found.given_up, found.resends.len()), (vec![message.id], 0));
    assert!(
        !ask(&f, &lease, &message.wa_id, now).await,
        "once is enough"
    );
    assert_eq!(due(&f, &lease, after(9_999)).await, DueResends::default());
}

async fn a_confirmed_message_is_watched_no_longer(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = sent(&f, (&session, &lease), "hello").await;
    ask(&f, &lease, &message.wa_id, after(10)).await;
    let update = Update {
        wa_id: message.wa_id.clone(),
        input: MessageInput::Receipt(ReceiptKind::Delivered),
        at: NOW,
        failure: None,
    };
    let holder = lease.clone();
    f.write(move |tx| messages::apply(tx, &holder, update, NOW))
        .await;
    assert_eq!(due(&f, &lease, after(10)).await, DueResends::default());
    assert!(!ask(&f, &lease, &message.wa_id, after(10)).await);
    assert_eq!(due(&f, &lease, after(9_999)).await, DueResends::default());
}

async fn what_the_queue_still_sends_is_left_to_it(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = f.send(&session, "1", "hello").await;
    f.claim(&lease, 1, NOW).await;
    // Its acknowledgement is not committed yet.
    assert!(ask(&f, &lease, &message.wa_id, after(10)).await);
    assert_eq!(due(&f, &lease, after(10)).await, DueResends::default());
    ack(&f, &lease, &message.wa_id).await;
    assert_eq!(due(&f, &lease, after(19)).await, DueResends::default());
    assert_eq!(due(&f, &lease, after(20)).await.resends[0].time, 1);
}

async fn only_ones_own_unconfirmed_messages_can_be_asked_for(f: Fixture) {
    let (session, lease) = f.running().await;
    let failed = f.send(&session, "1", "failed").await;
    fail_all(&f, &lease, "timeout").await;
    assert!(!ask(&f, &lease, &failed.wa_id, NOW).await);
    assert!(!ask(&f, &lease, &WaMessageId::generate(), NOW).await);
    let second = f.session(&session.tenant, "second").await;
    let other = f.start(&second, "w1").await;
    let message = sent(&f, (&session, &lease), "mine").await;
    assert!(!ask(&f, &other, &message.wa_id, NOW).await);
    let content = |lease: &Lease| {
        let (session, wa_id) = (lease.session.clone(), message.wa_id.clone());
        f.read(move |tx| messages::sent(tx, &session, &wa_id))
    };
    assert_eq!(content(&other).await, None);
    let found = (message.chat.clone(), message.content.clone());
    assert_eq!(content(&lease).await, Some(found));
}

async fn a_request_belongs_to_whoever_holds_the_session(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = sent(&f, (&session, &lease), "hello").await;
    ask(&f, &lease, &message.wa_id, after(10)).await;
    assert_eq!(worked_on(&f, "w1", after(9)).await, 0);
    assert_eq!(worked_on(&f, "w1", after(10)).await, 1);
    assert_eq!(worked_on(&f, "w2", after(10)).await, 0);
    let stale = lease;
    let taken = f.acquire("w2", after(1_000)).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(worked_on(&f, "w2", after(1_000)).await, 1);
    let wa_id = message.wa_id.clone();
    let asked = {
        let stale = stale.clone();
        f.db.write(move |tx| messages::note_asked_again(tx, &stale, &wa_id, NOW))
            .await
    };
    assert!(matches!(asked, Err(StoreError::LeaseLost)), "{asked:?}");
    let looked =
        f.db.write(move |tx| messages::take_due_resends(tx, &stale, after(10), wait))
            .await;
    assert!(matches!(looked, Err(StoreError::LeaseLost)), "{looked:?}");
}

async fn a_message_that_goes_takes_its_request_along(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = sent(&f, (&session, &lease), "hello").await;
    ask(&f, &lease, &message.wa_id, NOW).await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, Desired::Deleted, None, NOW))
        .await;
    loop {
        let lease = lease.clone();
        if f.write(move |tx| sessions::delete_rows(tx, &lease, 100))
            .await
        {
            break;
        }
    }
    assert_eq!(worked_on(&f, "w1", after(10)).await, 0);
}

async fn a_clock_that_was_ahead_delays_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = sent(&f, (&session, &lease), "hello").await;
    ask(&f, &lease, &message.wa_id, after(3_600)).await;
    assert_eq!(worked_on(&f, "w1", NOW).await, 1);
    assert_eq!(due(&f, &lease, NOW).await.resends.len(), 1);
    assert_eq!(worked_on(&f, "w1", after(1)).await, 0);
}
