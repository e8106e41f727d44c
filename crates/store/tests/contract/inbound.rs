//! Inbound messages: stored once, however often they come (IN-1); the owner's own messages.

use wagate_domain::message::{Content, Direction, MessageInput, MessageState};
use wagate_domain::{Event, EventSeq, Jid, ReceiptKind, WaMessageId};
use wagate_store::messages::{self, Inserted, MessageFilter, NewInbound, Update};
use wagate_store::outbox::{self, EventFilter};
use wagate_store::{Lease, PageRequest, StoreError, sessions};

use crate::support::{Fixture, NOW, after, chat};

contract!(
    a_repeated_message_is_stored_once,
    the_same_id_from_another_sender_is_another_message,
    what_the_owner_wrote_on_the_phone_is_sent,
    strange_characters_are_stored,
    a_stale_holder_stores_nothing,
);

fn inbound(id: &str, from: &str, text: &str) -> NewInbound {
    NewInbound {
        wa_id: WaMessageId::parse(id).unwrap(),
        chat: chat(from),
        sender: chat(from),
        from_me: false,
        push_name: Some("Ann".into()),
        content: Content::Text { text: text.into() },
        at: after(1),
    }
}

async fn insert(f: &Fixture, lease: &Lease, messages: Vec<NewInbound>) -> Vec<Inserted> {
    let lease = lease.clone();
    f.write(move |tx| messages::insert_inbound(tx, &lease, messages, NOW))
        .await
}

async fn events(f: &Fixture, lease: &Lease) -> Vec<Event> {
    let tenant = lease.tenant.clone();
    let only = EventFilter {
        types: vec!["message.received".into()],
        session: None,
    };
    let stored = f
        .read(move |tx| outbox::after(tx, &tenant, EventSeq(0), &only, 999))
        .await;
    stored.into_iter().map(|stored| stored.event).collect()
}

async fn a_repeated_message_is_stored_once(f: Fixture) {
    let (session, lease) = f.running().await;
    let batch: Vec<NewInbound> = (0..5)
        .map(|n| inbound(&format!("ID{n}"), "1", &n.to_string()))
        .collect();
    let first = insert(&f, &lease, batch.clone()).await;
    assert!(
        first
            .iter()
            .all(|inserted| matches!(inserted, Inserted::New(_)))
    );
    // Again, with a new one in the middle and a repeat within the batch.
    let mut again = batch;
    again.insert(2, inbound("NEW", "1", "new"));
    again.insert(3, inbound("NEW", "1", "new"));
    let second = insert(&f, &lease, again).await;
    let new: Vec<bool> = second
        .iter()
        .map(|i| matches!(i, Inserted::New(_)))
        .collect();
    assert_eq!(new, [false, false, true, false, false, false, false]);
    assert_eq!(events(&f, &lease).await.len(), 6);
    let listed = f
        .read(move |tx| {
            let filter = MessageFilter {
                direction: Some(Direction::Inbound),
                ..Default::default()
            };
            let page = PageRequest::default();
            messages::list(tx, &session.tenant, &session.id, &filter, &page)
        })
        .await;
    assert_eq!(listed.items.len(), 6);
    let newest = &listed.items[0];
    assert_eq!(
        (newest.state, newest.at),
        (MessageState::Received, after(1))
    );
    assert_eq!((&newest.sender, newest.from_me), (&Some(chat("1")), false));
    assert_eq!(newest.push_name.as_deref(), Some("Ann"));
    let counters = f
        .read(move |tx| sessions::counters(tx, &lease.tenant, &lease.session))
        .await;
    assert_eq!(counters.received, 6);
}

