//! Pacing: rules and state are kept apart and survive, strangers are told from known chats and can be put
//! off, bans end, absent numbers are remembered for a while.

use std::time::Duration;

use wagate_domain::message::MessageInput;
use wagate_domain::pacing::{Pacing, PacingPatch, Pause, Reason, Scope};
use wagate_domain::session::Desired;
use wagate_domain::{Event, Jid, WaMessageId};
use wagate_store::StoreError;
use wagate_store::leases::Lease;
use wagate_store::messages::{self, NewInbound, Priority, Update};
use wagate_store::pacing::{self, Stored};
use wagate_store::queue::{self, Claimed};
use wagate_store::sessions::{self, Session};

use crate::support::queues::events_of;
use crate::support::{Fixture, NOW, after, chat, texts};

contract!(
    rules_and_state_do_not_touch_each_other,
    changes_at_once_are_all_kept,
    a_stale_lease_counts_nothing,
    only_the_first_messages_are_to_strangers,
    strangers_are_put_off_and_known_chats_go_on,
    a_put_off_message_can_be_withdrawn_and_keeps_its_order,
    pauses_are_told,
    a_ban_that_is_over_asks_for_a_connection_once,
    absent_numbers_are_forgotten_in_time,
    a_deleted_session_leaves_nothing,
);

async fn stored(f: &Fixture, session: &Session) -> Stored {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.read(move |tx| pacing::get(tx, &tenant, &id)).await
}

async fn strangers(f: &Fixture, claimed: &[Claimed], lease: &Lease) -> Vec<String> {
    let (claimed, id) = (claimed.to_vec(), lease.session.clone());
    f.read(move |tx| {
        let first = queue::to_strangers(tx, &id, &claimed)?;
        let of = claimed.iter().filter(|c| first.contains(&c.message));
        Ok(of
            .map(|c| c.content.as_text().unwrap().to_owned())
            .collect())
    })
    .await
}

async fn put_off(f: &Fixture, lease: &Lease, secs: u64) -> bool {
    let lease = lease.clone();
    f.write(move |tx| queue::put_off_strangers(tx, &lease, after(secs), NOW))
        .await
}

async fn hear_from(f: &Fixture, lease: &Lease, user: &str) {
    let message = NewInbound {
        wa_id: WaMessageId::generate(),
        chat: chat(user),
        sender: chat(user),
        from_me: false,
        push_name: None,
        content: wagate_domain::Content::text("hello").unwrap(),
        at: NOW,
    };
    let lease = lease.clone();
    f.write(move |tx| messages::insert_inbound(tx, &lease, vec![message], NOW).map(drop))
        .await;
}

fn pause(reason: Reason, until: u64) -> Pause {
    Pause {
        scope: Scope::All,
        reason,
        since: NOW,
        until: after(until),
    }
}

