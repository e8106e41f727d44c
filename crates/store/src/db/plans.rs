//! Every statement of the message path, looked at by SQLite's planner: none reads a large table from end
//! to end, so that no cost grows with the queue's depth or with the history.

use std::time::Duration;

use wagate_domain::message::{Content, Failure, MessageInput};
use wagate_domain::session::Desired;
use wagate_domain::{EventSeq, Jid, ReceiptKind, Timestamp, WaMessageId, WorkerId};

use super::DbOptions;
use super::sqlite::{Opened, SqliteConn};
use super::tx::{Conn, Tx};
use crate::idempotency::IdempotencyKey;
use crate::messages::{MessageFilter, NewInbound, NewOutbound, Priority, Update};
use crate::outbox::EventFilter;
use crate::queue::Retry;
use crate::seal::{MasterKey, Sealer};
use crate::{
    PageRequest, StoreError, api_keys, device_state, idempotency, leases, messages, outbox, queue,
    sessions, tenants,
};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Tables that grow with what goes through the gateway.
const LARGE: [&str; 10] = [
    "messages",
    "dead_letters",
    "message_history",
    "queue",
    "outbox",
    "idempotency",
    "device_state",
    "sessions",
    "leases",
    "api_keys",
];

/// A connection on which every statement of the message path has run.
fn exercised() -> SqliteConn {
    let conn = SqliteConn::of(Opened::new(":memory:", &DbOptions::new("sqlite::memory:")).unwrap());
    let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
    super::migrate::run(&mut Tx::new(Conn::Sqlite(&conn), &sealer)).unwrap();
    conn.forget_statements();
    let mut tx = Tx::new(Conn::Sqlite(&conn), &sealer);
    exercise(&mut tx).unwrap();
    tx.finish().unwrap();
    conn
}

/// Planning took half of the writer's time when each value that was bound might have changed the plan.
#[test]
fn a_statement_is_planned_once_whatever_is_bound_to_it() {
    let conn = exercised();
    let statements = conn.statements();
    assert!(statements.len() > 40, "only {} ran", statements.len());
    let anew: Vec<_> = statements
        .iter()
        .filter(|statement| conn.replanned(statement) > 0)
        .collect();
    assert!(anew.is_empty(), "{anew:#?}");
}

#[test]
fn no_statement_of_the_message_path_scans_a_large_table() {
    let conn = exercised();
    let mut slow = Vec::new();
    let mut explained = 0;
    for statement in conn.statements() {
        for line in conn.explain(&statement) {
            explained += 1;
            if scans_large(&line) || updates_all_ready(&statement, &line) {
                slow.push(format!("{line}\n    in {statement}"));
            }
        }
    }
    assert!(explained > 60, "only {explained} steps were explained");
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}

/// A statement that keeps rows in a table of its own makes one each time it runs: a file in memory with
/// pages, a cache and a transaction, which costs more than what most statements do.
#[test]
fn no_step_of_a_message_makes_a_table_for_itself() {
    // What a person, a tick or the janitor asks for.
    let seldom = [
        "SELECT * FROM (SELECT q.message_seq, q.state",
        "DELETE FROM idempotency",
        "UPDATE leases",
        "UPDATE sessions SET desired",
        "UPDATE queue SET due_ms",
        "UPDATE queue SET state = 0, token = NULL WHERE session_id = ?1 AND state = 1 AND token <",
    ];
    let conn = exercised();
    let makes_one = |sql: &String| {
        let program = conn.program(sql);
        assert!(program.len() > 3, "no program of {sql}");
        program
            .iter()
            .any(|step| step == "OpenEphemeral" || step == "OpenAutoindex")
    };
    let mut statements = conn.statements();
    statements.retain(|sql| !seldom.iter().any(|start| sql.starts_with(start)));
    assert!(statements.len() > 40, "only {}", statements.len());
    statements.retain(makes_one);
    assert!(statements.is_empty(), "{statements:#?}");
}

/// A chat's newest messages are read from the end of its own part of an index, and whether somebody wrote
/// is asked of those that came in: neither grows with the history of the session or of the chat.
#[test]
fn what_is_asked_of_one_chat_reads_nothing_of_the_others() {
    let conn = exercised();
    for (part, wanted) in [
        (
            "m.chat = ?6 ORDER BY m.seq DESC",
            "SEARCH m USING INDEX messages_chat (session_id=? AND chat=? AND seq<?)",
        ),
        (
            "m.session_id = ?2 AND m.chat = ?3",
            "SEARCH m USING INDEX messages_chat (session_id=? AND chat=?)",
        ),
        (
            "i.direction = 'inbound'",
            "SEARCH i USING COVERING INDEX messages_once (session_id=? AND chat=?)",
        ),
    ] {
        let statements = conn.statements();
        let about: Vec<_> = statements.iter().filter(|sql| sql.contains(part)).collect();
        assert!(!about.is_empty(), "no statement with {part}");
        for statement in about {
            let plan = conn.explain(statement);
            assert!(
                plan.iter().any(|line| line == wanted),
                "{plan:#?} of {statement}"
            );
            assert!(
                !plan.iter().any(|line| line.contains("TEMP B-TREE")),
                "{plan:#?}"
            );
        }
    }
}

