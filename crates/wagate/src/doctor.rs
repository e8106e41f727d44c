//! Looks for what keeps a gateway from working, and says what to do about it.
//!
//! Every check prints one line and, if it finds something, what to do. Nothing is changed: a database
//! that does not exist yet is not made.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use wagate_domain::{Clock, SystemClock};
use wagate_engine::Engine;
use wagate_store::{
    Db, DbOptions, MasterKey, MigrationReport, Sealer, StoreError, device_state, tenants,
};

use crate::cli::say;
use crate::config::{Config, Problems};
use crate::master_key::{Exposure, FoundKey, KeyError};
use crate::{serve, telemetry};

/// The whole way to WhatsApp takes no longer where it works at all.
const REACH_WITHIN: Duration = Duration::from_secs(30);
/// Sessions and certificates go wrong with a clock further off.
const CLOCK_OFF_MAX: i64 = 60;
/// The first of January 2026: no clock that is right shows less.
const CLOCK_EARLIEST: i64 = 1_767_225_600;

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// Works, but somebody should know.
    Note(String),
    /// Does not work; what to do.
    Bad {
        what: String,
        cure: String,
    },
}

/// Tells a configuration that cannot be read; nothing else can be checked.
pub(crate) fn refuse(problems: &Problems) -> io::Result<ExitCode> {
    say(&format!(
        "FAIL configuration: {problems}\n     correct these settings and run it again\n"
    ))?;
    Ok(ExitCode::FAILURE)
}

/// Runs all checks; failure when something does not work.
pub(crate) async fn run(config: &Config) -> io::Result<ExitCode> {
    let mut failures = 0;
    let mut tell = |name: &str, finding: Finding| -> io::Result<()> {
        match finding {
            Finding::Good(what) => say(&format!("ok   {name}: {what}\n")),
            Finding::Note(what) => say(&format!("note {name}: {what}\n")),
            Finding::Bad { what, cure } => {
                failures += 1;
                say(&format!("FAIL {name}: {what}\n     {cure}\n"))
            }
        }
    };
    tell(
        "configuration",
        Finding::Good("every setting is valid".to_owned()),
    )?;
    tell("clock", check_clock(config).await)?;
    tell("master key", check_key(config))?;
    tell("database", check_database(config).await)?;
    tell("port", check_port(config))?;
    tell("whatsapp", check_whatsapp(config).await)?;
    let verdict = match failures {
        0 => "nothing stands in the way\n".to_owned(),
        n => format!("{n} thing(s) stand in the way\n"),
    };
    say(&verdict)?;
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Compares the clock with that of WhatsApp's web server.
async fn check_clock(config: &Config) -> Finding {
    let now = SystemClock.now().as_secs();
    let cure = || "set the clock and keep it right (timedatectl set-ntp true)".to_owned();
    if now < CLOCK_EARLIEST {
        let what = format!("it shows {}, which is long past", SystemClock.now());
        return Finding::Bad { what, cure: cure() };
    }
    if !config.whatsapp.url.is_empty() {
        return Finding::Good(format!(
            "it shows {}, not compared in a test setup",
            SystemClock.now()
        ));
    }
    match remote_time().await {
        Some(remote) if (remote - now).abs() > CLOCK_OFF_MAX => {
            let what = format!("it is {} s off from WhatsApp's", now - remote);
            Finding::Bad { what, cure: cure() }
        }
        Some(_) => Finding::Good("it agrees with WhatsApp's".to_owned()),
        None => Finding::Note(format!(
            "it shows {}; there was nothing to compare it with",
            SystemClock.now()
        )),
    }
}

/// The time that WhatsApp's web server puts on its answers.
async fn remote_time() -> Option<i64> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .ok()?;
    let answer = client.head("https://web.whatsapp.com/").send().await.ok()?;
    let date = answer.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    parse_http_date(date)
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since the epoch.
fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let timestamp: wagate_domain::Timestamp =
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
            .parse()
            .ok()?;
    Some(timestamp.as_secs())
}

fn check_key(config: &Config) -> Finding {
    let path = &config.security.master_key_file;
    match FoundKey::find(&config.security) {
        Ok(found) if found.is_new() => Finding::Note(format!(
            "{} does not exist; the first start of an empty database makes it",
            path.display()
        )),
        Ok(found) => check_mode(&found, path),
        Err(error @ KeyError::BadFile { .. }) => Finding::Bad {
            what: telemetry::chain(&error).to_string(),
            cure: "put the file back from its copy".to_owned(),
        },
        Err(error) => Finding::Bad {
            what: telemetry::chain(&error).to_string(),
            cure: "correct security.master_key or security.master_key_file".to_owned(),
        },
    }
}

