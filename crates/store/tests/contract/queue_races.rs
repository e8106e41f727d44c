//! Many processes accept while one sends, retries, fails and withdraws: every message is finished once,
//! each chat in order, nothing is stuck (MP-1, MP-4).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wagate_domain::MessageId;
use wagate_domain::message::{Failure, MessageInput};
use wagate_store::messages::{self, Priority, Update};
use wagate_store::queue::{self, Claimed, QueueStats, Retry};
use wagate_store::sessions::Session;
use wagate_store::{Db, Lease, StoreError, sessions};

use crate::support::{Fixture, NOW, after, outbound};

contract!(
    everything_is_finished_once_and_in_order,
    two_claims_at_once_share_nothing
);

const PRODUCERS: usize = 6;
const CHATS: usize = 4;
const EACH: usize = 12;

/// What happened to each message, in the order in which it happened.
#[derive(Default)]
struct Journal {
    claims: Mutex<Vec<(String, MessageId)>>,
    finished: AtomicUsize,
    withdrawn: AtomicUsize,
    busy: AtomicUsize,
}

async fn everything_is_finished_once_and_in_order(f: Fixture) {
    let (session, lease) = f.running().await;
    let journal = Arc::new(Journal::default());
    let other = f.another().await;
    let mut set = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let db = if producer % 2 == 0 {
            f.db.clone()
        } else {
            other.clone()
        };
        set.spawn(produce(db, session.clone(), producer, Arc::clone(&journal)));
    }
    for _ in 0..2 {
        set.spawn(consume(f.db.clone(), lease.clone(), Arc::clone(&journal)));
    }
    set.join_all().await;
    // Each producer accepted its messages for a chat one after the other: so they were sent.
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut first_claims = HashSet::new();
    for (text, id) in journal.claims.lock().unwrap().iter() {
        let (lane, number) = text.rsplit_once('.').unwrap();
        let number: usize = number.parse().unwrap();
        if first_claims.insert(id.clone()) {
            let before = last.insert(lane.to_owned(), number);
            assert!(
                before.is_none_or(|before| before < number),
                "{lane}: {before:?} then {number}"
            );
        } else {
            assert_eq!(last[lane], number, "a retry was overtaken in {lane}");
        }
    }
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let (stats, counters) = f
        .read(move |tx| {
            Ok((
                queue::stats(tx, &tenant, Some(&id))?,
                sessions::counters(tx, &tenant, &id)?,
            ))
        })
        .await;
    assert_eq!(stats, QueueStats::default());
    let finished = journal.finished.load(Ordering::SeqCst);
    assert_eq!(
        finished + journal.withdrawn.load(Ordering::SeqCst),
        PRODUCERS * CHATS * EACH
    );
    assert_eq!(counters.sent + counters.failed, finished as u64);
    // A transaction may have to be repeated, but that must stay rare.
    let busy = journal.busy.load(Ordering::SeqCst);
    assert!(busy * 20 < PRODUCERS * CHATS * EACH, "{busy} repeats");
}

async fn produce(db: Db, session: Session, producer: usize, journal: Arc<Journal>) {
    for number in 0..EACH {
        for chat in 0..CHATS {
            let priority = Priority::ALL[producer % 3];
            let text = format!("{producer}/{chat}.{number}");
            let message = repeat(&journal, || {
                let tenant = session.tenant.clone();
                let mut new = outbound(&session, &chat.to_string(), &text);
                new.priority = priority;
                db.write(move |tx| messages::accept(tx, &tenant, new, NOW))
            })
            .await
            .message;
            if (number + chat) % 5 == 0 {
                let (tenant, id) = (message.tenant.clone(), message.id.clone());
                match db
                    .write(move |tx| messages::cancel(tx, &tenant, &id, NOW))
                    .await
                {
                    Ok(_) => drop(journal.withdrawn.fetch_add(1, Ordering::SeqCst)),
                    // It is being sent already.
                    Err(StoreError::Conflict { .. }) => {}
                    Err(StoreError::Busy) => drop(journal.busy.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}

async fn consume(db: Db, lease: Lease, journal: Arc<Journal>) {
    let total = PRODUCERS * CHATS * EACH;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let done = || {
        journal.finished.load(Ordering::SeqCst) + journal.withdrawn.load(Ordering::SeqCst) >= total
    };
    let mut turn = 0;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "the queue is stuck");
        let claimed: Vec<Claimed> = repeat(&journal, || {
            let lease = lease.clone();
            let journal = Arc::clone(&journal);
            db.write(move |tx| {
                let claimed = queue::claim(tx, &lease, 3, after(60))?;
                let mut claims = journal.claims.lock().unwrap();
                claims.extend(claimed.iter().map(|claimed| {
                    (
                        claimed.content.as_text().unwrap().to_owned(),
                        claimed.message.clone(),
                    )
                }));
                Ok(claimed)
            })
        })
        .await;
        for claimed in claimed {
            turn += 1;
            finish(&db, &lease, claimed, turn, &journal).await;
        }
        tokio::task::yield_now().await;
    }
}

async fn finish(db: &Db, lease: &Lease, claimed: Claimed, turn: usize, journal: &Journal) {
    let lease = lease.clone();
    match turn % 7 {
        3 => {
            let retry = Retry {
                due: NOW,
                counts: true,
            };
            db.write(move |tx| queue::retry(tx, &lease, claimed, retry, NOW))
                .await
                .unwrap();
        }
        5 => {
            let failure = Failure {
                code: "no".into(),
                reason: "No.".into(),
            };
            db.write(move |tx| queue::fail(tx, &lease, claimed, &failure, NOW))
                .await
                .unwrap();
            journal.finished.fetch_add(1, Ordering::SeqCst);
        }
        _ => {
            repeat(journal, || {
                let lease = lease.clone();
                let update = Update {
                    wa_id: claimed.wa_id.clone(),
                    input: MessageInput::ServerAck,
                    at: NOW,
                    failure: None,
                };
                db.write(move |tx| messages::apply(tx, &lease, update, NOW))
            })
            .await;
            journal.finished.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Repeats what the database was too busy for.
async fn repeat<R, F>(journal: &Journal, mut write: impl FnMut() -> F) -> R
where
    F: Future<Output = Result<R, StoreError>>,
{
    loop {
        match write().await {
            Ok(value) => return value,
            Err(StoreError::Busy) => drop(journal.busy.fetch_add(1, Ordering::SeqCst)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn two_claims_at_once_share_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..60 {
        f.send(&session, &format!("{number:02}"), "x").await;
    }
    let other = f.another().await;
    let mut set = tokio::task::JoinSet::new();
    for number in 0..12 {
        let db = if number % 2 == 0 {
            f.db.clone()
        } else {
            other.clone()
        };
        let lease = lease.clone();
        set.spawn(async move {
            db.write(move |tx| queue::claim(tx, &lease, 5, NOW))
                .await
                .unwrap()
        });
    }
    let claimed: Vec<Claimed> = set.join_all().await.into_iter().flatten().collect();
    let ids: HashSet<&MessageId> = claimed.iter().map(|claimed| &claimed.message).collect();
    assert_eq!((claimed.len(), ids.len()), (60, 60));
}