/// By its WhatsApp id a message is found at once, and neither queueing a message nor a move after its first
/// attempt writes the index for it: ids are random, so that is a page of its own each time.
#[test]
fn a_message_is_indexed_by_its_whatsapp_id_when_it_goes_out_and_once() {
    let conn = exercised();
    let statements = conn.statements();
    let starting = |start: &str| -> Vec<&String> {
        let found = statements.iter().filter(|sql| sql.starts_with(start));
        found.collect()
    };
    let wanted = "SEARCH messages USING INDEX messages_outbound (session_id=? AND wa_id=?)";
    for columns in ["seq, id, wa_id", "chat, content", "COALESCE(sent_ms"] {
        let start = format!("SELECT {columns}");
        let by_id = |sql: &&&String| sql.contains("wa_id = ") || sql.contains("wa_id IN");
        let about: Vec<_> = starting(&start);
        let about: Vec<_> = about.iter().filter(by_id).collect();
        assert!(!about.is_empty(), "no statement with {columns}");
        for statement in about {
            let plan = conn.explain(statement);
            assert!(
                plan.iter().any(|line| line == wanted),
                "{plan:#?} of {statement}"
            );
        }
    }
    let moves = starting("UPDATE messages SET state");
    let (tries, others): (Vec<_>, Vec<_>) = moves
        .into_iter()
        .partition(|sql| sql.contains("attempts ="));
    let written = |sql: &&String| conn.program(sql).iter().any(|step| step == "IdxInsert");
    assert!(!tries.is_empty() && tries.iter().all(written), "{tries:?}");
    assert!(
        !others.is_empty() && !others.iter().any(written),
        "{others:?}"
    );
}

/// `SCAN q USING INDEX …` with no condition reads all of the index: as bad as the table.
fn scans_large(line: &str) -> bool {
    let alias = [
        ("d", "dead_letters"),
        ("m", "messages"),
        ("q", "queue"),
        ("s", "sessions"),
        ("l", "leases"),
    ];
    let scanned = line
        .strip_prefix("SCAN ")
        .and_then(|rest| rest.split(' ').next());
    scanned.is_some_and(|name| {
        let table = alias
            .iter()
            .find(|(short, _)| *short == name)
            .map_or(name, |(_, table)| *table);
        LARGE.contains(&table)
    })
}

/// A claim knows its rows, and must not walk through everything that is ready to find them.
fn updates_all_ready(statement: &str, line: &str) -> bool {
    statement.starts_with("UPDATE") && line.contains("queue_ready")
}

fn exercise(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let tenant = tenants::create(tx, "acme", NOW)?.id;
    let key = api_keys::NewApiKey {
        name: "k".into(),
        expires_at: None,
    };
    let (_, secret) = api_keys::create(tx, &tenant, &key, NOW)?;
    api_keys::find_by_secret(tx, &secret, NOW)?;
    let session = sessions::create(tx, &tenant, &sessions::NewSession::default(), NOW)?;
    sessions::set_desired(tx, &tenant, &session.id, Desired::Running, None, NOW)?;
    sessions::get(tx, &tenant, &session.name)?;
    sessions::list(tx, &tenant, &PageRequest::default())?;
    let worker = WorkerId::generate();
    let lease = leases::acquire_some(tx, &worker, 10, Duration::from_secs(9), NOW)?.remove(0);
    leases::renew(tx, &worker, Duration::from_secs(9), NOW)?;
    for number in 0..6 {
        let new = NewOutbound {
            session: session.id.clone(),
            chat: Jid::pn(format!("62812000{}", number % 4)),
            content: Content::Text { text: "x".into() },
            priority: Priority::ALL[number % 3],
            not_before: (number == 4).then(|| NOW.plus(Duration::from_secs(1))),
            expires_at: (number == 5).then(|| NOW.plus(Duration::from_secs(60))),
            idempotency: Some(IdempotencyKey {
                key: number.to_string(),
                body_hash: [0; 32],
            }),
        };
        let accepted = messages::accept(tx, &tenant, new, NOW)?;
        messages::get(tx, &tenant, &accepted.message.id)?;
        if number == 5 {
            messages::cancel(tx, &tenant, &accepted.message.id, NOW)?;
        }
    }
    attempt(tx, &lease)?;
    watch(tx, &lease)?;
    let inbound = NewInbound {
        wa_id: WaMessageId::generate(),
        chat: Jid::pn("628"),
        sender: Jid::pn("628"),
        from_me: false,
        push_name: None,
        content: Content::Text { text: "x".into() },
        at: NOW,
    };
    let (people, wa_id) = ([inbound.chat.clone()], inbound.wa_id.clone());
    messages::sent(tx, &session.id, &wa_id)?;
    messages::sent_at(tx, &session.id, &wa_id)?;
    messages::note_asked_again(tx, &lease, &wa_id, NOW)?;
    messages::insert_inbound(tx, &lease, vec![inbound], NOW)?;
    assert!(messages::has_inbound(
        tx,
        &session.id,
        &people,
        &people,
        &wa_id
    )?);
    let of_chat = MessageFilter {
        chat: Some(Jid::pn("628")),
        ..MessageFilter::default()
    };
    for filter in [MessageFilter::default(), of_chat] {
        messages::list(tx, &tenant, &session.id, &filter, &PageRequest::default())?;
        messages::count(tx, &tenant, &session.id, &filter)?;
    }
    outbox::after(tx, &tenant, EventSeq(0), &EventFilter::default(), 10)?;
    outbox::prune(tx, NOW, 10)?;
    idempotency::prune(tx, 10, NOW)?;
    state(tx, &lease)
}

