//! The master key: from the configuration, from its file, or made at the first start.
//!
//! A new key is only kept when the database is empty. A key file that went missing beside a database
//! with linked sessions must stop the start: a fresh key would look like a fresh start and lose them all.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use wagate_store::{MasterKey, StoreError};

use crate::config::SecurityConfig;
use crate::files::make_folder_of;

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
    #[error("{} was made by another wagate just now: start again, with that one", path.display())]
    MadeMeanwhile { path: PathBuf },
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
        let Some((path, exposure)) = self.file.as_ref().zip(self.exposure()) else {
            return Ok(());
        };
        match exposure {
            Exposure::Everybody(mode) => Err(KeyError::Exposed {
                path: path.clone(),
                mode,
            }),
            Exposure::Group(mode) => {
                tracing::warn!(
                    mode = format!("{mode:o}"),
                    "the group can read the master key file: chmod 600 {}",
                    path.display()
                );
                Ok(())
            }
        }
    }

    /// Who beside its owner can read or write the file that the key was read from, if anybody can.
    pub fn exposure(&self) -> Option<Exposure> {
        let metadata = fs::metadata(self.file.as_ref()?).ok()?;
        let mode = metadata.permissions().mode() & 0o777;
        match mode {
            mode if mode & 0o007 != 0 => Some(Exposure::Everybody(mode)),
            mode if mode & 0o070 != 0 => Some(Exposure::Group(mode)),
            _ => None,
        }
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
        make_folder_of(path).map_err(failed)?;
        let text = format!("{}\n", self.key.to_text());
        match write_new(path, text.as_bytes()) {
            Ok(()) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeyError::MadeMeanwhile { path: path.clone() })
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Who beside the owner can read or write a key file, and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    Group(u32),
    Everybody(u32),
}

/// Makes a file for its owner only: there is all of it or none, also after a crash, and never in the
/// place of another. A half of a key would be a lost key, and so would one that was written over.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    // Two processes may be at it at once.
    let random = RandomState::new().hash_one(std::process::id());
    draft.push(format!(".{random:016x}.new"));
    let draft = PathBuf::from(draft);
    let written = write_draft(&draft, content)
        // Unlike a rename, a link does not replace what is there.
        .and_then(|()| fs::hard_link(&draft, path));
    if written.is_ok() || draft.exists() {
        fs::remove_file(&draft)?;
    }
    written?;
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_draft(draft: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(content)?;
    file.sync_all()
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
        let found = FoundKey::find(&config(&path)).unwrap();
        assert_eq!(found.key.to_text(), made.key.to_text());
        assert_eq!(found.keep(false).unwrap(), None);
        found.check_mode().unwrap();
        assert_eq!(found.exposure(), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(found.exposure(), Some(Exposure::Everybody(0o644)));
        let error = found.check_mode().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        found.check_mode().unwrap();
        assert_eq!(found.exposure(), Some(Exposure::Group(0o640)));
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_key_never_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let (one, other) = (
            FoundKey::find(&config(&path)).unwrap(),
            FoundKey::find(&config(&path)).unwrap(),
        );
        one.keep(true).unwrap();
        let error = other.keep(true).unwrap_err();
        assert!(matches!(error, KeyError::MadeMeanwhile { .. }), "{error}");
        let kept = FoundKey::find(&config(&path)).unwrap();
        assert_eq!(kept.key.to_text(), one.key.to_text());
        assert_eq!(names(folder.path()), ["master.key"]);
    }

    #[test]
    fn a_key_is_in_its_place_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        // So long that it is not written in one go.
        let texts = ["a".repeat(1 << 23), "b".repeat(1 << 23)];
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| write_new(&path, text.as_bytes()).ok());
            }
            // What is there at any moment is one of the two, whole.
            while !path.exists() {
                std::thread::yield_now();
            }
            assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        });
        assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(names(folder.path()), ["master.key"]);
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
