//! The database of a configuration: opened with its key, at this binary's schema, by one gateway at a time
//! where it is embedded; and the bus that goes with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use wagate_store::bus::Bus;
use wagate_store::{Db, DbOptions, MigrationReport, Sealer, StoreError, device_state, tenants};

use super::StartError;
use crate::config::{Config, StoreConfig};
use crate::files::make_folder_of;
use crate::master_key::FoundKey;

/// What may be done to a schema that is not this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Nothing: it is refused.
    Never,
    /// An empty database gets its tables, an older one is refused: other processes may be using it.
    OnlyEmpty,
    /// It is brought up to date.
    Always,
}

impl Upgrade {
    /// What a start may do.
    pub(super) fn at_start(config: &StoreConfig) -> Upgrade {
        if config.migrate {
            Upgrade::Always
        } else {
            Upgrade::Never
        }
    }

    /// Whether to migrate; refuses a schema that stays as it is and would not do.
    pub(super) fn is_wanted(self, schema: MigrationReport) -> Result<bool, StartError> {
        let MigrationReport { from, to } = schema;
        match self {
            _ if from == to => Ok(false),
            Upgrade::Always => Ok(true),
            Upgrade::OnlyEmpty if from == 0 => Ok(true),
            Upgrade::Never if from == 0 => Err(StartError::NoDatabase {
                what: "the database is empty".to_owned(),
            }),
            Upgrade::OnlyEmpty | Upgrade::Never => Err(StartError::OldSchema {
                found: from,
                known: to,
            }),
        }
    }
}

/// Opens the database of a configuration with its key, and with this binary's schema.
pub(crate) async fn open_database(config: &Config, upgrade: Upgrade) -> Result<Db, StartError> {
    // Opening it would make the file.
    if upgrade == Upgrade::Never
        && let Some(path) = sqlite_path(&config.store).filter(|path| !path.exists())
    {
        return Err(StartError::NoDatabase {
            what: format!("there is no database at {}", path.display()),
        });
    }
    let found = FoundKey::find(&config.security)?;
    found.check_mode()?;
    let db = connect(config, &found).await?;
    if upgrade.is_wanted(db.schema().await.map_err(StartError::Database)?)? {
        let report = db.migrate().await.map_err(StartError::Database)?;
        tracing::info!(
            from = report.from,
            to = report.to,
            "brought the schema up to date"
        );
    }
    let empty = db
        .read(tenants::count)
        .await
        .map_err(StartError::Database)?
        == 0;
    if db
        .read(device_state::probe)
        .await
        .is_err_and(|error| matches!(error, StoreError::Sealed))
    {
        return Err(StartError::ForeignKey);
    }
    if let Some(path) = found.keep(empty)? {
        tracing::warn!(
            "made a master key in {}: keep a copy of it, without it every session must be linked anew",
            path.display()
        );
    }
    Ok(db)
}

/// Brings the schema up to date, and says from which version to which.
pub(crate) async fn migrate_database(config: &Config) -> Result<MigrationReport, StartError> {
    // Nothing is sealed on the way, so that a key which is not there yet need not be kept.
    let db = connect(config, &FoundKey::find(&config.security)?).await?;
    let report = db.migrate().await.map_err(StartError::Database);
    db.close().await;
    report
}

async fn connect(config: &Config, found: &FoundKey) -> Result<Db, StartError> {
    if let Some(folder) = sqlite_path(&config.store).as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
    {
        fs::create_dir_all(folder).map_err(|source| StartError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let sealer = Sealer::new(&found.key, &[]);
    Db::open(db_options(&config.store), sealer)
        .await
        .map_err(StartError::Database)
}

/// The database's options.
pub(crate) fn db_options(config: &StoreConfig) -> DbOptions {
    DbOptions {
        readers: config.readers,
        pool: config.pool,
        queue_max: config.queue_max,
        ..DbOptions::new(config.url.expose_secret())
    }
}

/// The file of an embedded database.
pub(crate) fn sqlite_path(config: &StoreConfig) -> Option<PathBuf> {
    let path = config.url.expose_secret().strip_prefix("sqlite:")?;
    (path != ":memory:").then(|| PathBuf::from(path))
}

/// Two gateways on one embedded database would hold the same sessions: the second is refused.
pub(super) fn lock_embedded(config: &StoreConfig) -> Result<Option<File>, StartError> {
    let Some(database) = sqlite_path(config) else {
        return Ok(None);
    };
    let mut path = database.into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| StartError::Folder {
        path: path.clone(),
        source,
    };
    make_folder_of(&path).map_err(failed)?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::InUse { path }),
        Err(fs::TryLockError::Error(source)) => Err(StartError::Folder { path, source }),
    }
}

pub(super) fn open_bus(config: &StoreConfig) -> Result<Bus, StartError> {
    if sqlite_path(config).is_some() || config.url.expose_secret().starts_with("sqlite:") {
        return Ok(Bus::local());
    }
    Bus::postgres(config.url.expose_secret()).map_err(StartError::Database)
}
