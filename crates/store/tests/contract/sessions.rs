//! Sessions: requests and observations, the events that follow, deletion that leaves nothing.

use std::time::Duration;

use wagate_domain::message::Content;
use wagate_domain::session::{
    Desired, LinkChallenge, LinkMethod, LinkReason, LinkState, SessionName,
};
use wagate_domain::{EventSeq, Jid, PhoneNumber, WaMessageId};
use wagate_store::device_state::{self, Put, StateKind};
use wagate_store::idempotency::IdempotencyKey;
use wagate_store::messages::{self, NewInbound};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::sessions::{self, Identity, NewSession, Observation, Patch, Sender, Session};
use wagate_store::{Lease, PageRequest, StoreError};

use crate::support::{Fixture, NOW, after, chat, outbound};

contract!(
    names_are_unique_in_a_tenant_and_free_after_deletion,
    a_session_reads_back_with_all_its_fields,
    each_request_has_a_new_generation,
    linking_shows_each_challenge_once,
    losing_a_connection_makes_the_events_that_follow,
    lists_page_in_order_of_creation,
    deletion_leaves_nothing,
);

async fn create(f: &Fixture, session: &Session, name: &str) -> Result<Session, StoreError> {
    let (tenant, name) = (session.tenant.clone(), SessionName::parse(name).unwrap());
    let new = NewSession {
        name: Some(name),
        ..Default::default()
    };
    f.db.write(move |tx| sessions::create(tx, &tenant, &new, NOW))
        .await
}

async fn ask(
    f: &Fixture,
    session: &Session,
    desired: Desired,
    method: Option<LinkMethod>,
) -> Result<i64, StoreError> {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    f.db.write(move |tx| {
        sessions::set_desired(tx, &tenant, &id, desired, method.as_ref(), after(1))
    })
    .await
}

async fn observe(f: &Fixture, lease: &Lease, seen: Observation) -> Session {
    let lease = lease.clone();
    f.write(move |tx| sessions::observe(tx, &lease, &seen, after(2)))
        .await
}

/// As it is read for sending, which must be no other than it is.
async fn sender(f: &Fixture, session: &Session) -> Result<Sender, StoreError> {
    let (tenant, name) = (session.tenant.clone(), session.name.clone());
    let read = f.db.read(move |tx| {
        let all = sessions::get(tx, &tenant, &name);
        Ok((sessions::sender(tx, &tenant, &name), all))
    });
    let (sender, all) = read.await?;
    assert_eq!(
        sender.as_ref().ok(),
        all.as_ref().ok().map(Sender::from).as_ref()
    );
    sender
}

async fn names(f: &Fixture, session: &Session) -> Vec<&'static str> {
    let tenant = session.tenant.clone();
    let all = EventFilter::default();
    let events = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &all, 100))
        .await;
    events.iter().map(|stored| stored.event.name()).collect()
}

async fn names_are_unique_in_a_tenant_and_free_after_deletion(f: Fixture) {
    let first = f.session(&f.tenant("acme").await, "main").await;
    assert!(!sender(&f, &first).await.unwrap().has_identity);
    assert!(matches!(
        create(&f, &first, "main").await,
        Err(StoreError::Conflict { .. })
    ));
    let elsewhere = f.tenant("other").await;
    f.session(&elsewhere, "main").await;
    ask(&f, &first, Desired::Deleted, None).await.unwrap();
    let (tenant, name) = (first.tenant.clone(), first.name.clone());
    let gone = f.db.read(move |tx| sessions::get(tx, &tenant, &name)).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
    let gone = sender(&f, &first).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
    assert!(matches!(
        ask(&f, &first, Desired::Running, None).await,
        Err(StoreError::NotFound { .. })
    ));
    let second = create(&f, &first, "main").await.unwrap();
    assert_ne!(first.id, second.id);
    // The worker still finds the old one, to clean up.
    let id = first.id.clone();
    assert_eq!(
        f.read(move |tx| sessions::find(tx, &id)).await.desired,
        Desired::Deleted
    );
    assert_eq!(
        names(&f, &first).await,
        ["session.created", "session.deleted", "session.created"]
    );
    let unnamed = f
        .write(move |tx| sessions::create(tx, &first.tenant, &NewSession::default(), NOW))
        .await;
    assert_eq!(unnamed.name.as_str(), unnamed.id.as_str());
}