async fn rules_and_state_do_not_touch_each_other(f: Fixture) {
    let (session, lease) = f.running().await;
    assert_eq!(stored(&f, &session).await, Stored::default());
    let mut state = Pacing::default();
    state.count(NOW, true, 0.5);
    let (holder, written) = (lease.clone(), state.clone());
    f.write(move |tx| pacing::save(tx, &holder, &written)).await;
    let rules = PacingPatch {
        per_day: Some(None),
        gap_ms: Some(1500),
        ..PacingPatch::default()
    };
    for _ in 0..2 {
        let (tenant, id) = (session.tenant.clone(), session.id.clone());
        f.write(move |tx| pacing::configure(tx, &tenant, &id, &rules, NOW))
            .await;
    }
    assert_eq!(stored(&f, &session).await, Stored { rules, state });
    let events = events_of(&f, &session, &["pacing.configured"]).await;
    assert_eq!(events.len(), 1, "the second time changed nothing");
    let (stranger, id) = (f.tenant("stranger").await, session.id.clone());
    let refused = f.db.read(move |tx| pacing::get(tx, &stranger, &id)).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

async fn changes_at_once_are_all_kept(f: Fixture) {
    let (session, _lease) = f.running().await;
    let changes = [
        PacingPatch {
            gap_ms: Some(1500),
            ..PacingPatch::default()
        },
        PacingPatch {
            per_minute: Some(Some(7)),
            ..PacingPatch::default()
        },
        PacingPatch {
            per_day: Some(None),
            ..PacingPatch::default()
        },
        PacingPatch {
            typing: Some(true),
            ..PacingPatch::default()
        },
    ];
    let mut set = tokio::task::JoinSet::new();
    for change in changes {
        let (db, tenant, id) = (f.db.clone(), session.tenant.clone(), session.id.clone());
        set.spawn(async move {
            let changed = db.write(move |tx| {
                let before = pacing::get_to_change(tx, &tenant, &id)?.rules;
                pacing::configure(tx, &tenant, &id, &before.and(change), NOW)
            });
            changed.await.unwrap();
        });
    }
    set.join_all().await;
    let all = changes.into_iter().reduce(PacingPatch::and).unwrap();
    assert_eq!(stored(&f, &session).await.rules, all);
}

async fn a_stale_lease_counts_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    let later = f.acquire("other", after(3600)).await;
    assert_eq!(later.len(), 1);
    let refused =
        f.db.write(move |tx| pacing::save(tx, &lease, &Pacing::default()))
            .await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)));
    assert_eq!(stored(&f, &session).await, Stored::default());
}

async fn only_the_first_messages_are_to_strangers(f: Fixture) {
    let (session, lease) = f.running().await;
    hear_from(&f, &lease, "2").await;
    for user in ["1", "2"] {
        f.send(&session, user, user).await;
    }
    let claimed = f.claim(&lease, 5, NOW).await;
    assert_eq!(texts(&claimed), ["1", "2"]);
    assert_eq!(strangers(&f, &claimed, &lease).await, ["1"]);
    // Sent once, known for ever.
    let (first, holder) = (claimed[0].clone(), lease.clone());
    f.write(move |tx| {
        let update = Update {
            wa_id: first.wa_id.clone(),
            input: MessageInput::ServerAck,
            at: NOW,
            failure: None,
        };
        messages::apply(tx, &holder, update, NOW)?;
        pacing::note_known(tx, &holder, &[first.chat.clone(), first.chat])
    })
    .await;
    f.send(&session, "1", "again").await;
    let claimed = f.claim(&lease, 5, NOW).await;
    assert_eq!(texts(&claimed), ["again"]);
    assert!(strangers(&f, &claimed, &lease).await.is_empty());
}

async fn strangers_are_put_off_and_known_chats_go_on(f: Fixture) {
    let (session, lease) = f.running().await;
    hear_from(&f, &lease, "999").await;
    for user in 0..300 {
        f.send(&session, &format!("{user}"), "first").await;
    }
    f.send(&session, "999", "second").await;
    // More than one transaction may look at.
    assert!(!put_off(&f, &lease, 60).await);
    assert!(put_off(&f, &lease, 60).await);
    assert_eq!(texts(&f.claim(&lease, 5, NOW).await), ["second"]);
    assert!(f.claim(&lease, 5, after(59)).await.is_empty());
    assert_eq!(f.claim(&lease, 5, after(60)).await.len(), 5);
}

async fn a_put_off_message_can_be_withdrawn_and_keeps_its_order(f: Fixture) {
    let (session, lease) = f.running().await;
    let first = f.send(&session, "1", "one").await;
    f.send(&session, "1", "two").await;
    f.send_with(&session, "1", "high", Priority::High, None)
        .await;
    assert!(put_off(&f, &lease, 60).await);
    let chats = {
        let id = lease.session.clone();
        f.read(move |tx| queue::next_chats(tx, &id, 10)).await
    };
    assert_eq!(chats, Vec::<Jid>::new());
    let tenant = session.tenant.clone();
    f.write(move |tx| messages::cancel(tx, &tenant, &first.id, NOW).map(drop))
        .await;
    // The withdrawn one's successor has taken its place, and waits for nothing yet.
    assert!(put_off(&f, &lease, 60).await);
    assert_eq!(texts(&f.claim(&lease, 5, after(60)).await), ["high"]);
    let chats = {
        let id = lease.session.clone();
        f.read(move |tx| queue::next_chats(tx, &id, 10)).await
    };
    assert_eq!(
        chats,
        [chat("1")],
        "what is being sent and what comes next, once"
    );
}

