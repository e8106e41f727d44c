//! Goal: one session in trouble keeps the others from nothing, and figures say what is true. Method: a
//! database in memory, and changes that go wrong where the test says.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_domain::{Content, Jid, Priority, SystemClock};
use wagate_store::bus::Bus;
use wagate_store::messages::NewOutbound;
use wagate_store::sessions::NewSession;
use wagate_store::{Db, DbOptions, MasterKey, Sealer, tenants};

use super::*;
use crate::app::AppOptions;

/// A tenant with as many sessions, each of which has a message that waits.
async fn with_sessions(count: usize) -> (App, Caller, Vec<SessionId>) {
    let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
    let db = Db::open(DbOptions::new("sqlite::memory:"), sealer);
    let db = db.await.unwrap();
    db.migrate().await.unwrap();
    let now = Timestamp::from_secs(1_700_000_000);
    let made = db.write(move |tx| {
        let tenant = tenants::create(tx, "acme", now)?.id;
        let mut made = Vec::new();
        for _ in 0..count {
            let session = sessions::create(tx, &tenant, &NewSession::default(), now)?.id;
            let new = NewOutbound {
                session: session.clone(),
                chat: Jid::pn("628"),
                content: Content::Text { text: "x".into() },
                priority: Priority::Normal,
                not_before: None,
                expires_at: None,
                idempotency: None,
            };
            messages::accept(tx, &tenant, new, now)?;
            made.push(session);
        }
        Ok((tenant, made))
    });
    let (tenant, made) = made.await.unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (clock, options) = (Arc::new(SystemClock), AppOptions::default());
    let app = App::start(db, Bus::local(), clock, options, &tasks, stop);
    (app, Caller::worker(tenant), made)
}

/// Changes one message of each session, until this goes wrong in the second.
async fn second_fails(error: fn() -> StoreError) -> Result<Changed, AppError> {
    let (app, caller, made) = with_sessions(3).await;
    let second = made[1].clone();
    let change = move |_: &mut Tx<'_>, at: &Bite| {
        if at.session == second {
            return Err(error());
        }
        Ok(vec![MessageId::generate()])
    };
    app.change_many(&caller, None, Holding::Queued, false, change)
        .await
}

#[tokio::test]
async fn a_session_that_takes_no_more_keeps_the_others_from_nothing() {
    let full = || StoreError::Limit { what: "queue" };
    let want = Changed {
        count: 2,
        skipped_sessions: 1,
        more: false,
    };
    assert_eq!(second_fails(full).await.unwrap(), want);
}

#[tokio::test]
async fn a_database_that_is_away_is_no_session_that_takes_no_messages() {
    let error = second_fails(|| StoreError::Busy).await.unwrap_err();
    assert!(matches!(error, AppError::Unavailable { .. }), "{error:?}");
}

fn rate(completed: u64, failed: u64) -> Option<f64> {
    success_rate(&TenantQueue {
        completed,
        failed,
        ..TenantQueue::default()
    })
}

#[test]
fn the_success_rate_is_a_share_of_what_ended() {
    assert_eq!(rate(0, 0), None);
    assert_eq!(rate(942, 58), Some(94.2));
    assert_eq!(rate(5, 0), Some(100.0));
    assert_eq!(rate(0, 5), Some(0.0));
    // Not all of it, so not 100.
    assert_eq!(rate(u64::MAX / 4, 1), Some(99.9));
}
