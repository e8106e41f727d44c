//! Instructions of the statements on a message's path: what a change of the store costs or saves, however
//! busy the machine is.
//!
//! Run without arguments, it runs itself under `valgrind --tool=callgrind`, each operation with few and
//! with many rounds on the same prepared database. The difference is what a round takes, in all threads
//! and with the transaction around it: a commit of its own, since nobody shares it. The kernel's work,
//! `fdatasync` above all, is not in it. One JSON line goes to standard output.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results and progress are printed"
)]

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};
use wagate_domain::message::{Content, MessageInput};
use wagate_domain::session::Desired;
use wagate_domain::{Jid, ReceiptKind, Timestamp, WaMessageId, WorkerId};
use wagate_store::device_state::{Put, StateKind};
use wagate_store::idempotency::IdempotencyKey;
use wagate_store::messages::{self, NewInbound, NewOutbound, Priority, Update};
use wagate_store::queue;
use wagate_store::sessions::{self, NewSession};
use wagate_store::{Db, DbOptions, Lease, MasterKey, Sealer, StoreError, When, leases, tenants};

const FEW: usize = 100;
const MANY: usize = 300;
/// Chats of the session, each with a message that waits and one that is on its way: more than `MANY`, so
/// that every round finds a chat of its own.
const CHATS: usize = 400;
/// When the rows of a run begin.
const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Longer than any run.
const LEASE: Duration = Duration::from_secs(7 * 24 * 3600);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One step of a message, in a transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// A message, its place in the queue and its event.
    Accept,
    /// The same with an idempotency key.
    AcceptWithKey,
    /// One message for an attempt.
    Claim,
    /// The server has it.
    Acknowledge,
    /// The recipient's phone has it.
    Receipt,
    /// The server has one, and the next is taken: what a busy session does.
    AcknowledgeAndClaim,
    /// A message that came in.
    Inbound,
    /// A key of the engine.
    PutState,
}

impl Operation {
    const ALL: [(&'static str, Operation); 8] = [
        ("accept", Operation::Accept),
        ("accept_with_key", Operation::AcceptWithKey),
        ("claim", Operation::Claim),
        ("acknowledge", Operation::Acknowledge),
        ("receipt", Operation::Receipt),
        ("acknowledge_and_claim", Operation::AcknowledgeAndClaim),
        ("inbound", Operation::Inbound),
        ("put_state", Operation::PutState),
    ];
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says `--bench`.
    let [name, rounds] = arguments.as_slice() else {
        return count_all();
    };
    let operation = Operation::ALL.iter().find(|(known, _)| known == name);
    let (_, operation) = operation.ok_or_else(|| format!("no operation {name}"))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(*operation, rounds.parse()?))
}

/// Counts every operation and prints the result.
fn count_all() -> Result<()> {
    let mut counts = Map::new();
    for (name, _) in Operation::ALL {
        eprintln!("{name} …");
        let (few, many) = (count(name, FEW)?, count(name, MANY)?);
        let each = many.saturating_sub(few) / (MANY - FEW) as u64;
        counts.insert(name.to_owned(), Value::from(each));
    }
    println!("{}", json!({ "instructions_per_transaction": counts }));
    Ok(())
}

