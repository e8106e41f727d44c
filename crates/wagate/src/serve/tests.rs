//! Goal: a first key is seen whatever happens after it, and a schema changes only when it may. Method: a
//! start in two steps, with the database taken away between them.

use std::path::Path;

use tokio::runtime::Handle;
use tokio::task::block_in_place;
use wagate_store::MigrationReport;

use super::*;
use crate::client::Client;

fn config(folder: &Path) -> Config {
    let mut config = Config::defaults().unwrap();
    config.server.port = 0;
    config.store.url = format!("sqlite:{}", folder.join("wagate.db").display()).into();
    config.security.master_key_file = folder.join("master.key");
    if cfg!(feature = "unsafe-sandbox") {
        // Such a build has no way to WhatsApp. Nobody links anything here.
        config.whatsapp.url = "ws://127.0.0.1:9/".to_owned();
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_key_is_shown_before_anything_after_it_can_fail() {
    let folder = tempfile::tempdir().unwrap();
    let mut with_token = config(folder.path());
    with_token.security.worker_token = "a worker token for the test".into();
    let prepared = Gateway::prepare(with_token).await.unwrap();
    let db = prepared.gateway.db.clone();
    let mut shown = None;
    let opened = prepared.open(|secret| {
        shown = Some(secret.to_owned());
        // The next step is the tenant of the worker's token.
        block_in_place(|| Handle::current().block_on(db.close()));
    });
    let error = opened.await.unwrap_err();
    assert!(matches!(error, StartError::FirstStart(_)), "{error:?}");

    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    assert_eq!(gateway.first_api_key(), None);
    let url = format!("http://{}", gateway.address());
    let client = Client::new(url, shown.unwrap()).unwrap();
    assert_eq!(client.get("/api/v1/sessions").await.unwrap().status, 200);
    assert!(gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_before_it_opens_makes_no_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = Gateway::prepare(config(folder.path())).await.unwrap();
    assert!(prepared.gateway.stop().await);
    let gateway = Gateway::start(config(folder.path())).await.unwrap();
    assert!(gateway.first_api_key().is_some());
    assert!(gateway.stop().await);
}

#[test]
fn a_schema_changes_only_when_it_may() {
    let report = |from| MigrationReport { from, to: 3 };
    for upgrade in [Upgrade::Never, Upgrade::OnlyEmpty, Upgrade::Always] {
        assert!(!upgrade.is_wanted(report(3)).unwrap());
    }
    for from in [0, 2] {
        assert!(Upgrade::Always.is_wanted(report(from)).unwrap());
    }
    assert!(Upgrade::OnlyEmpty.is_wanted(report(0)).unwrap());
    let error = Upgrade::Never.is_wanted(report(0)).unwrap_err();
    assert!(matches!(error, StartError::NoDatabase { .. }), "{error}");
    for upgrade in [Upgrade::Never, Upgrade::OnlyEmpty] {
        let error = upgrade.is_wanted(report(2)).unwrap_err().to_string();
        assert!(
            error.contains("schema 2") && error.contains("needs 3"),
            "{error}"
        );
        assert!(error.contains("`wagate migrate`"), "{error}");
    }
}
