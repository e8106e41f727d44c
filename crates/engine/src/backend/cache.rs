//! What is known of each peer, so that a cold send does not ask the database twenty times.
//!
//! The library reads a peer's rows one by one: device list, token, and for each device a session and an
//! identity. The first such read loads everything about that user in one visit, absences included; the
//! next ones are answered from here. A session's bytes are handed out once and then forgotten, since the
//! library keeps the session itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wagate_store::When;
use wagate_store::device_state::{self, Put, StateKind};

use super::{Result, SessionBackend, kind};

/// Rows kept over all users; some hundred bytes each.
const ROWS_MAX: usize = 8192;
const KINDS: [StateKind; 3] = [kind::IDENTITY, kind::SESSION, kind::TC_TOKEN];

/// Whose row it is: the part of an address before its device or server.
pub(super) fn user_of(key: &str) -> &str {
    key.split([':', '@']).next().unwrap_or(key)
}

#[derive(Clone, Debug)]
enum Value {
    Here(Bytes),
    /// It exists; its bytes must be read.
    InDatabase,
}

#[derive(Debug)]
struct Row {
    kind: StateKind,
    key: Box<str>,
    value: Value,
}

/// Everything about one user: what is not in it does not exist.
#[derive(Debug, Default)]
struct User {
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Known {
    users: HashMap<Box<str>, User>,
    oldest_first: VecDeque<Box<str>>,
    rows: usize,
    /// Rises when a write begins and when it ends; what was read across a change is not kept.
    epoch: u64,
    /// A write was given up half-way, and nobody knows when it lands: nothing is kept any more.
    off: bool,
}

#[derive(Debug, Default)]
pub(super) struct UserCache {
    known: Mutex<Known>,
    /// One write at a time, so that the order of commits is the order of cache changes.
    gate: tokio::sync::Mutex<()>,
}

enum Answer {
    Absent,
    Here(Bytes),
    InDatabase,
    Unknown { epoch: u64 },
}

impl UserCache {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn answer(&mut self, wanted: StateKind, key: &str) -> Answer {
        let Some(user) = self.users.get_mut(user_of(key)) else {
            return Answer::Unknown { epoch: self.epoch };
        };
        match user
            .rows
            .iter_mut()
            .find(|row| row.kind == wanted && *row.key == *key)
        {
            None => Answer::Absent,
            Some(row) => match &row.value {
                Value::InDatabase => Answer::InDatabase,
                Value::Here(bytes) => {
                    let bytes = bytes.clone();
                    if wanted == kind::SESSION {
                        row.value = Value::InDatabase;
                    }
                    Answer::Here(bytes)
                }
            },
        }
    }

    fn insert(&mut self, user: &str, rows: Vec<Row>) {
        self.forget(user);
        self.rows += rows.len() + 1;
        self.users.insert(user.into(), User { rows });
        self.oldest_first.push_back(user.into());
        while self.rows > ROWS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.remove(&oldest);
        }
    }

    fn forget(&mut self, user: &str) {
        if self.users.contains_key(user) {
            self.remove(user);
            self.oldest_first.retain(|known| **known != *user);
        }
    }

    fn remove(&mut self, user: &str) {
        if let Some(removed) = self.users.remove(user) {
            self.rows = self.rows.saturating_sub(removed.rows.len() + 1);
        }
    }

    fn put(&mut self, put: Put) {
        let Some(user) = self.users.get_mut(user_of(&put.key)) else {
            return;
        };
        let value = if put.kind == kind::SESSION {
            Value::InDatabase
        } else {
            // Boxed, so that a buffer that grew while it was written is cut to its length.
            Value::Here(Bytes::from(put.value.into_boxed_slice()))
        };
        match user
            .rows
            .iter_mut()
            .find(|row| row.kind == put.kind && *row.key == *put.key)
        {
            Some(row) => row.value = value,
            None => {
                user.rows.push(Row {
                    kind: put.kind,
                    key: put.key.into(),
                    value,
                });
                self.rows += 1;
            }
        }
    }

    fn delete(&mut self, kind: StateKind, key: &str) {
        if let Some(user) = self.users.get_mut(user_of(key)) {
            let before = user.rows.len();
            user.rows
                .retain(|row| !(row.kind == kind && *row.key == *key));
            self.rows = self.rows.saturating_sub(before - user.rows.len());
        }
    }
}

/// What a write did to cached rows.
pub(super) enum Change {
    Put(Put),
    Delete(StateKind, String),
}

/// Turns the cache off unless the write came to its end.
struct WriteInFlight<'a> {
    cache: &'a UserCache,
    done: bool,
}

impl Drop for WriteInFlight<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut known = self.cache.lock();
            *known = Known {
                off: true,
                epoch: known.epoch + 1,
                ..Known::default()
            };
        }
    }
}