async fn pauses_are_told(f: Fixture) {
    let (session, lease) = f.running().await;
    let holder = lease.clone();
    f.write(move |tx| {
        pacing::save(tx, &holder, &Pacing::default())?;
        pacing::paused(tx, &holder, &pause(Reason::RateLimited, 60), NOW)?;
        pacing::resumed(tx, &holder, &pause(Reason::RateLimited, 60), after(60))
    })
    .await;
    let events = events_of(&f, &session, &["session.paused", "session.resumed"]).await;
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    assert_eq!(names, ["session.paused", "session.resumed"]);
    let told = Event::SessionPaused {
        session: session.name.clone(),
        scope: Scope::All,
        reason: Reason::RateLimited,
        until: after(60),
    };
    assert_eq!(events[0], told);
}

async fn a_ban_that_is_over_asks_for_a_connection_once(f: Fixture) {
    let (session, lease) = f.running().await;
    let holder = lease.clone();
    f.write(move |tx| {
        pacing::save(tx, &holder, &Pacing::default())?;
        pacing::paused(tx, &holder, &pause(Reason::Banned, 60), NOW)
    })
    .await;
    let before = {
        let id = session.id.clone();
        f.read(move |tx| sessions::find(tx, &id)).await
    };
    let early = f.write(|tx| pacing::end_bans(tx, after(59), 10)).await;
    assert!(early.is_empty());
    let over = f.write(|tx| pacing::end_bans(tx, after(60), 10)).await;
    assert_eq!(over, std::slice::from_ref(&session.id));
    let again = f.write(|tx| pacing::end_bans(tx, after(61), 10)).await;
    assert!(again.is_empty());
    let now = {
        let id = session.id.clone();
        f.read(move |tx| sessions::find(tx, &id)).await
    };
    assert_eq!(now.generation, before.generation + 1);
    // One that is to be stopped stays so.
    let holder = lease.clone();
    f.write(move |tx| pacing::paused(tx, &holder, &pause(Reason::Banned, 60), NOW))
        .await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, Desired::Stopped, None, NOW))
        .await;
    let over = f.write(|tx| pacing::end_bans(tx, after(60), 10)).await;
    assert!(over.is_empty());
}

async fn absent_numbers_are_forgotten_in_time(f: Fixture) {
    let (_, lease) = f.running().await;
    let keep = Duration::from_secs(3600);
    let note = |chats: Vec<Jid>, secs| {
        let lease = lease.clone();
        f.write(move |tx| pacing::note_absent(tx, &lease, &chats, keep, after(secs)))
    };
    let known = |since| {
        let id = lease.session.clone();
        f.read(move |tx| {
            let asked = [chat("1"), chat("2"), chat("3")];
            let mut found = pacing::absent(tx, &id, &asked, after(since))?;
            found.sort();
            Ok(found)
        })
    };
    note(vec![chat("1"), chat("2")], 10).await;
    note(vec![chat("2")], 20).await;
    assert_eq!(known(0).await, [chat("1"), chat("2")]);
    assert_eq!(known(10).await, [chat("2")]);
    note(vec![], 10 + 3600).await;
    assert_eq!(known(0).await, [chat("2")]);
}

async fn a_deleted_session_leaves_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    let holder = lease.clone();
    f.write(move |tx| {
        pacing::save(tx, &holder, &Pacing::default())?;
        pacing::note_known(tx, &holder, &[chat("1")])?;
        pacing::note_absent(tx, &holder, &[chat("1")], Duration::from_secs(60), NOW)
    })
    .await;
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.write(move |tx| sessions::set_desired(tx, &tenant, &id, Desired::Deleted, None, NOW))
        .await;
    assert!(
        f.write(move |tx| sessions::delete_rows(tx, &lease, 100))
            .await
    );
}
