//! How the cost of queueing and claiming grows with what waits already: the store alone, one session.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{Duration, Instant};
use wagate_domain::message::{Content, MessageInput};
use wagate_store::messages::{self, NewOutbound, Priority, Update};
use wagate_store::queue::{self, Claimed};
use wagate_store::{Lease, StoreError, Tx};

use super::text;
use crate::report;
use crate::shelf::{Cost, Curve, Shelf, at, chat};

/// Messages that are queued before as many claims of three take them out again.
const BATCH: usize = 99;
/// So many of them in one transaction, the others in one each.
const TOGETHER: usize = 66;
const CLAIM: usize = 3;
/// Messages in one transaction while the queue is filled.
const FILL: usize = 500;

struct Costs {
    enqueue: Cost,
    commit: Cost,
    claim: Cost,
    finish: Cost,
    fixed: Cost,
}

pub(crate) async fn run(depths: &[usize], chats: usize, rounds: usize) -> Result<()> {
    let shelf = Shelf::with_sessions(1).await?;
    let lease = shelf.leases.first().context("no session")?.clone();
    let (mut queued, mut next) = (0, 0);
    let (mut enqueue, mut commit) = (Curve::default(), Curve::default());
    let mut claim = Curve::default();
    for &depth in depths {
        eprintln!("filling the queue to {depth} …");
        // A batch comes on top of what waits.
        while queued + BATCH < depth {
            let count = FILL.min(depth - BATCH - queued);
            enqueue_some(&shelf, &lease, next, count, chats).await?;
            (next, queued) = (next + count, queued + count);
        }
        let costs = cycle(&shelf, &lease, &mut next, chats, rounds).await?;
        enqueue.add(&costs.enqueue, 0.5, &costs.fixed);
        commit.add(&costs.commit, 0.5, &costs.fixed);
        claim.add(&costs.claim, 0.5, &costs.fixed);
        report::print_growth(
            "growth-queue",
            &json!({ "queued": depth, "chats": chats, "rounds": rounds }),
            &json!({
                "enqueue_one": costs.enqueue.to_json(),
                "enqueue_one_committed_cpu": costs.commit.to_json(),
                "claim_three": costs.claim.to_json(),
                "acknowledge_three": costs.finish.to_json(),
                "fixed_loop": costs.fixed.to_json(),
                "enqueue_ratio": enqueue.growth(),
                "enqueue_committed_ratio": commit.growth(),
                "claim_ratio": claim.growth(),
            }),
        )?;
    }
    shelf.close().await;
    Ok(())
}

/// Queues a batch and takes it out again, so that the depth stays what it is.
async fn cycle(
    shelf: &Shelf,
    lease: &Lease,
    next: &mut usize,
    chats: usize,
    rounds: usize,
) -> Result<Costs> {
    let (mut enqueue, mut commit) = (Cost::new()?, Cost::new()?);
    let (mut claim, mut finish, mut fixed) = (Cost::new()?, Cost::new()?, Cost::new()?);
    for _ in 0..rounds {
        for took in enqueue_some(shelf, lease, *next, TOGETHER, chats).await? {
            enqueue.add(took, 1);
        }
        *next += TOGETHER;
        let mut alone = Duration::ZERO;
        for _ in TOGETHER..BATCH {
            let (lease, n) = (lease.clone(), *next);
            alone += shelf
                .committed(move |tx| accept(tx, &lease, n, chats))
                .await?;
            *next += 1;
        }
        // A thread's clock may be read a little early or late.
        commit.add(alone, BATCH - TOGETHER);
        for _ in 0..BATCH / CLAIM {
            let (of, now, max) = (lease.clone(), at(*next), u32::try_from(CLAIM)?);
            let (claimed, took) = shelf
                .timed(move |tx| queue::claim(tx, &of, max, now))
                .await?;
            claim.add(took, 1);
            fixed.add_loop();
            let of = lease.clone();
            let (_, took) = shelf
                .timed(move |tx| acknowledge(tx, &of, &claimed, now))
                .await?;
            finish.add(took, 1);
        }
    }
    Ok(Costs {
        enqueue,
        commit,
        claim,
        finish,
        fixed,
    })
}

/// Queues messages of these numbers in one transaction; gives what each took.
async fn enqueue_some(
    shelf: &Shelf,
    lease: &Lease,
    first: usize,
    count: usize,
    chats: usize,
) -> Result<Vec<Duration>> {
    let lease = lease.clone();
    let queued = shelf.db.write(move |tx| {
        let numbers = first..first + count;
        numbers
            .map(|n| {
                let started = Instant::now();
                accept(tx, &lease, n, chats)?;
                Ok(started.elapsed())
            })
            .collect()
    });
    Ok(queued.await?)
}

fn accept(tx: &mut Tx<'_>, lease: &Lease, n: usize, chats: usize) -> Result<(), StoreError> {
    let new = NewOutbound {
        session: lease.session.clone(),
        chat: chat(n % chats),
        content: Content::Text { text: text(n) },
        priority: Priority::Normal,
        not_before: None,
        expires_at: None,
        idempotency: None,
    };
    messages::accept(tx, &lease.tenant, new, at(n)).map(drop)
}

fn acknowledge(
    tx: &mut Tx<'_>,
    lease: &Lease,
    claimed: &[Claimed],
    now: wagate_domain::Timestamp,
) -> Result<(), StoreError> {
    let updates: Vec<Update> = claimed
        .iter()
        .map(|claimed| Update {
            wa_id: claimed.wa_id.clone(),
            input: MessageInput::ServerAck,
            at: now,
            failure: None,
        })
        .collect();
    messages::apply_many(tx, lease, &updates, now).map(drop)
}