async fn the_same_id_from_another_sender_is_another_message(f: Fixture) {
    let (_, lease) = f.running().await;
    let group: Jid = "123-456@g.us".parse().unwrap();
    let from = |sender: &str| NewInbound {
        chat: group.clone(),
        ..inbound("ID", sender, "x")
    };
    let inserted = insert(&f, &lease, vec![from("1"), from("2"), from("1")]).await;
    assert_eq!(
        inserted
            .iter()
            .filter(|i| **i == Inserted::Duplicate)
            .count(),
        1
    );
    // A device of the same sender is the same sender.
    let device = NewInbound {
        sender: Jid {
            device: 7,
            ..chat("1")
        },
        ..from("1")
    };
    assert_eq!(
        insert(&f, &lease, vec![device]).await,
        [Inserted::Duplicate]
    );
    let session = lease.session.clone();
    let has = async |place: &Jid, sender: &str, id: &str| {
        let (session, places, id) = (
            session.clone(),
            [place.clone()],
            WaMessageId::parse(id).unwrap(),
        );
        // Under whichever of these addresses.
        let senders = [Jid::lid("9"), chat(sender)];
        f.read(move |tx| messages::has_inbound(tx, &session, &places, &senders, &id))
            .await
    };
    assert!(has(&group, "1", "ID").await && has(&group, "2", "ID").await);
    assert!(!has(&group, "3", "ID").await);
    assert!(!has(&group, "1", "OTHER").await);
    assert!(!has(&chat("1"), "1", "ID").await);
}

async fn what_the_owner_wrote_on_the_phone_is_sent(f: Fixture) {
    let (session, lease) = f.running().await;
    let own = NewInbound {
        from_me: true,
        sender: chat("999"),
        ..inbound("OWN", "1", "hi")
    };
    let Inserted::New(id) = insert(&f, &lease, vec![own.clone()]).await.remove(0) else {
        panic!("it is new");
    };
    assert_eq!(insert(&f, &lease, vec![own]).await, [Inserted::Duplicate]);
    let events = events(&f, &lease).await;
    assert!(matches!(&events[..], [Event::MessageReceived(received)] if received.from_me));
    let receipt = Update {
        wa_id: WaMessageId::parse("OWN").unwrap(),
        input: MessageInput::Receipt(ReceiptKind::Read),
        at: after(9),
        failure: None,
    };
    let held = lease.clone();
    f.write(move |tx| messages::apply(tx, &held, receipt, after(9)))
        .await
        .unwrap();
    let tenant = session.tenant.clone();
    let stored = f
        .read(move |tx| messages::get(tx, &tenant, &id))
        .await
        .message;
    assert_eq!(
        (stored.direction, stored.state),
        (Direction::Outbound, MessageState::Read)
    );
    // An echo of what we sent ourselves is no second message.
    let sent = f.send(&session, "1", "ours").await;
    assert_eq!(f.claim(&lease, 1, NOW).await.len(), 1);
    let echo = NewInbound {
        wa_id: sent.wa_id,
        from_me: true,
        sender: chat("999"),
        ..inbound("x", "1", "ours")
    };
    assert_eq!(insert(&f, &lease, vec![echo]).await, [Inserted::Duplicate]);
}

async fn strange_characters_are_stored(f: Fixture) {
    let (_, lease) = f.running().await;
    let mut strange = inbound("A\0B", "1", "a\0b 'quoted' $1 ? \u{10ffff} \u{202e}");
    strange.push_name = Some("N\0".into());
    assert!(matches!(
        insert(&f, &lease, vec![strange.clone()]).await[0],
        Inserted::New(_)
    ));
    assert_eq!(
        insert(&f, &lease, vec![strange.clone()]).await,
        [Inserted::Duplicate]
    );
    let listed = f
        .read(move |tx| {
            let (all, page) = (MessageFilter::default(), PageRequest::default());
            messages::list(tx, &lease.tenant, &lease.session, &all, &page)
        })
        .await;
    assert_eq!(listed.items[0].content, strange.content);
}

async fn a_stale_holder_stores_nothing(f: Fixture) {
    let (_, old) = f.running().await;
    let new = f.acquire("w2", after(16)).await.remove(0);
    let stale =
        f.db.write(move |tx| messages::insert_inbound(tx, &old, vec![inbound("A", "1", "x")], NOW));
    assert!(matches!(stale.await, Err(StoreError::LeaseLost)));
    assert!(events(&f, &new).await.is_empty());
}