/// The start refuses what everybody can read, and grumbles about what the group can.
fn check_mode(found: &FoundKey, path: &Path) -> Finding {
    let cure = format!("chmod 600 {}", path.display());
    match found.exposure() {
        Some(Exposure::Everybody(mode)) => Finding::Bad {
            what: format!("every user of this machine can read it (mode {mode:o})"),
            cure,
        },
        Some(Exposure::Group(mode)) => {
            Finding::Note(format!("its group can read it (mode {mode:o}): {cure}"))
        }
        None => Finding::Good("it can be read, by its owner only".to_owned()),
    }
}

async fn check_database(config: &Config) -> Finding {
    if let Some(path) = serve::sqlite_path(&config.store)
        && !path.exists()
    {
        return check_folder(&path);
    }
    let Ok(found) = FoundKey::find(&config.security) else {
        return Finding::Note("not looked at: there is no usable master key".to_owned());
    };
    let sealer = Sealer::new(&found.key, &[]);
    let db = match Db::open(serve::db_options(&config.store), sealer).await {
        Ok(db) => db,
        Err(error) => return bad_database(&error),
    };
    let started = tokio::time::Instant::now();
    let answered = db.ping().await;
    let took = started.elapsed().as_millis();
    let key_trouble = key_trouble(&db, &found, &config.security.master_key_file).await;
    let schema = db.schema().await;
    db.close().await;
    match (answered.and(schema), key_trouble) {
        (Err(error), _) => bad_database(&error),
        (Ok(_), Some(what)) => Finding::Bad {
            what,
            cure: "a start is refused until the right key is back".to_owned(),
        },
        (Ok(schema), None) => judge_schema(schema, config.store.migrate)
            .unwrap_or_else(|| Finding::Good(format!("it answered in {took} ms"))),
    }
}

/// What is to be said about a schema that is not this binary's.
fn judge_schema(schema: MigrationReport, migrates: bool) -> Option<Finding> {
    let MigrationReport { from, to } = schema;
    if from == to {
        return None;
    }
    let what = format!("its schema is version {from}, and this wagate needs {to}");
    Some(if migrates {
        Finding::Note(format!("{what}; the next start brings it up to date"))
    } else {
        Finding::Bad {
            what,
            cure: "run `wagate migrate`, since store.migrate is off".to_owned(),
        }
    })
}

/// Whether the start would refuse this key beside this database. A database with no tables yet has
/// nothing to open.
async fn key_trouble(db: &Db, found: &FoundKey, path: &Path) -> Option<String> {
    let in_use = db.read(tenants::count).await.is_ok_and(|count| count > 0);
    if in_use && found.is_new() {
        let path = path.to_owned();
        return Some(KeyError::Missing { path }.to_string());
    }
    let opened = db.read(device_state::probe).await;
    matches!(opened, Err(StoreError::Sealed)).then(|| serve::StartError::ForeignKey.to_string())
}

fn bad_database(error: &StoreError) -> Finding {
    let cure = match error {
        StoreError::NewerSchema { .. } => "install a newer wagate, or restore an older copy",
        StoreError::Full => "make room on the disk",
        StoreError::Options(_) => "correct store.url",
        _ => "see that the database runs and that store.url is right",
    };
    Finding::Bad {
        what: telemetry::chain(error).to_string(),
        cure: cure.to_owned(),
    }
}

/// The database is not there yet: can it be made?
fn check_folder(database: &Path) -> Finding {
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let existing = folder
        .ancestors()
        .find(|f| f.exists())
        .unwrap_or(Path::new("."));
    let writable = fs::metadata(existing).is_ok_and(|m| m.is_dir() && !m.permissions().readonly());
    if writable {
        Finding::Note(format!(
            "{} does not exist; the first start makes it",
            database.display()
        ))
    } else {
        Finding::Bad {
            what: format!("{} cannot be made", database.display()),
            cure: format!("let this user write in {}", existing.display()),
        }
    }
}