/// What ticks and people look at.
fn watch(tx: &mut Tx<'_>, lease: &leases::Lease) -> Result<(), StoreError> {
    let (tenant, session) = (&lease.tenant, &lease.session);
    let page = PageRequest::default();
    queue::overdue(tx, NOW, 10)?;
    for state in queue::JobState::ALL.map(Some).into_iter().chain([None]) {
        let session = None;
        queue::jobs(tx, tenant, &queue::JobFilter { session, state }, &page)?;
    }
    queue::dead(tx, tenant, &queue::DeadFilter::default(), &page)?;
    let of_session = queue::DeadFilter {
        session: Some(session.clone()),
        code: None,
    };
    queue::dead(tx, tenant, &of_session, &page)?;
    queue::session_stats(tx, tenant, None, &page)?;
    queue::tenant_stats(tx, tenant)?;
    for holding in [queue::Holding::Queued, queue::Holding::Dead] {
        queue::holders(tx, tenant, holding, None, 10)?;
    }
    queue::revive_some(tx, tenant, session, None, 10, NOW)?;
    queue::clear(tx, tenant, session, &queue::JobState::ALL, 10, NOW)?;
    Ok(())
}

fn attempt(tx: &mut Tx<'_>, lease: &leases::Lease) -> Result<(), StoreError> {
    queue::release_stale(tx, lease, 5, NOW)?;
    queue::put_off_strangers(tx, lease, NOW.plus(Duration::from_secs(1)), NOW)?;
    let mut claimed = queue::claim(tx, lease, 3, NOW.plus(Duration::from_secs(2)))?;
    let update = Update {
        wa_id: claimed[0].wa_id.clone(),
        input: MessageInput::Receipt(ReceiptKind::Read),
        at: NOW,
        failure: None,
    };
    messages::apply_many(tx, lease, &[update], NOW)?;
    let failure = Failure {
        code: "c".into(),
        reason: "r".into(),
    };
    queue::fail(tx, lease, claimed.remove(1), &failure, NOW)?;
    queue::retry(
        tx,
        lease,
        claimed.remove(1),
        Retry {
            due: NOW,
            counts: true,
        },
        NOW,
    )?;
    queue::next_due(tx, lease)?;
    queue::due_sessions(tx, &lease.worker, NOW)?;
    queue::stats(tx, &lease.tenant, Some(&lease.session))?;
    Ok(())
}

fn state(tx: &mut Tx<'_>, lease: &leases::Lease) -> Result<(), StoreError> {
    let kind = device_state::StateKind(1);
    let put = device_state::Put {
        kind,
        key: "k".into(),
        value: vec![1],
    };
    device_state::put_many(tx, lease, std::slice::from_ref(&put))?;
    device_state::update_many(tx, lease, &[put])?;
    device_state::scan(tx, &lease.session, kind, "k")?;
    device_state::get_many(tx, &lease.session, kind, &["k".into()])?;
    device_state::delete_many(tx, lease, kind, &["k".into()])?;
    device_state::reseal_some(tx, None, 10)?;
    device_state::delete_session(tx, lease)?;
    Ok(())
}
