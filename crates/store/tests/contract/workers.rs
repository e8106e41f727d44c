//! Workers: registration, heartbeats, and being forgotten.

use serde_json::json;
use wagate_domain::WorkerId;
use wagate_store::StoreError;
use wagate_store::workers::{self, NewWorker};

use crate::support::{Fixture, NOW, after};

contract!(a_worker_registers_beats_and_is_forgotten);

async fn a_worker_registers_beats_and_is_forgotten(f: Fixture) {
    let id = WorkerId::parse("worker-001").unwrap();
    let name = id.clone();
    let early =
        f.db.write(move |tx| workers::heartbeat(tx, &name, "online", &json!({}), NOW))
            .await;
    assert!(matches!(early, Err(StoreError::NotFound { .. })));
    let new = NewWorker {
        id: id.clone(),
        endpoint: Some("http://192.168.1.100:8001".into()),
        sessions_max: 50,
        version: "1.0.0".into(),
        environment: "production".into(),
    };
    let again = new.clone();
    f.write(move |tx| workers::register(tx, &new, NOW)).await;
    let (name, metrics) = (id.clone(), json!({"sessionCount": 25, "cpuUsage": 45.5}));
    f.write(move |tx| workers::heartbeat(tx, &name, "draining", &metrics, after(30)))
        .await;
    let name = id.clone();
    let worker = f.read(move |tx| workers::get(tx, &name)).await;
    assert_eq!(
        (worker.status.as_str(), worker.heartbeat_at),
        ("draining", after(30))
    );
    assert_eq!((worker.sessions_max, worker.started_at), (50, NOW));
    assert_eq!(worker.metrics["cpuUsage"], 45.5);
    f.write(move |tx| workers::register(tx, &again, after(60)))
        .await;
    let listed = f.read(workers::list).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].status.as_str(), listed[0].started_at),
        ("online", after(60))
    );
    let name = id.clone();
    f.write(move |tx| workers::remove(tx, &name)).await;
    let gone = f.db.read(move |tx| workers::get(tx, &id)).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}