fn check_port(config: &Config) -> Finding {
    let (host, port) = (config.server.host.as_str(), config.server.port);
    match TcpListener::bind((host, port)) {
        Ok(_) => Finding::Good(format!("{host}:{port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::Note(format!(
            "{host}:{port} is taken; if not by a running wagate, choose another server.port"
        )),
        Err(error) => Finding::Bad {
            what: format!("cannot listen on {host}:{port}: {error}"),
            cure: "correct server.host and server.port".to_owned(),
        },
    }
}

/// Goes the way to WhatsApp: name, TCP, TLS, WebSocket.
async fn check_whatsapp(config: &Config) -> Finding {
    let cure = || {
        "let this machine reach web.whatsapp.com on port 443, directly and with no proxy that opens TLS"
            .to_owned()
    };
    let reached = async {
        let options =
            serve::engine_options(config).map_err(|e| telemetry::chain(&e).to_string())?;
        let db = scratch_database()
            .await
            .map_err(|e| telemetry::chain(&e).to_string())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = Engine::new(options, db.clone(), clock)
            .map_err(|e| telemetry::chain(&e).to_string())?;
        let reached = engine.check_reachable().await;
        db.close().await;
        reached.map_err(|e| telemetry::chain(&e).to_string())
    };
    match timeout(REACH_WITHIN, reached).await {
        Ok(Ok(())) => Finding::Good("its socket answers".to_owned()),
        Ok(Err(what)) => Finding::Bad { what, cure: cure() },
        Err(_) => {
            let what = format!("no answer within {} s", REACH_WITHIN.as_secs());
            Finding::Bad { what, cure: cure() }
        }
    }
}

/// The engine wants a database, the way to WhatsApp does not.
async fn scratch_database() -> Result<Db, StoreError> {
    let sealer = Sealer::new(&MasterKey::generate()?, &[]);
    Db::open(DbOptions::new("sqlite::memory:"), sealer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        assert_eq!(
            parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(parse_http_date("yesterday"), None);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_a_failure_with_its_cure() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults().unwrap();
        config.security.master_key_file = folder.path().join("master.key");
        assert!(matches!(check_key(&config), Finding::Note(_)));
        FoundKey::find(&config.security)
            .unwrap()
            .keep(true)
            .unwrap();
        assert!(matches!(check_key(&config), Finding::Good(_)));
        let to_group = fs::Permissions::from_mode(0o640);
        fs::set_permissions(&config.security.master_key_file, to_group).unwrap();
        assert!(matches!(check_key(&config), Finding::Note(_)));
        let to_all = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&config.security.master_key_file, to_all).unwrap();
        let Finding::Bad { what, cure } = check_key(&config) else {
            panic!("not found")
        };
        assert!(what.contains("mode 644"), "{what}");
        // Once is enough.
        assert_eq!(format!("{what} {cure}").matches("chmod 600").count(), 1);
    }

    #[tokio::test]
    async fn a_lost_key_beside_a_used_database_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults().unwrap();
        let path = folder.path().join("wagate.db");
        config.store.url = format!("sqlite:{}", path.display()).into();
        config.security.master_key_file = folder.path().join("master.key");
        let db = serve::open_database(&config, serve::Upgrade::Always)
            .await
            .unwrap();
        db.write(|tx| tenants::create(tx, "default", SystemClock.now()))
            .await
            .unwrap();
        db.close().await;
        assert!(matches!(check_database(&config).await, Finding::Good(_)));

        fs::remove_file(&config.security.master_key_file).unwrap();
        let Finding::Bad { what, .. } = check_database(&config).await else {
            panic!("not found")
        };
        assert!(what.contains("put the file back"), "{what}");
    }

    #[test]
    fn an_older_schema_is_a_failure_where_nobody_migrates_it() {
        let schema = |from| MigrationReport { from, to: 3 };
        assert_eq!(judge_schema(schema(3), false), None);
        assert!(matches!(
            judge_schema(schema(2), true),
            Some(Finding::Note(_))
        ));
        let Some(Finding::Bad { cure, .. }) = judge_schema(schema(2), false) else {
            panic!("not found")
        };
        assert!(cure.contains("wagate migrate"), "{cure}");
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_yet_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/wagate.db");
        let mut config = Config::defaults().unwrap();
        config.store.url = format!("sqlite:{}", path.display()).into();
        assert!(matches!(check_database(&config).await, Finding::Note(_)));
        assert!(!folder.path().join("data").exists());
    }
}
