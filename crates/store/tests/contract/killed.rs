//! A process that is killed with no warning: everything that it was told is committed is there (MP-1),
//! and the next one opens the database as if nothing had happened.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use wagate_store::{Db, DbOptions, MasterKey, Sealer, tenants};

use crate::support::NOW;

const PATH: &str = "WAGATE_TEST_KILLED_PATH";

fn open_options(path: &str) -> (DbOptions, Sealer) {
    let key = MasterKey::generate().unwrap();
    (
        DbOptions::new(format!("sqlite:{path}")),
        Sealer::new(&key, &[]),
    )
}

/// The process to be killed: migrates, then prints the number of each tenant that was committed. Does
/// nothing when it was not started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the parent says where the database is"
)]
async fn child() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let (options, sealer) = open_options(&path);
    let db = Db::open(options, sealer).await.unwrap();
    db.migrate().await.unwrap();
    let mut set = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let db = db.clone();
        set.spawn(async move {
            for number in 0.. {
                let name = format!("{writer}.{number}");
                db.write(move |tx| tenants::create(tx, &name, NOW))
                    .await
                    .unwrap();
                // One write a line, so that a line is there whole or not at all.
                let line = format!("committed {writer}.{number}\n");
                std::io::stderr().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    set.join_all().await;
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wagate.db").display().to_string();
    let mut total = 0;
    for round in 0_u64..3 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        let mut read = |told: &mut Vec<String>| match lines.next() {
            Some(line) => {
                let line = line.unwrap();
                told.extend(line.strip_prefix("committed ").map(str::to_owned));
                true
            }
            None => false,
        };
        while told.len() < 150 + usize::try_from(round).unwrap() * 37 {
            assert!(read(&mut told), "the process ended early");
        }
        process.kill().unwrap();
        process.wait().unwrap();
        while read(&mut told) {}
        let (options, sealer) = open_options(&path);
        let db = Db::open(options, sealer).await.unwrap();
        for name in &told {
            let wanted = name.clone();
            let found = db
                .read(move |tx| tenants::get_by_name(tx, &wanted))
                .await
                .unwrap();
            assert!(found.is_some(), "{name} was answered and is lost");
        }
        total = db.read(tenants::count).await.unwrap();
        assert!(total >= told.len() as u64);
        db.write(|tx| tenants::create(tx, "after", NOW))
            .await
            .unwrap();
        // The next round begins with an empty folder.
        drop(db);
        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::create_dir(folder.path()).unwrap();
    }
    assert!(total > 0);
}
