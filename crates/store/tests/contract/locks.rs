//! Everybody locks a session's lease row before anything else of it, and several rows in one order: two who
//! lock in different orders would wait for each other. Only PostgreSQL has such locks.
//!
//! Method: a row is held from outside. Whoever waits for it must have locked nothing that another may need.

use std::time::Duration;

use postgres::{Client, NoTls};
use tokio::sync::oneshot;
use tokio::time::Instant;
use wagate_domain::message::{Failure, MessageInput};
use wagate_domain::pacing::{Pacing, PacingPatch};
use wagate_domain::{MessageId, SessionId, TenantId, WorkerId};
use wagate_store::leases::{self, Lease};
use wagate_store::messages::{self, Update};
use wagate_store::queue::{self, Claimed, JobState, Overdue, Retry};
use wagate_store::{StoreError, Tx, pacing};

use crate::support::queues::{concurrency, fail_all, send_until};
use crate::support::{Fixture, NOW, TTL, after, chat};

/// Longer than anything here takes on a busy machine, but for who waits for a lock in vain.
const BOUND: Duration = Duration::from_secs(20);

type Change = Box<dyn FnOnce(&mut Tx<'_>) -> Result<(), StoreError> + Send>;

/// Holds what `hold` locks until somebody waits for it; gives, for each of the `others`, how many of these
/// rows are locked then.
fn watch(url: &str, hold: &str, others: &[String], held: oneshot::Sender<()>) -> Vec<i64> {
    let mut holder = Client::connect(url, NoTls).unwrap();
    let mut looker = Client::connect(url, NoTls).unwrap();
    let pid: i32 = holder
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    holder.batch_execute("BEGIN").unwrap();
    assert!(holder.execute(hold, &[]).unwrap() > 0, "{hold}");
    held.send(()).unwrap();
    let blocked = "SELECT COUNT(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))";
    let since = Instant::now();
    while looker.query_one(blocked, &[&pid]).unwrap().get::<_, i64>(0) == 0 {
        assert!(since.elapsed() < BOUND, "nobody waits for: {hold}");
    }
    let mut locked = |rows: &String| {
        let mut count = |lock: &str| -> i64 {
            let sql = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {rows} {lock}) AS r");
            looker.query_one(&sql, &[]).unwrap().get(0)
        };
        count("") - count("FOR UPDATE SKIP LOCKED")
    };
    others.iter().map(&mut locked).collect()
}

/// How many rows of each of the others a change has locked when it comes to what `hold` locks.
async fn locked_before(f: &Fixture, hold: String, others: Vec<String>, change: Change) -> Vec<i64> {
    let (url, (held, ready)) = (f.options.url.clone(), oneshot::channel());
    let watching = tokio::task::spawn_blocking(move || watch(&url, &hold, &others, held));
    let changing = async {
        ready.await.unwrap();
        f.db.write(change).await
    };
    let (locked, changed) = tokio::join!(watching, changing);
    changed.unwrap();
    locked.unwrap()
}

/// Whose queue is changed.
#[derive(Clone)]
struct Whose {
    tenant: TenantId,
    id: SessionId,
    lease: Lease,
}

