//! The master key: from the configuration, from its file, or made at the first start.
//!
//! A new key is only kept when the database is empty. A key file that went missing beside a database
//! with linked sessions must stop the start: a fresh key would look like a fresh start and lose them all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use wagate_store::{MasterKey, StoreError};

use crate::config::SecurityConfig;

/// The master key cannot be used. The operator sees to it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("security.master_key is not a key: 64 hexadecimal digits or 32 bytes in base64 are")]
    BadSetting(#[source] StoreError),
    #[error("{} does not hold a master key", path.display())]
    BadFile {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("{} cannot be read or written", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is missing, but the database is in use: put the file back from its copy (without it every \
         session must be linked anew, in an empty database)",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "{} has mode {mode:o}, so that every user of this machine can read the key: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("no random numbers for a master key")]
    Random(#[source] StoreError),
}

/// A master key and where it comes from.
pub struct FoundKey {
    pub key: MasterKey,
    /// Where it was read from, if from a file.
    file: Option<PathBuf>,
    /// Set when the key was made just now and must be kept.
    new_file: Option<PathBuf>,
}

impl std::fmt::Debug for FoundKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundKey")
            .field("new_file", &self.new_file)
            .finish_non_exhaustive()
    }
}

impl FoundKey {
    /// Reads the key, or makes one if its file does not exist.
    pub fn find(config: &SecurityConfig) -> Result<FoundKey, KeyError> {
        let setting = config.master_key.expose_secret();
        if !setting.is_empty() {
            let key = MasterKey::parse(setting).map_err(KeyError::BadSetting)?;
            return Ok(FoundKey {
                key,
                file: None,
                new_file: None,
            });
        }
        let path = &config.master_key_file;
        match fs::read_to_string(path) {
            Ok(text) => {
                let key = MasterKey::parse(text.trim()).map_err(|source| KeyError::BadFile {
                    path: path.clone(),
                    source,
                })?;
                Ok(FoundKey {
                    key,
                    file: Some(path.clone()),
                    new_file: None,
                })
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                let key = MasterKey::generate().map_err(KeyError::Random)?;
                Ok(FoundKey {
                    key,
                    file: None,
                    new_file: Some(path.clone()),
                })
            }
            Err(source) => Err(KeyError::File {
                path: path.clone(),
                source,
            }),
        }
    }

    /// Refuses a file that everybody on this machine can read or write; warns when its group can, since
    /// some ways of handing a file to a container leave no other choice.
    pub fn check_mode(&self) -> Result<(), KeyError> {
        let Some((path, mode)) = self
            .file
            .as_ref()
            .and_then(|path| Some((path, open_to_others(path)?)))
        else {
            return Ok(());
        };
        if mode & 0o007 != 0 {
            return Err(KeyError::Exposed {
                path: path.clone(),
                mode,
            });
        }
        tracing::warn!(
            mode = format!("{mode:o}"),
            "the group can read the master key file: chmod 600 {}",
            path.display()
        );
        Ok(())
    }

    /// Whether it was read from the file that the configuration names.
    pub fn is_from_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether there was none, so that this one was made.
    pub fn is_new(&self) -> bool {
        self.new_file.is_some()
    }

    /// Keeps a new key in its file, readable by the owner only, before anything is sealed with it.
    /// Returns the file if it was made.
    pub fn keep(&self, database_is_empty: bool) -> Result<Option<&Path>, KeyError> {
        let Some(path) = &self.new_file else {
            return Ok(None);
        };
        if !database_is_empty {
            return Err(KeyError::Missing { path: path.clone() });
        }
        let failed = |source| KeyError::File {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(self.key.to_text().as_bytes())
            .map_err(failed)?;
        file.write_all(b"\n").map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Some(path))
    }
}

/// The file's mode, if others than its owner may read or write it.
pub fn open_to_others(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn config(path: &Path) -> SecurityConfig {
        let mut config = crate::config::Config::defaults().unwrap().security;
        config.master_key_file = path.to_owned();
        config
    }

    #[test]
    fn a_key_is_made_once_with_mode_0600_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/master.key");
        let made = FoundKey::find(&config(&path)).unwrap();
        assert_eq!(made.keep(true).unwrap(), Some(path.as_path()));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(open_to_others(&path), None);
        let found = FoundKey::find(&config(&path)).unwrap();
        assert_eq!(found.key.to_text(), made.key.to_text());
        assert_eq!(found.keep(false).unwrap(), None);
        found.check_mode().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open_to_others(&path), Some(0o644));
        let error = found.check_mode().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        found.check_mode().unwrap();
    }

    #[test]
    fn a_lost_key_beside_a_used_database_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let made = FoundKey::find(&config(&path)).unwrap();
        let error = made.keep(false).unwrap_err();
        assert!(matches!(error, KeyError::Missing { .. }));
        assert!(!path.exists());
    }

    #[test]
    fn a_bad_key_is_refused_without_showing_it() {
        let mut config = config(Path::new("/nowhere"));
        config.master_key = SecretString::from("hunter2".to_owned());
        let error = FoundKey::find(&config).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