fn identity() -> Identity {
    Identity {
        jid: "6281234567890:4@s.whatsapp.net".parse().unwrap(),
        lid: Some(Jid::lid("12345")),
        push_name: Some("Ann".into()),
        platform: Some("android".into()),
    }
}

async fn a_session_reads_back_with_all_its_fields(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let new = NewSession {
        name: Some(SessionName::parse("main").unwrap()),
        label: Some("Personal WhatsApp".into()),
        user_id: Some("user123".into()),
    };
    let owner = tenant.clone();
    let made = f
        .write(move |tx| sessions::create(tx, &owner, &new, NOW))
        .await;
    assert_eq!(
        (made.link.clone(), made.desired),
        (LinkState::Idle, Desired::Stopped)
    );
    let phone = PhoneNumber::from_digits("6281234567890").unwrap();
    let method = LinkMethod::Code { phone };
    ask(&f, &made, Desired::Running, Some(method.clone()))
        .await
        .unwrap();
    let lease = f.acquire("w1", NOW).await.remove(0);
    let until = after(30);
    let seen = Observation {
        link: Some(LinkState::Backoff {
            until,
            reason: LinkReason::new("code", "text"),
        }),
        challenge: Patch::Keep,
        identity: Patch::Set(identity()),
        last_activity: Some(after(5)),
        generation_done: Some(1),
    };
    let observed = observe(&f, &lease, seen).await;
    let (owner, name) = (tenant.clone(), made.name.clone());
    let read = f.read(move |tx| sessions::get(tx, &owner, &name)).await;
    assert_eq!(read, observed);
    assert!(sender(&f, &made).await.unwrap().has_identity);
    assert_eq!(
        (read.label.as_deref(), read.user_id.as_deref()),
        (made.label.as_deref(), Some("user123"))
    );
    assert_eq!(
        (read.method, read.identity),
        (Some(method), Some(identity()))
    );
    assert_eq!((read.generation, read.generation_done), (1, 1));
    assert_eq!((read.created_at, read.updated_at), (NOW, after(2)));
    // An older activity does not take the newer one back; nothing new writes nothing.
    let older = Observation {
        last_activity: Some(after(4)),
        ..Default::default()
    };
    assert_eq!(observe(&f, &lease, older).await, observed);
    // Another method stays out of the way of a request that names none.
    ask(&f, &made, Desired::Running, None).await.unwrap();
    let id = made.id.clone();
    assert!(
        f.read(move |tx| sessions::find(tx, &id))
            .await
            .method
            .is_some()
    );
}

async fn each_request_has_a_new_generation(f: Fixture) {
    let (session, lease) = f.running().await;
    let restarted = ask(&f, &session, Desired::Running, None).await.unwrap();
    assert_eq!(restarted, 2);
    let stopped = ask(&f, &session, Desired::Stopped, None).await.unwrap();
    assert_eq!(stopped, 3);
    // Nobody can have carried out what was not asked for yet.
    let seen = Observation {
        generation_done: Some(99),
        ..Default::default()
    };
    assert_eq!(observe(&f, &lease, seen).await.generation_done, 3);
    let seen = Observation {
        generation_done: Some(1),
        ..Default::default()
    };
    assert_eq!(observe(&f, &lease, seen).await.generation_done, 3);
}

fn link(state: LinkState) -> Observation {
    Observation {
        link: Some(state),
        ..Default::default()
    }
}

async fn linking_shows_each_challenge_once(f: Fixture) {
    let (session, lease) = f.running().await;
    let expires_at = NOW.plus(Duration::from_secs(20));
    let qr = |text: &str| LinkChallenge::Qr {
        qr: text.into(),
        expires_at,
    };
    observe(&f, &lease, link(LinkState::Connecting)).await;
    let shown = Observation {
        challenge: Patch::Set(qr("one")),
        ..link(LinkState::AwaitingScan)
    };
    assert_eq!(
        observe(&f, &lease, shown.clone()).await.challenge,
        Some(qr("one"))
    );
    observe(&f, &lease, shown).await;
    // A rotation is a new QR code and no new state.
    let rotated = Observation {
        challenge: Patch::Set(qr("two")),
        ..Default::default()
    };
    observe(&f, &lease, rotated).await;
    let code = LinkChallenge::Code {
        code: "ABCD1234".into(),
        expires_at,
    };
    observe(
        &f,
        &lease,
        Observation {
            challenge: Patch::Set(code),
            ..Default::default()
        },
    )
    .await;
    let linked = Observation {
        identity: Patch::Set(identity()),
        ..link(LinkState::Connected)
    };
    let connected = observe(&f, &lease, linked).await;
    assert_eq!(
        (connected.challenge, connected.connected_at),
        (None, Some(after(2)))
    );
    let want = [
        "session.created",
        "session.status",
        "session.status",
        "session.qr",
        "session.qr",
        "session.pairing_code",
        "session.status",
        "session.connected",
    ];
    assert_eq!(names(&f, &session).await, want);
}

