//! Goal: a gateway starts from nothing, answers, and stops in order; what would harm data stops the start.
//! Method: the library half in process, on a folder of its own, with nobody to link to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wagate::client::Client;
use wagate::config::Config;
use wagate::master_key::KeyError;
use wagate::serve::{Gateway, StartError};
use wagate::telemetry;
use wagate_domain::{Desired, Timestamp, WorkerId};
use wagate_store::{Db, DbOptions, MasterKey, Sealer, device_state, leases, sessions, tenants};

fn config(folder: &Path) -> Config {
    let mut config = Config::defaults().unwrap();
    config.server.port = 0;
    config.store.url = format!("sqlite:{}", folder.join("data/wagate.db").display()).into();
    config.security.master_key_file = folder.join("data/master.key");
    if cfg!(feature = "unsafe-sandbox") {
        // Such a build has no way to WhatsApp.
        config.whatsapp.url = "ws://127.0.0.1:9/".to_owned();
    }
    config
}

fn client(gateway: &Gateway, key: &str) -> Client {
    Client::new(format!("http://{}", gateway.address()), key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_a_key_that_works_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    let key = gateway.first_api_key().unwrap().to_owned();
    let created = client(&gateway, &key)
        .post("/api/v1/sessions", &json!({ "id": "mine" }))
        .await;
    assert_eq!(created.unwrap().data()["id"], "mine");
    assert!(gateway.stop().await);

    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    assert_eq!(gateway.first_api_key(), None);
    let listed = client(&gateway, &key)
        .get("/api/v1/sessions")
        .await
        .unwrap();
    assert_eq!(listed.data().as_array().unwrap().len(), 1);
    let refused = client(&gateway, "wg_no")
        .get("/api/v1/sessions")
        .await
        .unwrap_err();
    assert_eq!(refused.status(), Some(401));
    assert!(gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_ready_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.security.metrics_token = "a metrics token for the test".into();
    let gateway = Gateway::start(config).await.unwrap();
    let client = client(&gateway, "a metrics token for the test");
    // Readiness waits until the sessions of an earlier life have been taken up.
    let ready = loop {
        match client.get("/ready").await {
            Ok(ready) => break ready,
            Err(error) => assert_eq!(error.status(), Some(503)),
        }
    };
    assert_eq!(ready.body["checks"]["sessions_restored"], true);
    assert_eq!(ready.body["checks"]["database"], true);
    let metrics = client.text("/metrics").await.unwrap();
    assert!(metrics.contains("wagate_sessions_connected 0"), "{metrics}");
    assert!(gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Gateway::start(config(folder.path())).await.unwrap();
    let error = Gateway::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error:?}");
    assert!(first.stop().await);
    let again = Gateway::start(config(folder.path())).await.unwrap();
    assert!(again.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_master_key_stops_the_start_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("data/master.key");
    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    assert!(gateway.stop().await);
    let key = fs::read_to_string(&key_file).unwrap();
    fs::remove_file(&key_file).unwrap();
    let error = Gateway::start(config(folder.path())).await.unwrap_err();
    assert!(
        telemetry::chain(&error)
            .to_string()
            .contains("put the file back"),
        "{error:?}"
    );
    assert!(!key_file.exists());
    fs::write(&key_file, key).unwrap();
    // As one that comes back from a copy: with the mode of any file, until somebody sees to it.
    let error = Gateway::start(config(folder.path())).await.unwrap_err();
    assert!(
        matches!(error, StartError::Key(KeyError::Exposed { .. })),
        "{error:?}"
    );
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        Gateway::start(config(folder.path()))
            .await
            .unwrap()
            .stop()
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_master_key_stops_the_start_when_there_is_something_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("data/master.key");
    assert!(
        Gateway::start(config(folder.path()))
            .await
            .unwrap()
            .stop()
            .await
    );
    let right = fs::read_to_string(&key_file).unwrap();
    keep_a_secret(folder.path(), &MasterKey::parse(right.trim()).unwrap()).await;

    fs::write(&key_file, MasterKey::generate().unwrap().to_text()).unwrap();
    let error = Gateway::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, StartError::ForeignKey), "{error:?}");
    fs::write(&key_file, right).unwrap();
    assert!(
        Gateway::start(config(folder.path()))
            .await
            .unwrap()
            .stop()
            .await
    );
}

/// Stores a value of a session's device, as a worker does.
async fn keep_a_secret(folder: &Path, key: &MasterKey) {
    let options = DbOptions::new(format!(
        "sqlite:{}",
        folder.join("data/wagate.db").display()
    ));
    let db = Db::open(options, Sealer::new(key, &[])).await.unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let worker = WorkerId::parse("one").unwrap();
    db.write(move |tx| {
        let tenant = tenants::get_by_name(tx, "default")?.unwrap().id;
        let session = sessions::create(tx, &tenant, &sessions::NewSession::default(), now)?.id;
        sessions::set_desired(tx, &tenant, &session, Desired::Stopped, None, now)?;
        let ttl = std::time::Duration::from_secs(60);
        let lease = leases::acquire_some(tx, &worker, 1, ttl, now)?
            .pop()
            .unwrap();
        let put = device_state::Put {
            kind: device_state::StateKind(1),
            key: "identity".to_owned(),
            value: b"secret".to_vec(),
        };
        device_state::put_many(tx, &lease, &[put])?;
        leases::release(tx, &lease)
    })
    .await
    .unwrap();
    db.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut config = config(folder.path());
    config.server.port = taken.local_addr().unwrap().port();
    let error = Gateway::start(config).await.unwrap_err();
    assert!(error.to_string().contains("server.port"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_only_hold_a_connection_cost_a_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    let mut slow = TcpStream::connect(gateway.address()).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: wag")
        .await
        .unwrap();
    let idle = client(&gateway, gateway.first_api_key().unwrap());
    idle.get("/health").await.unwrap();
    assert!(gateway.stop().await, "everything ended in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_empty_database_is_refused_where_nobody_migrates() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.store.migrate = false;
    let error = Gateway::start(config.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::NoDatabase { .. }), "{error:?}");
    assert!(!folder.path().join("data/master.key").exists());
    config.store.migrate = true;
    assert!(Gateway::start(config.clone()).await.unwrap().stop().await);
    config.store.migrate = false;
    assert!(Gateway::start(config).await.unwrap().stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_token_works_although_an_operators_tenant_was_there_first() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    assert!(Gateway::start(config.clone()).await.unwrap().stop().await);
    let mut config = config;
    config.security.worker_token = "a worker token for the test".into();
    config.security.worker_tenant = "of the worker".to_owned();
    let gateway = Gateway::start(config).await.unwrap();
    assert_eq!(gateway.first_api_key(), None, "it is no first start");
    let body = json!({ "sessionId": "s", "userId": "u" });
    let created = client(&gateway, "a worker token for the test")
        .post("/api/session/create", &body)
        .await
        .unwrap();
    assert_eq!(created.status, 201);
    assert!(gateway.stop().await);
}
