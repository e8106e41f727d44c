//! How storing a message and showing the newest fifty grow with what a database holds: the store alone.

use anyhow::Result;
use serde_json::json;
use wagate_domain::message::Content;
use wagate_domain::{Jid, WaMessageId};
use wagate_store::messages::{self, MessageFilter, NewInbound};
use wagate_store::{Lease, PageRequest, outbox};

use super::text;
use crate::report;
use crate::shelf::{Cost, Curve, Shelf, at, chat};

/// Messages in one transaction while the database is filled.
const FILL: usize = 500;
/// What a page shows.
const PAGE: u32 = 50;

struct Costs {
    insert: Cost,
    page: Cost,
    chat_page: Cost,
    fixed: Cost,
}

pub(crate) async fn run(
    sizes: &[usize],
    sessions: usize,
    chats: usize,
    rounds: usize,
) -> Result<()> {
    let shelf = Shelf::with_sessions(sessions).await?;
    let mut stored = 0;
    let (mut insert, mut page, mut chat_page) =
        (Curve::default(), Curve::default(), Curve::default());
    for &size in sizes {
        eprintln!("filling the history to {size} messages …");
        while stored < size {
            let count = FILL.min(size - stored);
            let lease = &shelf.leases[stored / FILL % sessions];
            store(&shelf, lease, stored, count, chats).await?;
            stored += count;
        }
        let costs = measure(&shelf, &mut stored, chats, rounds).await?;
        insert.add(&costs.insert, 0.5, &costs.fixed);
        page.add(&costs.page, 0.99, &costs.fixed);
        chat_page.add(&costs.chat_page, 0.99, &costs.fixed);
        report::print_growth(
            "growth-history",
            &json!({ "messages": size, "sessions": sessions, "chats": chats, "rounds": rounds }),
            &json!({
                "insert_one": costs.insert.to_json(),
                "newest_of_a_session": costs.page.to_json(),
                "newest_of_a_chat": costs.chat_page.to_json(),
                "fixed_loop": costs.fixed.to_json(),
                "insert_ratio": insert.growth(),
                "session_page_p99_ratio": page.growth(),
                "chat_page_p99_ratio": chat_page.growth(),
            }),
        )?;
    }
    shelf.close().await;
    Ok(())
}

async fn measure(shelf: &Shelf, stored: &mut usize, chats: usize, rounds: usize) -> Result<Costs> {
    let (mut insert, mut page, mut chat_page) = (Cost::new()?, Cost::new()?, Cost::new()?);
    let mut fixed = Cost::new()?;
    for round in 0..rounds {
        // Far apart, so that it is not always the same pages of the file.
        let lease = &shelf.leases[round * 37 % shelf.leases.len()];
        insert.add(store(shelf, lease, *stored, 1, chats).await?, 1);
        *stored += 1;
        page.add(show(shelf, lease, None).await?, 1);
        let of = Some(chat(round * 61 % chats));
        chat_page.add(show(shelf, lease, of).await?, 1);
        fixed.add_loop();
    }
    Ok(Costs {
        insert,
        page,
        chat_page,
        fixed,
    })
}

/// Stores messages of these numbers in one transaction; gives what that took.
async fn store(
    shelf: &Shelf,
    lease: &Lease,
    first: usize,
    count: usize,
    chats: usize,
) -> Result<std::time::Duration> {
    let lease = lease.clone();
    let rows: Vec<NewInbound> = (first..first + count)
        .map(|n| NewInbound {
            wa_id: WaMessageId::generate(),
            chat: chat(n % chats),
            sender: chat(n % chats),
            from_me: false,
            push_name: Some("Contact".to_owned()),
            content: Content::Text { text: text(n) },
            at: at(n),
        })
        .collect();
    let now = at(first);
    let (_, took) = shelf
        .timed(move |tx| messages::insert_inbound(tx, &lease, rows, now))
        .await?;
    // The events are not what is measured here; the janitor would take them away in time.
    let limit = u32::try_from(count)?;
    shelf
        .db
        .write(move |tx| outbox::prune(tx, now, limit))
        .await?;
    Ok(took)
}

/// Shows the newest messages of a session, or of one of its chats; gives what that took.
async fn show(shelf: &Shelf, lease: &Lease, chat: Option<Jid>) -> Result<std::time::Duration> {
    let (tenant, session) = (lease.tenant.clone(), lease.session.clone());
    let filter = MessageFilter {
        chat,
        ..MessageFilter::default()
    };
    let (_, took) = shelf
        .timed_read(move |tx| {
            messages::list(tx, &tenant, &session, &filter, &PageRequest::first(PAGE))
        })
        .await?;
    Ok(took)
}
