//! What belongs to one session or tenant stays there, and what is stale, gone or put off is left alone:
//! the conditions of statements that one session by itself never meets.

use std::time::Duration;

use wagate_domain::message::MessageState;
use wagate_domain::pacing::{Pacing, Pause, Reason, Scope};
use wagate_domain::session::Desired;
use wagate_domain::{Content, Event, Jid, Timestamp, WaMessageId};
use wagate_store::leases::Lease;
use wagate_store::messages::{self, NewInbound, Priority};
use wagate_store::queue::{self, DeadFilter, Holding, JobFilter, JobState, Retry, SettingsChange};
use wagate_store::sessions::{self, Session};
use wagate_store::{PageRequest, StoreError, pacing};

use crate::support::queues::{
    concurrency, counters, events_of, expire, fail_all, retry, send_until,
};
use crate::support::{Fixture, NOW, after, chat, outbound, texts};

contract!(
    who_is_known_or_absent_is_each_sessions_own,
    a_stale_lease_notes_nobody,
    a_ban_that_was_lifted_asks_for_no_connection,
    figures_and_holders_are_the_tenants_own,
    the_oldest_counts_from_when_it_was_due_in_every_priority,
    a_cursor_leaves_older_messages_of_the_next_session_in_sight,
    a_delayed_head_that_is_withdrawn_lets_the_next_one_go,
    what_is_due_again_at_once_waits_for_its_turn_only,
    only_people_are_strangers_also_when_their_time_has_just_come,
    what_was_revived_meanwhile_does_not_expire,
    a_session_that_is_being_deleted_is_out_of_reach,
    a_deleted_message_that_expired_is_no_failure_less,
    revived_messages_of_one_chat_go_in_their_order,
    a_tenants_default_cannot_be_paused,
);

const KEEP: Duration = Duration::from_secs(3600);

/// Two running sessions of one tenant.
async fn two(f: &Fixture) -> [(Session, Lease); 2] {
    let (first, lease) = f.running().await;
    let second = f.session(&first.tenant, "second").await;
    let other = f.start(&second, "w1").await;
    [(first, lease), (second, other)]
}

async fn hear_from(f: &Fixture, lease: &Lease, user: &str) {
    let message = NewInbound {
        wa_id: WaMessageId::generate(),
        chat: chat(user),
        sender: chat(user),
        from_me: false,
        push_name: None,
        content: Content::text("hello").unwrap(),
        at: NOW,
    };
    let lease = lease.clone();
    f.write(move |tx| messages::insert_inbound(tx, &lease, vec![message], NOW).map(drop))
        .await;
}

async fn put_off(f: &Fixture, lease: &Lease, now: Timestamp) -> bool {
    let lease = lease.clone();
    f.write(move |tx| queue::put_off_strangers(tx, &lease, after(600), now))
        .await
}

async fn absent(f: &Fixture, lease: &Lease) -> Vec<Jid> {
    let id = lease.session.clone();
    f.read(move |tx| pacing::absent(tx, &id, &[chat("1"), chat("2")], NOW.minus(KEEP)))
        .await
}

async fn states(f: &Fixture, session: &Session) -> Vec<JobState> {
    let tenant = session.tenant.clone();
    let filter = JobFilter {
        session: Some(session.id.clone()),
        state: None,
    };
    let page = f
        .read(move |tx| queue::jobs(tx, &tenant, &filter, &PageRequest::default()))
        .await;
    page.items.into_iter().map(|job| job.state).collect()
}

async fn delete(f: &Fixture, session: &Session) {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let deleted = Desired::Deleted;
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, deleted, None, NOW))
        .await;
}

async fn who_is_known_or_absent_is_each_sessions_own(f: Fixture) {
    let [(_, lease), (second, other)] = two(&f).await;
    hear_from(&f, &lease, "1").await;
    let holder = lease.clone();
    f.write(move |tx| {
        pacing::note_known(tx, &holder, &[chat("2")])?;
        pacing::note_absent(tx, &holder, &[chat("1")], KEEP, NOW)
    })
    .await;
    for user in ["1", "2"] {
        f.send(&second, user, user).await;
    }
    assert!(put_off(&f, &other, NOW).await);
    assert!(f.claim(&other, 5, NOW).await.is_empty(), "both are strange");
    assert!(absent(&f, &other).await.is_empty());
    // What one session forgets, another still knows.
    let holder = other.clone();
    f.write(move |tx| pacing::note_absent(tx, &holder, &[chat("2")], KEEP, after(3600)))
        .await;
    assert_eq!(absent(&f, &lease).await, [chat("1")]);
    assert_eq!(absent(&f, &other).await, [chat("2")]);
}