impl SessionBackend {
    /// A row of one of the cached kinds.
    pub(super) async fn user_row(&self, kind: StateKind, key: &str) -> Result<Option<Bytes>> {
        // The lock must not be held across the reads below.
        let answer = self.cache.lock().answer(kind, key);
        let epoch = match answer {
            Answer::Absent => return Ok(None),
            Answer::Here(bytes) => return Ok(Some(bytes)),
            Answer::InDatabase => {
                return Ok(self.get_one(kind, key).await?.map(Bytes::from));
            }
            Answer::Unknown { epoch } => epoch,
        };
        let rows = self.load_user(user_of(key)).await?;
        let found = rows.iter().find(|row| row.kind == kind && *row.key == *key);
        let found = found.and_then(|row| match &row.value {
            Value::Here(bytes) => Some(bytes.clone()),
            Value::InDatabase => None,
        });
        self.keep_user(user_of(key), rows, epoch);
        Ok(found)
    }

    /// Whether a row exists, without its bytes.
    pub(super) async fn user_row_exists(&self, kind: StateKind, key: &str) -> Result<bool> {
        self.with_user(user_of(key), |rows| {
            rows.iter().any(|row| row.kind == kind && *row.key == *key)
        })
        .await
    }

    /// Whether there is any Signal state for the user, on any device.
    pub(super) async fn user_has_signal_state(&self, user: &str) -> Result<bool> {
        let of_user = |key: &str| {
            key.strip_prefix(user)
                .is_some_and(|rest| rest.starts_with('@') || rest.starts_with(':'))
        };
        self.with_user(user, |rows| {
            rows.iter().any(|row| {
                (row.kind == kind::SESSION || row.kind == kind::IDENTITY) && of_user(&row.key)
            })
        })
        .await
    }

    async fn with_user<R>(&self, user: &str, f: impl Fn(&[Row]) -> R) -> Result<R> {
        let epoch = {
            let known = self.cache.lock();
            if let Some(user) = known.users.get(user) {
                return Ok(f(&user.rows));
            }
            known.epoch
        };
        let rows = self.load_user(user).await?;
        let result = f(&rows);
        self.keep_user(user, rows, epoch);
        Ok(result)
    }

    async fn load_user(&self, user: &str) -> Result<Vec<Row>> {
        let user = user.to_owned();
        self.rows
            .read(move |tx, session| {
                let mut rows = Vec::new();
                for kind in KINDS {
                    for (key, value) in device_state::scan(tx, session, kind, &user)? {
                        // "123" is also the beginning of another user, "1234".
                        if user_of(&key) == user {
                            let value = Value::Here(Bytes::from(value));
                            rows.push(Row {
                                kind,
                                key: key.into(),
                                value,
                            });
                        }
                    }
                }
                if let Some(value) = device_state::get(tx, session, kind::DEVICE_LIST, &user)? {
                    let value = Value::Here(Bytes::from(value));
                    rows.push(Row {
                        kind: kind::DEVICE_LIST,
                        key: user.into(),
                        value,
                    });
                }
                Ok(rows)
            })
            .await
    }

    fn keep_user(&self, user: &str, rows: Vec<Row>, epoch: u64) {
        let mut known = self.cache.lock();
        if known.epoch == epoch && !known.off {
            known.insert(user, rows);
        }
    }

    /// Writes rows of cached kinds: `work` runs in one transaction and says what it changed.
    pub(super) async fn write_user_rows<R: Send + 'static>(
        &self,
        work: impl FnOnce(
            &mut wagate_store::Tx<'_>,
            &wagate_store::Lease,
        ) -> std::result::Result<(R, Vec<Change>), wagate_store::StoreError>
        + Send
        + 'static,
    ) -> Result<R> {
        self.change_user_rows(self.rows.write(work)).await
    }

    /// Carries out a write of cached kinds that says what it changed.
    async fn change_user_rows<R>(
        &self,
        write: impl Future<Output = Result<(R, Vec<Change>)>>,
    ) -> Result<R> {
        let _one_at_a_time = self.cache.gate.lock().await;
        self.cache.lock().epoch += 1;
        let mut in_flight = WriteInFlight {
            cache: &self.cache,
            done: false,
        };
        let written = write.await;
        in_flight.done = true;
        let mut known = self.cache.lock();
        known.epoch += 1;
        let (result, changes) = match written {
            Ok(written) => written,
            Err(error) => {
                // It may have happened after all; what is true now, the next read finds out.
                *known = Known {
                    off: known.off,
                    epoch: known.epoch,
                    ..Known::default()
                };
                return Err(error);
            }
        };
        for change in changes {
            match change {
                Change::Put(put) => known.put(put),
                Change::Delete(kind, key) => known.delete(kind, &key),
            }
        }
        Ok(result)
    }

    /// Upserts rows of cached kinds, atomically and durably.
    pub(super) async fn put_user_rows(&self, puts: Vec<Put>) -> Result<()> {
        if puts.is_empty() {
            return Ok(());
        }
        self.change_user_rows(async {
            self.rows.put(&puts, When::Now).await?;
            Ok(((), puts.into_iter().map(Change::Put).collect()))
        })
        .await
    }

    pub(super) async fn delete_user_row(&self, kind: StateKind, key: &str) -> Result<()> {
        // Nothing to delete needs no commit, and the library deletes what is not there a lot.
        if !self.user_row_exists(kind, key).await? {
            return Ok(());
        }
        let key = key.to_owned();
        self.write_user_rows(move |tx, lease| {
            device_state::delete_many(tx, lease, kind, std::slice::from_ref(&key))?;
            Ok(((), vec![Change::Delete(kind, key)]))
        })
        .await
    }
}
