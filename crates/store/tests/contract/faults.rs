//! Faults of the database itself: a full disk, a server that is killed and comes back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use wagate_store::messages::{self, MessageFilter};
use wagate_store::sessions::Session;
use wagate_store::{Db, DbOptions, MasterKey, Sealer, StoreError};

use crate::support::{Fixture, NOW, Place, outbound};

async fn accept(db: &Db, session: &Session, text: String) -> Result<(), StoreError> {
    let (tenant, new) = (session.tenant.clone(), outbound(session, "1", &text));
    db.write(move |tx| messages::accept(tx, &tenant, new, NOW).map(drop))
        .await
}

async fn count(db: &Db, session: &Session) -> u64 {
    let (tenant, id) = (session.tenant.clone(), session.id.clone());
    let all = MessageFilter::default();
    db.read(move |tx| messages::count(tx, &tenant, &id, &all))
        .await
        .unwrap()
}

/// Nothing is accepted that cannot be stored; what was accepted stays; with room it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_refused_before_anything_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wagate.db");
    let mut options = DbOptions::new(format!("sqlite:{}", path.display()));
    options.pages_max = Some(160);
    let mut roomy = options.clone();
    roomy.pages_max = Some(10_000);
    let f = Fixture::open(options, Place::Folder(folder), true).await;
    let (session, _lease) = f.running().await;
    let text = "x".repeat(1500);
    let mut accepted = 0;
    let mut refused = 0;
    // Several at once, so that the group of the one that fails has neighbours.
    while refused < 20 {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (db, session, text) = (f.db.clone(), session.clone(), text.clone());
            set.spawn(async move { accept(&db, &session, text).await });
        }
        for result in set.join_all().await {
            match result {
                Ok(()) => accepted += 1,
                Err(StoreError::Full) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(accepted < 1000, "the disk never filled");
    }
    assert!(accepted > 0);
    assert_eq!(count(&f.db, &session).await, accepted);
    let db = Db::open(roomy, Sealer::new(&f.key, &[])).await.unwrap();
    accept(&db, &session, text).await.unwrap();
    assert_eq!(count(&db, &session).await, accepted + 1);
}

/// A file that is no database is refused when it is opened, and left as it is.
#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wagate.db");
    let junk = b"this is not a database, but it is long enough to be looked at".repeat(40);
    std::fs::write(&path, &junk).unwrap();
    let options = DbOptions::new(format!("sqlite:{}", path.display()));
    let key = MasterKey::generate().unwrap();
    let opened = Db::open(options, Sealer::new(&key, &[])).await;
    assert!(
        matches!(opened, Err(StoreError::Corrupt { .. })),
        "{opened:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), junk);
}

/// A server of the test's own, so that it can be killed.
struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            programs: programs(),
            folder,
            port,
        };
        if is_root() {
            let chown = Command::new("chown")
                .arg("postgres")
                .arg(server.folder.path())
                .output();
            assert!(chown.unwrap().status.success());
        }
        let data = server.data();
        let made = server.run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres"]);
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.up();
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn up(&self) {
        let folder = self.folder.path().display();
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}",
            self.port
        );
        let log = self.folder.path().join("log").display().to_string();
        let data = self.data();
        let started = self.run(
            "pg_ctl",
            &["-D", &data, "-l", &log, "-o", &options, "-w", "start"],
        );
        assert!(
            started.status.success(),
            "{}",
            String::from_utf8_lossy(&started.stderr)
        );
    }

    /// As `kill -9` of every process of the server: no farewell, and the log is replayed at the start.
    fn kill(&self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let path = self.programs.join(program);
        // The server refuses to run as root.
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // pg_ctl hands its outputs to the server, which would keep a pipe open.
        let quiet = program == "pg_ctl";
        if quiet {
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
        }
        command.args(args).current_dir("/").output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// The folder of the server's programs: Debian keeps them out of the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(["/usr/local/bin", "/usr/bin", "/opt/homebrew/bin"].map(PathBuf::from));
    let has_it = |folder: &PathBuf| Path::new(folder).join("pg_ctl").exists();
    folders
        .into_iter()
        .rev()
        .find(has_it)
        .expect("pg_ctl, to start a server of the test's own")
}

/// Errors are honest while the server is away, it recovers by itself, what was answered is there, and
/// nothing is there that was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn postgres_killed_under_load_loses_nothing_and_comes_back() {
    let server = Server::start();
    let mut options = DbOptions::new(server.url());
    options.pool = 4;
    let key = MasterKey::generate().unwrap();
    let db = Db::open(options, Sealer::new(&key, &[])).await.unwrap();
    db.migrate().await.unwrap();
    let session = db
        .write(|tx| {
            let tenant = wagate_store::tenants::create(tx, "acme", NOW)?;
            let new = wagate_store::sessions::NewSession::default();
            wagate_store::sessions::create(tx, &tenant.id, &new, NOW)
        })
        .await
        .unwrap();
    let tally = Arc::new(Tally::default());
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..6 {
        set.spawn(load(db.clone(), session.clone(), Arc::clone(&tally)));
    }
    for _ in 0..2 {
        tally.accepted_some_more().await;
        tokio::task::block_in_place(|| server.kill());
        tally.refused_some_more().await;
        // A reader is told as well, and quickly.
        let asked = tokio::time::timeout(Duration::from_secs(5), db.ping())
            .await
            .unwrap();
        assert!(
            matches!(asked, Err(StoreError::Unavailable(_))),
            "{asked:?}"
        );
        tokio::task::block_in_place(|| server.up());
        tally.accepted_some_more().await;
    }
    tally.stop.store(true, Ordering::SeqCst);
    set.join_all().await;
    let (stored, accepted) = (count(&db, &session).await, tally.accepted() as u64);
    let in_doubt = tally.in_doubt.load(Ordering::SeqCst) as u64;
    assert!(
        (accepted..=accepted + in_doubt).contains(&stored),
        "{stored} stored, {accepted} accepted, {in_doubt} in doubt"
    );
    db.close().await;
}

#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    in_doubt: AtomicUsize,
    stop: AtomicBool,
}

impl Tally {
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    async fn accepted_some_more(&self) {
        let wanted = self.accepted() + 50;
        poll("messages are accepted", || self.accepted() >= wanted).await;
    }

    async fn refused_some_more(&self) {
        let refused = || self.refused.load(Ordering::SeqCst);
        let wanted = refused() + 10;
        poll("messages are refused", || refused() >= wanted).await;
    }
}

async fn poll(what: &str, done: impl Fn() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 30 s until {what}");
}

async fn load(db: Db, session: Session, tally: Arc<Tally>) {
    while !tally.stop.load(Ordering::SeqCst) {
        match accept(&db, &session, "x".to_owned()).await {
            Ok(()) => drop(tally.accepted.fetch_add(1, Ordering::SeqCst)),
            Err(StoreError::InDoubt(_)) => drop(tally.in_doubt.fetch_add(1, Ordering::SeqCst)),
            Err(StoreError::Unavailable(_)) => {
                tally.refused.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