async fn a_stale_lease_notes_nobody(f: Fixture) {
    let (_, lease) = f.running().await;
    assert_eq!(f.acquire("other", after(3600)).await.len(), 1);
    let holder = lease.clone();
    let known =
        f.db.write(move |tx| pacing::note_known(tx, &holder, &[chat("1")]));
    assert!(matches!(known.await, Err(StoreError::LeaseLost)));
    let noted =
        f.db.write(move |tx| pacing::note_absent(tx, &lease, &[chat("1")], KEEP, NOW));
    assert!(matches!(noted.await, Err(StoreError::LeaseLost)));
}

async fn a_ban_that_was_lifted_asks_for_no_connection(f: Fixture) {
    let (session, lease) = f.running().await;
    let ban = Pause {
        scope: Scope::All,
        reason: Reason::Banned,
        since: NOW,
        until: after(60),
    };
    let holder = lease.clone();
    f.write(move |tx| {
        pacing::save(tx, &holder, &Pacing::default())?;
        pacing::paused(tx, &holder, &ban, NOW)
    })
    .await;
    let over = |secs| f.read(move |tx| pacing::any_ban_over(tx, after(secs)));
    assert!(!over(59).await);
    assert!(over(60).await);
    f.write(move |tx| pacing::resumed(tx, &lease, &ban, after(30)))
        .await;
    assert!(!over(60).await);
    let woken = f.write(|tx| pacing::end_bans(tx, after(60), 10)).await;
    assert!(woken.is_empty());
    let told = events_of(&f, &session, &["session.paused", "session.resumed"]).await;
    let names: Vec<&str> = told.iter().map(Event::name).collect();
    assert_eq!(names, ["session.paused", "session.resumed"]);
}

async fn figures_and_holders_are_the_tenants_own(f: Fixture) {
    let [(first, lease), (second, _)] = two(&f).await;
    f.send(&first, "1", "x").await;
    fail_all(&f, &lease, "timeout").await;
    f.send(&first, "1", "y").await;
    let other = f.tenant("other").await;
    let see = |tenant: wagate_domain::TenantId| {
        f.read(move |tx| {
            let page = queue::session_stats(tx, &tenant, None, &PageRequest::default())?;
            let names = page.items.into_iter().map(|row| row.session).collect();
            let mut seen: Vec<Vec<wagate_domain::SessionId>> = vec![names];
            for holding in [Holding::Queued, Holding::Dead] {
                seen.push(queue::holders(tx, &tenant, holding, None, 10)?);
            }
            Ok(seen)
        })
    };
    let both = vec![first.id.clone(), second.id.clone()];
    let holder = vec![first.id.clone()];
    assert_eq!(
        see(first.tenant.clone()).await,
        [both, holder.clone(), holder]
    );
    assert_eq!(see(other).await, [vec![], vec![], vec![]]);
}

async fn the_oldest_counts_from_when_it_was_due_in_every_priority(f: Fixture) {
    let oldest = |session: &Session| {
        let (tenant, id) = (session.tenant.clone(), session.id.clone());
        f.read(move |tx| {
            let page = queue::session_stats(tx, &tenant, Some(&id), &PageRequest::default())?;
            Ok(page.items[0].queue.oldest)
        })
    };
    let [(first, lease), (second, other)] = two(&f).await;
    // Scheduled, and due since then.
    f.send_with(&first, "1", "later", Priority::Low, Some(after(9)))
        .await;
    assert_eq!(oldest(&first).await, None);
    let mut claimed = f.claim(&lease, 1, after(20)).await;
    assert_eq!(oldest(&first).await, None, "it is being sent");
    retry(&f, &lease, claimed.remove(0), after(30)).await;
    assert_eq!(oldest(&first).await, Some(after(9)), "for another attempt");
    f.send_with(&second, "1", "low", Priority::Low, None).await;
    assert_eq!(oldest(&second).await, Some(NOW));
    f.claim(&other, 1, NOW).await;
    assert_eq!(oldest(&second).await, None);
}

