//! The bus: wake-ups within a process and between processes; a lost connection is told and mended.

use std::time::Duration;

use wagate_domain::{SessionId, TenantId};
use wagate_store::bus::{Bus, BusMessage, BusReceiver, Heard};

use crate::support::{Fixture, NOW, new_schema, postgres_url};

async fn hear(receiver: &mut BusReceiver) -> Heard {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv())
        .await
        .expect("a wake-up")
}

fn ready() -> BusMessage {
    BusMessage::QueueReady {
        session: SessionId::generate(),
    }
}

/// Publishes until the other side listens: it connects in the background.
async fn connect(from: &Bus, to: &mut BusReceiver) {
    let probe = BusMessage::EventsAppended {
        tenant: TenantId::generate(),
    };
    for _ in 0..200 {
        from.publish(probe.clone());
        let heard = tokio::time::timeout(Duration::from_millis(100), to.recv()).await;
        if heard == Ok(Heard::Message(probe.clone())) {
            return;
        }
    }
    panic!("the bus does not connect");
}

/// Skips the probes that are still on their way.
async fn hear_other(receiver: &mut BusReceiver) -> Heard {
    loop {
        match hear(receiver).await {
            Heard::Message(BusMessage::EventsAppended { .. }) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn local_wakes_whoever_subscribed_before() {
    let bus = Bus::local();
    let early = ready();
    bus.publish(early);
    let (mut one, mut two) = (bus.subscribe(), bus.clone().subscribe());
    let message = ready();
    bus.publish(message.clone());
    assert_eq!(hear(&mut one).await, Heard::Message(message.clone()));
    assert_eq!(hear(&mut two).await, Heard::Message(message));
    bus.close().await;
    assert_eq!(hear(&mut one).await, Heard::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn postgres_wakes_other_processes_and_keeps_schemas_apart() {
    let (url, _schema) = new_schema(&postgres_url());
    let (elsewhere, _other_schema) = new_schema(&postgres_url());
    let (one, two) = (Bus::postgres(&url).unwrap(), Bus::postgres(&url).unwrap());
    let stranger = Bus::postgres(&elsewhere).unwrap();
    let (mut at_one, mut at_two) = (one.subscribe(), two.subscribe());
    let mut at_stranger = stranger.subscribe();
    connect(&one, &mut at_two).await;
    connect(&two, &mut at_one).await;
    let probe = Bus::postgres(&elsewhere).unwrap();
    connect(&probe, &mut at_stranger).await;

    let messages: Vec<BusMessage> = (0..500).map(|_| ready()).collect();
    for message in &messages {
        one.publish(message.clone());
    }
    for message in &messages {
        assert_eq!(
            hear_other(&mut at_two).await,
            Heard::Message(message.clone())
        );
        // Its own wake-ups come once, not again as an echo.
        assert_eq!(
            hear_other(&mut at_one).await,
            Heard::Message(message.clone())
        );
    }
    let last = ready();
    two.publish(last.clone());
    assert_eq!(hear_other(&mut at_one).await, Heard::Message(last.clone()));
    // Another schema of the same database hears nothing of it.
    let own = ready();
    probe.publish(own.clone());
    assert_eq!(hear_other(&mut at_stranger).await, Heard::Message(own));
    for bus in [&one, &two, &stranger, &probe] {
        bus.close().await;
    }
    assert_eq!(hear_other(&mut at_one).await, Heard::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn postgres_tells_of_a_lost_connection_and_mends_it() {
    let f = Fixture::postgres().await;
    f.write(|tx| wagate_store::tenants::create(tx, "acme", NOW))
        .await;
    let url = format!(
        "{}&application_name=bus_{}",
        f.options.url,
        SessionId::generate()
    );
    let (one, two) = (
        Bus::postgres(&url).unwrap(),
        Bus::postgres(&f.options.url).unwrap(),
    );
    let mut at_one = one.subscribe();
    connect(&two, &mut at_one).await;
    let name = url.rsplit_once('=').unwrap().1;
    f.raw(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
    ))
    .unwrap();
    assert_eq!(hear_other(&mut at_one).await, Heard::Missed);
    connect(&two, &mut at_one).await;
    let message = ready();
    two.publish(message.clone());
    assert_eq!(hear_other(&mut at_one).await, Heard::Message(message));
}
