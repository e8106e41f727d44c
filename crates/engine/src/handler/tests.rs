//! What is kept, counted and dropped on the way to the actor.

use wacore::types::events::{ConnectFailure, Receipt, ServerAck};
use wacore::types::message::MessageSource;
use wagate_domain::SystemClock;

use super::*;

fn hub() -> Hub {
    Hub::new(
        Arc::new(SystemClock),
        Acks::new(Duration::from_secs(20), 10),
    )
}

fn receipt(id: &str, kind: ReceiptType, from_me: bool) -> Arc<Event> {
    let peer: wacore_binary::Jid = "6281234567890@s.whatsapp.net".parse().unwrap();
    let source = MessageSource {
        chat: peer.clone(),
        sender: peer,
        is_from_me: from_me,
        ..MessageSource::default()
    };
    let receipt = Receipt::builder()
        .source(source)
        .message_ids(vec![id.to_owned()])
        .timestamp(wacore::time::now_utc())
        .r#type(kind)
        .offline(false);
    Arc::new(Event::Receipt(receipt.build()))
}

fn server_ack(id: &str, class: &str, error: Option<&str>) -> Arc<Event> {
    let ack = ServerAck::builder()
        .id(id.to_owned())
        .class(class.to_owned())
        .maybe_error(error.map(str::to_owned));
    Arc::new(Event::ServerAck(ack.build()))
}

fn drain(hub: &Hub) -> (Vec<EngineEvent>, usize) {
    let (mut events, mut receipts) = (Vec::new(), 0);
    while let Some(next) = hub.next() {
        match next {
            Next::Event(event) => events.push(event),
            Next::Receipt(_) => receipts += 1,
            Next::Unhooked(_) => {}
        }
    }
    (events, receipts)
}

#[test]
fn receipts_that_do_not_fit_are_counted_and_reported() {
    let hub = hub();
    for number in 0..RECEIPTS_MAX + 7 {
        hub.handle_event(receipt(&number.to_string(), ReceiptType::Delivered, false));
    }
    let (events, receipts) = drain(&hub);
    assert_eq!(receipts, RECEIPTS_MAX);
    assert_eq!(events, [EngineEvent::Missed { receipts: 7 }]);
    assert_eq!(hub.receipts_missed(), 7);
}

#[test]
fn only_what_a_recipient_says_is_a_receipt() {
    let hub = hub();
    hub.handle_event(receipt("A", ReceiptType::Read, true));
    hub.handle_event(receipt("A", ReceiptType::ReadSelf, false));
    hub.handle_event(receipt("A", ReceiptType::Retry, false));
    hub.handle_event(receipt("A", ReceiptType::Sent, false));
    assert_eq!(drain(&hub).1, 0);
    hub.handle_event(receipt("A", ReceiptType::Inactive, false));
    hub.handle_event(receipt("A", ReceiptType::Played, false));
    assert_eq!(drain(&hub).1, 2);
}

#[test]
fn only_acknowledgements_of_messages_count() {
    let hub = hub();
    hub.handle_event(server_ack("A", "receipt", None));
    assert!(drain(&hub).0.is_empty());
    hub.handle_event(server_ack("A", "message", Some("479")));
    hub.handle_event(server_ack("B", "message", Some("strange")));
    let errors: Vec<_> = drain(&hub)
        .0
        .into_iter()
        .map(|event| match event {
            EngineEvent::ServerAck { error, .. } => error,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(errors, [Some(479), Some(500)]);
}

#[test]
fn the_end_comes_last_and_once() {
    let hub = hub();
    let waiting = WaMessageId::generate();
    let registered = hub.acks.register(&waiting).unwrap();
    hub.written(registered);
    hub.handle_event(receipt("A", ReceiptType::Delivered, false));
    hub.handle_event(server_ack("B", "message", None));
    hub.emit(EngineEvent::Silent);
    hub.end(Ended::Stopped);
    hub.emit(EngineEvent::Connecting);
    hub.end(Ended::Replaced);
    let (events, receipts) = drain(&hub);
    assert_eq!(receipts, 1);
    // The end itself says that no acknowledgement comes any more.
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(hub.acks.waiting(), 0);
    assert_eq!(events.last(), Some(&EngineEvent::Ended(Ended::Stopped)));
}

#[test]
fn the_first_reason_to_end_is_the_cause() {
    let hub = hub();
    hub.terminate(Ended::Replaced);
    hub.terminate(Ended::LoggedOut {
        reason: "later".to_owned(),
    });
    assert_eq!(hub.terminal(), Some(Ended::Replaced));
}

#[test]
fn what_strangers_cause_does_not_push_out_what_the_connection_says() {
    let hub = hub();
    hub.emit(EngineEvent::Silent);
    let jid: wacore_binary::Jid = "6281100000002@s.whatsapp.net".parse().unwrap();
    let mut info = MessageInfo {
        id: "3EB0".to_owned(),
        ..MessageInfo::default()
    };
    info.source.chat = jid.clone();
    info.source.sender = jid;
    for _ in 0..2 * CONTROL_MAX {
        hub.undecryptable(&info);
    }
    let (events, _) = drain(&hub);
    assert_eq!(events.first(), Some(&EngineEvent::Silent));
    assert_eq!(events.len(), UNDECRYPTABLE_MAX);
}

fn connect_failure(code: i32) -> Arc<Event> {
    let failure = ConnectFailure::builder().reason(ConnectFailureReason::from(code));
    Arc::new(Event::ConnectFailure(failure.build()))
}

#[test]
fn a_server_that_says_too_many_requests_is_left_alone_for_minutes() {
    let hub = hub();
    hub.handle_event(connect_failure(503));
    assert_eq!((hub.pause(), hub.terminal()), (None, None));
    hub.handle_event(connect_failure(429));
    assert_eq!(hub.pause(), Some(Duration::from_secs(300)));
    assert_eq!(hub.terminal(), None);
    // What the library says of the connection's end takes nothing of it back.
    hub.handle_event(connect_failure(500));
    assert_eq!(hub.pause(), Some(Duration::from_secs(300)));
    hub.begin();
    assert_eq!(hub.pause(), None);
}

#[tokio::test(start_paused = true)]
async fn the_word_of_a_pairing_is_waited_for_but_not_for_ever() {
    let hub = Arc::new(hub());
    let bound = Duration::from_secs(5);
    hub.enter(Phase::Challenge);
    let begun = Instant::now();
    hub.until_paired(bound).await;
    assert_eq!(begun.elapsed(), bound);
    assert_eq!(hub.phase(), Phase::Challenge);
    let begun = Instant::now();
    let late = Duration::from_secs(1);
    let says = async {
        // A wake-up that means something else does not end the wait.
        hub.moved.notify_one();
        tokio::time::sleep(late).await;
        hub.enter(Phase::Paired);
    };
    tokio::join!(hub.until_paired(bound), says);
    assert_eq!(begun.elapsed(), late);
}