async fn a_cursor_leaves_older_messages_of_the_next_session_in_sight(f: Fixture) {
    let [(first, _), (second, _)] = two(&f).await;
    let old = f.send(&second, "1", "old").await;
    let new = [
        f.send(&first, "1", "a").await,
        f.send(&first, "2", "b").await,
    ];
    let mut seen = Vec::new();
    let mut page = PageRequest::first(1);
    loop {
        let (tenant, now) = (first.tenant.clone(), page.clone());
        let got = f
            .read(move |tx| queue::jobs(tx, &tenant, &JobFilter::default(), &now))
            .await;
        seen.extend(got.items.into_iter().map(|job| job.message.id));
        page.after = got.next;
        if page.after.is_none() {
            break;
        }
    }
    let [a, b] = new.map(|message| message.id);
    assert_eq!(seen, [a, b, old.id]);
}

async fn a_delayed_head_that_is_withdrawn_lets_the_next_one_go(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "first").await;
    f.send(&session, "1", "second").await;
    let mut claimed = f.claim(&lease, 5, NOW).await;
    retry(&f, &lease, claimed.remove(0), after(60)).await;
    assert!(f.claim(&lease, 5, NOW).await.is_empty());
    let tenant = session.tenant.clone();
    f.write(move |tx| messages::cancel(tx, &tenant, &first.id, NOW).map(drop))
        .await;
    assert_eq!(texts(&f.claim(&lease, 5, NOW).await), ["second"]);
}

async fn what_is_due_again_at_once_waits_for_its_turn_only(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "x").await;
    let mut claimed = f.claim(&lease, 5, NOW).await;
    assert_eq!(states(&f, &session).await, [JobState::Active]);
    retry(&f, &lease, claimed.remove(0), NOW).await;
    assert_eq!(states(&f, &session).await, [JobState::Waiting]);
    let mut claimed = f.claim(&lease, 5, NOW).await;
    retry(&f, &lease, claimed.remove(0), after(1)).await;
    assert_eq!(states(&f, &session).await, [JobState::Delayed]);
}

async fn only_people_are_strangers_also_when_their_time_has_just_come(f: Fixture) {
    let (session, lease) = f.running().await;
    let group: Jid = "120363000000000001@g.us".parse().unwrap();
    let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "group"));
    new.chat = group.clone();
    f.write(move |tx| messages::accept(tx, &tenant, new, NOW).map(drop))
        .await;
    f.send_with(&session, "1", "due", Priority::High, Some(after(9)))
        .await;
    f.send(&session, "2", "first").await;
    let next = |limit| {
        let id = session.id.clone();
        f.read(move |tx| queue::next_chats(tx, &id, limit))
    };
    assert_eq!(next(9).await, [group.clone(), chat("2")]);
    assert_eq!(next(1).await, std::slice::from_ref(&group));
    assert!(put_off(&f, &lease, after(10)).await);
    let due: Vec<JobState> = states(&f, &session).await;
    assert_eq!(
        due,
        [JobState::Waiting, JobState::Delayed, JobState::Delayed]
    );
    let mut claimed = f.claim(&lease, 5, after(10)).await;
    assert_eq!(texts(&claimed), ["group"]);
    f.send(&session, "3", "other").await;
    assert_eq!(next(9).await, [group, chat("3")], "what is being sent too");
    let (lease, one) = (lease.clone(), claimed.remove(0));
    let again = Retry {
        due: NOW,
        counts: false,
    };
    assert!(
        f.write(move |tx| queue::retry(tx, &lease, one, again, NOW))
            .await
    );
}