async fn losing_a_connection_makes_the_events_that_follow(f: Fixture) {
    let (session, lease) = f.running().await;
    let linked = Observation {
        identity: Patch::Set(identity()),
        ..link(LinkState::Connected)
    };
    observe(&f, &lease, linked).await;
    let reason = LinkReason::new("network", "The connection was lost.");
    let away = LinkState::Backoff {
        until: after(9),
        reason: reason.clone(),
    };
    observe(&f, &lease, link(away)).await;
    observe(&f, &lease, link(LinkState::Connected)).await;
    let gone = LinkState::LoggedOut { reason };
    let gone = Observation {
        identity: Patch::Clear,
        ..link(gone)
    };
    assert_eq!(observe(&f, &lease, gone).await.identity, None);
    let want = [
        "session.created",
        "session.status",
        "session.connected",
        "session.status",
        "session.disconnected",
        "session.status",
        "session.connected",
        "session.status",
        "session.logged_out",
    ];
    assert_eq!(names(&f, &session).await, want);
}

async fn lists_page_in_order_of_creation(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        made.push(f.session(&tenant, name).await.id);
    }
    let mut seen = Vec::new();
    let mut page = PageRequest::first(2);
    loop {
        let (owner, request) = (tenant.clone(), page.clone());
        let got = f.read(move |tx| sessions::list(tx, &owner, &request)).await;
        seen.extend(got.items.into_iter().map(|session| session.id));
        match got.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, made);
    assert_eq!(f.read(move |tx| sessions::count(tx, &tenant)).await, 5);
}

async fn deletion_leaves_nothing(f: Fixture) {
    let (session, lease) = f.running().await;
    for number in 0..5 {
        let (tenant, mut new) = (session.tenant.clone(), outbound(&session, "1", "x"));
        let key = number.to_string();
        new.idempotency = Some(IdempotencyKey {
            key,
            body_hash: [0; 32],
        });
        f.write(move |tx| messages::accept(tx, &tenant, new, NOW))
            .await;
    }
    f.claim(&lease, 1, NOW).await;
    let held = lease.clone();
    f.write(move |tx| {
        let put = Put {
            kind: StateKind(1),
            key: "k".into(),
            value: vec![1],
        };
        device_state::put_many(tx, &held, &[put])?;
        let inbound = NewInbound {
            wa_id: WaMessageId::generate(),
            chat: chat("1"),
            sender: chat("1"),
            from_me: false,
            push_name: None,
            content: Content::Text { text: "x".into() },
            at: NOW,
        };
        messages::insert_inbound(tx, &held, vec![inbound], NOW)
    })
    .await;
    let delete = |limit: u32| {
        let lease = lease.clone();
        f.db.write(move |tx| sessions::delete_rows(tx, &lease, limit))
    };
    assert!(
        matches!(delete(9).await, Err(StoreError::Conflict { .. })),
        "nobody asked for it"
    );
    ask(&f, &session, Desired::Deleted, None).await.unwrap();
    assert!(!delete(4).await.unwrap());
    assert!(delete(4).await.unwrap());
    for table in [
        "sessions",
        "leases",
        "session_counters",
        "messages",
        "queue",
        "idempotency",
    ] {
        assert_empty(&f, table);
    }
    assert_empty(&f, "message_history");
    assert_empty(&f, "device_state");
    assert!(matches!(delete(4).await, Err(StoreError::LeaseLost)));
    // What happened stays readable.
    assert_eq!(names(&f, &session).await.last(), Some(&"session.deleted"));
}

/// Fails on the database's side when the table has a row.
fn assert_empty(f: &Fixture, table: &str) {
    let check = format!(
        "CREATE TABLE none_of_{table} (n BIGINT CHECK (n = 0)); \
         INSERT INTO none_of_{table} SELECT COUNT(*) FROM {table};"
    );
    f.raw(&check)
        .unwrap_or_else(|_| panic!("{table} is not empty"));
}