impl Whose {
    fn by<F>(&self, change: F) -> Change
    where
        F: FnOnce(&mut Tx<'_>, &Whose) -> Result<(), StoreError> + Send + 'static,
    {
        let whose = self.clone();
        Box::new(move |tx| change(tx, &whose))
    }
}

/// What its worker does about a session's queue.
fn by_the_worker(w: &Whose, mut claimed: Vec<Claimed>) -> Vec<(&'static str, Change)> {
    let (acked, again, failed) = (claimed.remove(0), claimed.remove(0), claimed.remove(0));
    let news = Update {
        wa_id: acked.wa_id,
        input: MessageInput::ServerAck,
        at: NOW,
        failure: None,
    };
    let failure = Failure {
        code: "timeout".to_owned(),
        reason: "For a test.".to_owned(),
    };
    let later = Retry {
        due: after(60),
        counts: true,
    };
    vec![
        (
            "apply",
            w.by(move |tx, w| messages::apply(tx, &w.lease, news, NOW).map(drop)),
        ),
        (
            "retry",
            w.by(move |tx, w| queue::retry(tx, &w.lease, again, later, NOW).map(drop)),
        ),
        (
            "fail",
            w.by(move |tx, w| queue::fail(tx, &w.lease, failed, &failure, NOW).map(drop)),
        ),
        (
            "claim",
            w.by(|tx, w| queue::claim(tx, &w.lease, 1, NOW).map(drop)),
        ),
        (
            "release_stale",
            w.by(|tx, w| queue::release_stale(tx, &w.lease, 3, NOW).map(drop)),
        ),
        (
            "put_off_strangers",
            w.by(|tx, w| queue::put_off_strangers(tx, &w.lease, after(60), NOW).map(drop)),
        ),
        (
            "save",
            w.by(|tx, w| pacing::save(tx, &w.lease, &Pacing::default())),
        ),
        (
            "note_known",
            w.by(|tx, w| pacing::note_known(tx, &w.lease, &[chat("1")])),
        ),
    ]
}

/// What its tenant does, with a message that waits and two that failed; and the end of a validity.
fn by_the_tenant(
    w: &Whose,
    waiting: MessageId,
    [dead, gone]: [MessageId; 2],
    overdue: Overdue,
) -> Vec<(&'static str, Change)> {
    let rules = PacingPatch {
        typing: Some(true),
        ..PacingPatch::default()
    };
    vec![
        (
            "cancel",
            w.by(move |tx, w| messages::cancel(tx, &w.tenant, &waiting, NOW).map(drop)),
        ),
        (
            "expire",
            w.by(move |tx, _| queue::expire(tx, &overdue, after(10)).map(drop)),
        ),
        (
            "revive",
            w.by(move |tx, w| queue::revive(tx, &w.tenant, &dead, None, NOW).map(drop)),
        ),
        (
            "delete_dead",
            w.by(move |tx, w| queue::delete_dead(tx, &w.tenant, &gone, NOW).map(drop)),
        ),
        (
            "revive_some",
            w.by(|tx, w| queue::revive_some(tx, &w.tenant, &w.id, None, 1, NOW).map(drop)),
        ),
        (
            "clear_dead",
            w.by(|tx, w| queue::clear_dead(tx, &w.tenant, &w.id, 9, NOW).map(drop)),
        ),
        (
            "clear",
            w.by(|tx, w| queue::clear(tx, &w.tenant, &w.id, &JobState::ALL, 9, NOW).map(drop)),
        ),
        (
            "configure",
            w.by(|tx, w| {
                queue::configure(tx, &w.tenant, Some(&w.id), concurrency(2), NOW).map(drop)
            }),
        ),
        (
            "pacing",
            w.by(move |tx, w| pacing::configure(tx, &w.tenant, &w.id, &rules, NOW)),
        ),
    ]
}

/// A session with messages of each kind, and all that may be done about them.
async fn changes(f: &Fixture) -> (SessionId, Vec<(&'static str, Change)>) {
    let (session, lease) = f.running().await;
    let dead = f.send(&session, "1", "dead").await.id;
    let gone = f.send(&session, "2", "gone").await.id;
    f.send(&session, "3", "dead").await;
    assert_eq!(fail_all(f, &lease, "timeout").await, 3);
    for user in ["4", "5", "6"] {
        f.send(&session, user, "sending").await;
    }
    let claimed = f.claim(&lease, 3, NOW).await;
    let waiting = f.send(&session, "7", "waiting").await.id;
    send_until(f, &session, "8", Some(after(10))).await;
    let mut overdue = f.read(|tx| queue::overdue(tx, after(10), 10)).await;
    let w = Whose {
        tenant: session.tenant,
        id: session.id,
        lease,
    };
    let mut all = by_the_tenant(&w, waiting, [dead, gone], overdue.remove(0));
    all.extend(by_the_worker(&w, claimed));
    (w.id, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn whoever_changes_a_queue_waits_for_the_lease_with_nothing_locked() {
    let f = Fixture::postgres().await;
    let (session, changes) = changes(&f).await;
    let hold = format!("SELECT 1 FROM leases WHERE session_id = '{session}' FOR UPDATE");
    let tables = [
        "messages",
        "queue",
        "session_counters",
        "dead_letters",
        "session_queues",
        "session_pacing",
        "sessions",
    ];
    for (name, change) in changes {
        let others = tables.map(str::to_owned).to_vec();
        let locked = locked_before(&f, hold.clone(), others, change).await;
        assert_eq!(locked, [0; 7], "{name}: rows of {tables:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_workers_leases_are_locked_in_one_order() {
    let f = Fixture::postgres().await;
    let (first, _) = f.running().await;
    let second = f.session(&first.tenant, "second").await;
    f.start(&second, "w1").await;
    assert!(first.id.as_str() < second.id.as_str());
    let row = |id: &str| format!("leases WHERE session_id = '{id}'");
    let hold = format!("SELECT 1 FROM {} FOR UPDATE", row(first.id.as_str()));
    let other = row(second.id.as_str());
    let worker = WorkerId::parse("w1").unwrap();
    let all: [Change; 2] = [
        Box::new({
            let worker = worker.clone();
            move |tx| leases::renew(tx, &worker, TTL, NOW).map(drop)
        }),
        Box::new(move |tx| leases::release_all(tx, &worker).map(drop)),
    ];
    for change in all {
        // Held anew, its row and index entry lie behind the others: it comes last when nobody sorts.
        let set = |worker: &str| {
            let id = &first.id;
            format!("UPDATE leases SET worker_id = {worker} WHERE session_id = '{id}';")
        };
        let touch = set("NULL") + &set("'w1'");
        f.raw(&touch).unwrap();
        let locked = locked_before(&f, hold.clone(), vec![other.clone()], change).await;
        assert_eq!(locked, [0], "the second was locked before the first");
    }
}