async fn what_was_revived_meanwhile_does_not_expire(f: Fixture) {
    let (session, lease) = f.running().await;
    let message = send_until(&f, &session, "1", Some(after(10))).await;
    let found = f.read(|tx| queue::overdue(tx, after(20), 10)).await;
    assert_eq!(found.len(), 1);
    // Another worker was quicker, and the tenant too.
    assert_eq!(
        expire(&f, after(20)).await,
        std::slice::from_ref(&message.id)
    );
    let (tenant, id) = (session.tenant.clone(), message.id.clone());
    f.write(move |tx| queue::revive(tx, &tenant, &id, Some(after(90)), after(20)))
        .await;
    let ended = f
        .write(move |tx| queue::expire(tx, &found[0], after(20)))
        .await;
    assert!(ended.is_empty());
    assert_eq!(f.state(&message).await.message.state, MessageState::Queued);
    // Nor is one looked at that is being sent.
    assert_eq!(f.claim(&lease, 1, after(20)).await.len(), 1);
    let found = f.read(|tx| queue::overdue(tx, after(100), 10)).await;
    assert!(found.is_empty());
}

async fn a_session_that_is_being_deleted_is_out_of_reach(f: Fixture) {
    let (session, lease) = f.running().await;
    let dead = f.send(&session, "1", "x").await;
    fail_all(&f, &lease, "timeout").await;
    send_until(&f, &session, "2", Some(after(10))).await;
    let overdue = f.read(|tx| queue::overdue(tx, after(20), 10)).await;
    delete(&f, &session).await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let attempts = f
        .write(move |tx| {
            let all = JobState::ALL;
            Ok(vec![
                queue::clear(tx, &tenant, &id, &all, 10, NOW).map(drop),
                queue::clear_dead(tx, &tenant, &id, 10, NOW).map(drop),
                queue::revive_some(tx, &tenant, &id, None, 10, NOW).map(drop),
                queue::revive(tx, &tenant, &dead.id, None, NOW).map(drop),
                queue::delete_dead(tx, &tenant, &dead.id, NOW).map(drop),
                queue::configure(tx, &tenant, Some(&id), concurrency(9), NOW).map(drop),
                pacing::configure(tx, &tenant, &id, &Default::default(), NOW),
            ])
        })
        .await;
    for (number, attempt) in attempts.into_iter().enumerate() {
        assert!(
            matches!(attempt, Err(StoreError::NotFound { .. })),
            "{number}: {attempt:?}"
        );
    }
    let ended = f
        .write(move |tx| queue::expire(tx, &overdue[0], after(20)))
        .await;
    assert!(ended.is_empty(), "it goes with its session");
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let (dead, jobs) = f
        .read(move |tx| {
            let filter = DeadFilter {
                session: Some(id),
                code: None,
            };
            let dead = queue::dead(tx, &tenant, &filter, &PageRequest::default())?;
            let filter = JobFilter::default();
            let jobs = queue::jobs(tx, &tenant, &filter, &PageRequest::default())?;
            Ok((dead.items.len(), jobs.items.len()))
        })
        .await;
    assert_eq!((dead, jobs), (0, 0));
}

async fn a_deleted_message_that_expired_is_no_failure_less(f: Fixture) {
    let (session, lease) = f.running().await;
    f.send(&session, "1", "x").await;
    fail_all(&f, &lease, "timeout").await;
    let expired = send_until(&f, &session, "1", Some(after(10))).await;
    expire(&f, after(10)).await;
    assert_eq!(counters(&f, &session).await.failed, 1);
    let tenant = session.tenant.clone();
    f.write(move |tx| queue::delete_dead(tx, &tenant, &expired.id, NOW).map(drop))
        .await;
    assert_eq!(counters(&f, &session).await.failed, 1);
}

async fn revived_messages_of_one_chat_go_in_their_order(f: Fixture) {
    let (session, lease) = f.running().await;
    for text in ["a", "b", "c"] {
        f.send(&session, "1", text).await;
    }
    assert_eq!(fail_all(&f, &lease, "timeout").await, 3);
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let revived = f
        .write(move |tx| queue::revive_some(tx, &tenant, &id, None, 10, NOW))
        .await;
    assert_eq!(revived.len(), 3);
    assert_eq!(texts(&f.claim(&lease, 5, NOW).await), ["a"]);
}

async fn a_tenants_default_cannot_be_paused(f: Fixture) {
    let (session, _) = f.running().await;
    let tenant = session.tenant.clone();
    let change = SettingsChange {
        concurrency: Some(Some(3)),
        paused: Some(true),
    };
    let set = f
        .write(move |tx| queue::configure(tx, &tenant, None, change, NOW))
        .await;
    assert_eq!((set.concurrency, set.paused), (Some(3), false));
}
