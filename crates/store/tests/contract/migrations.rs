//! Migrations: from nothing, by several processes at once, never half-way, never backwards.

use wagate_store::{Db, MigrationReport, Sealer, StoreError, tenants};

use crate::support::{Fixture, NOW};

contract!(
    an_empty_database_becomes_the_newest,
    several_processes_migrate_once,
    an_older_schema_gets_what_it_lacks,
    a_newer_schema_is_refused,
    a_migration_that_breaks_off_leaves_nothing,
    the_schema_refuses_what_the_code_must_not_do,
);

async fn an_empty_database_becomes_the_newest(f: Fixture) {
    let empty = f.fresh().await;
    assert!(empty.db.read(tenants::count).await.is_err());
    let report = empty.db.migrate().await.unwrap();
    assert_eq!(report.from, 0);
    assert!(report.to > 0);
    let again = empty.db.migrate().await.unwrap();
    assert_eq!(
        again,
        MigrationReport {
            from: report.to,
            to: report.to
        }
    );
    assert_eq!(empty.read(tenants::count).await, 0);
}

async fn several_processes_migrate_once(f: Fixture) {
    let empty = f.fresh().await;
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let db = empty.another().await;
        set.spawn(async move { db.migrate().await.unwrap() });
    }
    let reports = set.join_all().await;
    assert_eq!(
        reports.iter().filter(|report| report.from == 0).count(),
        1,
        "{reports:?}"
    );
    assert_eq!(empty.read(tenants::count).await, 0);
}

async fn an_older_schema_gets_what_it_lacks(f: Fixture) {
    let (session, _) = f.running().await;
    let sent = f.send(&session, "1", "before").await;
    f.raw(
        "DROP TABLE resends; DROP INDEX messages_chat; \
         DELETE FROM schema_migrations WHERE version > 4",
    )
    .unwrap();
    let report = f.db.migrate().await.unwrap();
    assert_eq!((report.from, report.to), (4, 7));
    assert_eq!(f.state(&sent).await.message, sent);
    f.raw("DROP INDEX messages_chat; DROP TABLE resends")
        .expect("they are there again");
}

async fn a_newer_schema_is_refused(f: Fixture) {
    f.raw("INSERT INTO schema_migrations (version, name) VALUES (9000, 'from the future')")
        .unwrap();
    let refused = Db::open(f.options.clone(), Sealer::new(&f.key, &[])).await;
    assert!(matches!(
        refused,
        Err(StoreError::NewerSchema { found: 9000, .. })
    ));
    assert!(matches!(
        f.db.migrate().await,
        Err(StoreError::NewerSchema { .. })
    ));
}

async fn a_migration_that_breaks_off_leaves_nothing(f: Fixture) {
    let empty = f.fresh().await;
    // One of the last tables is there already, so that the migration fails near its end.
    empty.raw("CREATE TABLE workers (id BIGINT)").unwrap();
    assert!(empty.db.migrate().await.is_err());
    for table in ["tenants", "messages", "schema_migrations"] {
        assert!(
            empty.raw(&format!("SELECT * FROM {table}")).is_err(),
            "{table} was left behind"
        );
    }
    empty.raw("DROP TABLE workers").unwrap();
    assert_eq!(empty.db.migrate().await.unwrap().from, 0);
    empty.tenant("acme").await;
}

async fn the_schema_refuses_what_the_code_must_not_do(f: Fixture) {
    let (session, lease) = f.running().await;
    let sent = f.send(&session, "1", "a").await;
    f.send(&session, "1", "b").await;
    f.claim(&lease, 1, NOW).await;
    let other = f.tenant("other").await;
    let seq = format!("(SELECT seq FROM messages WHERE id = '{}')", sent.id);
    for (what, sql) in [
        (
            "an unknown state",
            "UPDATE messages SET state = 'lost'".to_owned(),
        ),
        (
            "sent with no time (MP-5)",
            format!("UPDATE messages SET state = 'sent' WHERE seq = {seq}"),
        ),
        (
            "a failure with no reason",
            "UPDATE messages SET state = 'failed'".to_owned(),
        ),
        (
            "two in flight in a chat (MP-4)",
            "UPDATE queue SET state = 1, token = 1".to_owned(),
        ),
        (
            "two heads of a lane",
            "UPDATE queue SET state = 0, token = NULL".to_owned(),
        ),
        (
            "a claim with no token",
            "UPDATE queue SET token = NULL WHERE state = 1".to_owned(),
        ),
        (
            "another tenant's session (TN-1)",
            format!("UPDATE messages SET tenant_id = '{other}'"),
        ),
        (
            "another tenant's lease (TN-1)",
            format!("UPDATE leases SET tenant_id = '{other}'"),
        ),
        (
            "a generation from the future",
            "UPDATE sessions SET generation_done = 99".to_owned(),
        ),
        (
            "one WhatsApp id twice",
            format!(
                "UPDATE messages SET attempts = 1, \
                 wa_id = (SELECT wa_id FROM messages WHERE seq = {seq})"
            ),
        ),
    ] {
        let refused = f.raw(&sql).expect_err(what);
        assert!(refused.contains("constraint"), "{what}: {refused}");
    }
}