/// Instructions of a process that does so many rounds.
fn count(operation: &str, rounds: usize) -> Result<u64> {
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([operation, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be run; is it installed? {error}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    let counted = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    match counted {
        Some(count) if ran.status.success() => Ok(count),
        _ => Err(format!("valgrind says no count:\n{said}").into()),
    }
}

/// Prepares the same database for every number of rounds, and does them one after another.
async fn run(operation: Operation, rounds: usize) -> Result<()> {
    if rounds > MANY {
        return Err(format!("at most {MANY} rounds").into());
    }
    let folder = tempfile::Builder::new().prefix("wagate-bench-").tempdir()?;
    let url = format!("sqlite:{}", folder.path().join("wagate.db").display());
    let sealer = Sealer::new(&MasterKey::generate()?, &[]);
    let db = Db::open(DbOptions::new(url), sealer).await?;
    db.migrate().await?;
    let lease = session(&db).await?;
    let flying = prepare(&db, &lease, operation).await?;
    for round in 0..rounds {
        once(&db, &lease, operation, round, flying.get(round)).await?;
    }
    db.close().await;
    Ok(())
}

/// A session of a tenant, and the right to run it.
async fn session(db: &Db) -> Result<Lease> {
    let worker = WorkerId::parse("bench")?;
    let leases = db
        .write(move |tx| {
            let tenant = tenants::create(tx, "bench", BEGIN)?.id;
            let session = sessions::create(tx, &tenant, &NewSession::default(), BEGIN)?;
            sessions::set_desired(tx, &tenant, &session.id, Desired::Running, None, BEGIN)?;
            leases::acquire_some(tx, &worker, 1, LEASE, BEGIN)
        })
        .await?;
    leases.into_iter().next().ok_or_else(|| "no lease".into())
}

/// A message on its way in every chat and one that waits behind it; for a claim, one that is ready. Gives
/// the ids of those on their way.
async fn prepare(db: &Db, lease: &Lease, operation: Operation) -> Result<Vec<WaMessageId>> {
    let lease = lease.clone();
    let prepared = db.write(move |tx| {
        for n in 0..CHATS {
            messages::accept(tx, &lease.tenant, outbound(&lease, n), BEGIN)?;
        }
        if operation == Operation::Claim {
            return Ok(Vec::new());
        }
        let most = u32::try_from(CHATS).unwrap_or(u32::MAX);
        let claimed = queue::claim(tx, &lease, most, BEGIN)?;
        for n in 0..CHATS {
            messages::accept(tx, &lease.tenant, outbound(&lease, n), BEGIN)?;
        }
        let mut ids: Vec<WaMessageId> = claimed.into_iter().map(|one| one.wa_id).collect();
        ids.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        if operation == Operation::Receipt {
            for id in &ids {
                messages::apply(tx, &lease, update(id, MessageInput::ServerAck), BEGIN)?;
            }
        }
        Ok(ids)
    });
    Ok(prepared.await?)
}

async fn once(
    db: &Db,
    lease: &Lease,
    operation: Operation,
    round: usize,
    flying: Option<&WaMessageId>,
) -> Result<()> {
    let (lease, flying) = (lease.clone(), flying.cloned());
    if operation == Operation::PutState {
        let put = Put {
            kind: StateKind(1),
            key: format!("session-{}", round % 20),
            value: vec![7; 400],
        };
        return Ok(db.put_state(&lease, &[put], When::Now).await?);
    }
    let done = db.write(move |tx| {
        let mut news = |input| {
            let id = flying.as_ref().ok_or(StoreError::NotFound {
                what: "message on its way",
            })?;
            messages::apply(tx, &lease, update(id, input), BEGIN)
        };
        match operation {
            Operation::Accept => {
                messages::accept(tx, &lease.tenant, outbound(&lease, round), BEGIN)?;
            }
            Operation::AcceptWithKey => {
                let key = IdempotencyKey {
                    key: format!("key-{round}"),
                    body_hash: [7; 32],
                };
                let new = NewOutbound {
                    idempotency: Some(key),
                    ..outbound(&lease, round)
                };
                messages::accept(tx, &lease.tenant, new, BEGIN)?;
            }
            Operation::Claim => {
                queue::claim(tx, &lease, 1, BEGIN)?;
            }
            Operation::Acknowledge => {
                news(MessageInput::ServerAck)?;
            }
            Operation::Receipt => {
                news(MessageInput::Receipt(ReceiptKind::Delivered))?;
            }
            Operation::AcknowledgeAndClaim => {
                news(MessageInput::ServerAck)?;
                queue::claim(tx, &lease, 1, BEGIN)?;
            }
            Operation::Inbound => {
                messages::insert_inbound(tx, &lease, vec![inbound(round)], BEGIN)?;
            }
            Operation::PutState => {}
        }
        Ok(())
    });
    Ok(done.await?)
}

fn chat(n: usize) -> Jid {
    Jid::pn(format!("62812{n:07}"))
}

/// 160 characters.
fn text(n: usize) -> Content {
    Content::Text {
        text: format!("{n:0160}"),
    }
}

fn outbound(lease: &Lease, n: usize) -> NewOutbound {
    NewOutbound {
        session: lease.session.clone(),
        chat: chat(n),
        content: text(n),
        priority: Priority::Normal,
        not_before: None,
        expires_at: None,
        idempotency: None,
    }
}

fn inbound(n: usize) -> NewInbound {
    NewInbound {
        wa_id: WaMessageId::generate(),
        chat: chat(n),
        sender: chat(n),
        from_me: false,
        push_name: Some("A contact".to_owned()),
        content: text(n),
        at: BEGIN,
    }
}

fn update(wa_id: &WaMessageId, input: MessageInput) -> Update {
    Update {
        wa_id: wa_id.clone(),
        input,
        at: BEGIN,
        failure: None,
    }
}
