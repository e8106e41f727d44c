//! SQLite's threads: one writer with group commit, and readers.
//!
//! The writer takes the closures that wait, tenant by tenant (`turns.rs`), runs them in one transaction,
//! commits once, and answers each after the commit. So one flush to the disk serves up to `group_max`
//! callers, and nobody hears of success before it is durable (MP-1). Only a group of which nothing need
//! survive a loss of power ([`When::Unsynced`]) is left to the next flush.
//!
//! A closure that fails harms none of its neighbours. A savepoint for each would do, for which SQLite
//! copies every page before its first change; so as long as all closures can be run again they have none,
//! and should one fail after it changed something, which is rare, the transaction begins anew with
//! savepoints.
//!
//! What all of them have to say to the outbox is written in one go before the commit (EV-1).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::runtime::{self, Runtime};

use super::job::{Job, Message, PutJob};
use super::sqlite::{Opened, SqliteConn, is_memory, path_of};
use super::tx::{Conn, Tx};
use super::waiting::{self, Waiting, next};
use super::{DbOptions, Threads, When, spawn};
use crate::device_state;
use crate::error::StoreError;
use crate::outbox::{self, Pending};
use crate::seal::Sealer;

/// Opens the connections, so that a bad path fails here, and starts the threads.
pub(super) fn start(options: &DbOptions, sealer: &Sealer) -> Result<Threads, StoreError> {
    let path = path_of(&options.url)?;
    let (writer, waiting) = waiting::channel(options);
    let opened = Opened::new(path, options)?;
    let (keys, group_max) = (sealer.clone(), options.group_max.max(1));
    let timer = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| StoreError::Unavailable(error.into()))?;
    let mut readers = Vec::new();
    // A database in memory belongs to one connection, so the writer reads as well.
    if !is_memory(path) {
        for _ in 0..options.readers.max(1) {
            let opened = Opened::new(path, options)?;
            opened.refuse_writes()?;
            readers.push(opened);
        }
    }
    let writing = move || {
        let mut thread = Writer {
            conn: SqliteConn::of(opened),
            sealer: keys,
            group_max,
            timer,
        };
        thread.run(waiting);
    };
    let mut handles = vec![spawn("db-writer".into(), writing)?];
    if readers.is_empty() {
        return Ok(Threads {
            reader: writer.clone(),
            writer,
            handles,
        });
    }
    let (reader, waiting) = waiting::channel(options);
    let waiting = Arc::new(Mutex::new(waiting));
    for (number, opened) in readers.into_iter().enumerate() {
        let (waiting, sealer) = (Arc::clone(&waiting), sealer.clone());
        handles.push(spawn(format!("db-reader-{number}"), move || {
            read(&SqliteConn::of(opened), &sealer, &waiting);
        })?);
    }
    Ok(Threads {
        writer,
        reader,
        handles,
    })
}

struct Writer {
    conn: SqliteConn,
    sealer: Sealer,
    group_max: usize,
    /// Wakes the thread for what was wanted soon.
    timer: Runtime,
}

/// What shares a commit.
#[derive(Default)]
struct Group {
    puts: Vec<PutJob>,
    jobs: Vec<Box<dyn Job>>,
    /// Some of it must survive a loss of power.
    synced: bool,
}

impl Group {
    fn of(messages: Vec<Message>) -> Self {
        let mut group = Self::default();
        for message in messages {
            match message {
                Message::Run(job, _, when) => {
                    group.synced |= when != When::Unsynced;
                    group.jobs.push(job);
                }
                Message::Put(job, _) => {
                    group.synced = true;
                    group.puts.push(job);
                }
                // Was heeded when it came.
                Message::Stop => {}
            }
        }
        group
    }
}

/// What became of a job's changes.
enum Ran {
    Kept,
    /// It failed, and nothing is left of it.
    Gone,
    /// It failed, and some of its changes are still there.
    Left,
}

impl Writer {
    fn run(&mut self, mut waiting: Waiting) {
        while waiting.wait() {
            waiting.linger(&self.timer, self.group_max);
            self.commit(Group::of(waiting.group(self.group_max)));
        }
    }

    /// Runs and answers every job; more than one transaction when SQLite ends one by itself.
    fn commit(&self, group: Group) {
        let Group {
            mut puts,
            jobs,
            synced,
        } = group;
        let mut waiting = VecDeque::from(jobs);
        while !waiting.is_empty() || !puts.is_empty() {
            let mut done = Vec::with_capacity(waiting.len());
            let ended = self.transaction(synced, &mut puts, &mut waiting, &mut done);
            for job in puts.drain(..) {
                job.answer(ended.as_ref().map_err(again).copied());
            }
            for job in done {
                job.finish(ended.as_ref().map_err(again).copied());
            }
        }
    }

    fn transaction(
        &self,
        synced: bool,
        puts: &mut [PutJob],
        waiting: &mut VecDeque<Box<dyn Job>>,
        done: &mut Vec<Box<dyn Job>>,
    ) -> Result<(), StoreError> {
        let begun = self
            .conn
            .sync_commits(synced)
            .and_then(|()| self.conn.control("BEGIN IMMEDIATE"));
        if let Err(error) = begun {
            done.extend(waiting.drain(..));
            return Err(error);
        }
        let mut events = Vec::new();
        let mut begun = self.put(puts)?;
        let mut repeatable = true;
        while let Some(mut job) = waiting.pop_front() {
            repeatable &= job.is_repeatable();
            let ran = if repeatable {
                self.unguarded(&mut *job, &mut events)
            } else {
                self.guarded(&mut *job, begun, &mut events)
            };
            done.push(job);
            match ran? {
                Ran::Kept => begun = true,
                Ran::Gone => {}
                Ran::Left => {
                    self.begin_again()?;
                    events.clear();
                    begun = self.put(puts)?;
                    // From here on each has its savepoint, so that this happens once.
                    repeatable = false;
                    done.drain(..).rev().for_each(|job| waiting.push_front(job));
                }
            }
        }
        self.append(events)
            .and_then(|()| self.conn.control("COMMIT"))
            .inspect_err(|_| self.roll_back())
    }

    /// Writes the device state of all sessions in one go. Whether there is something to keep.
    fn put(&self, puts: &mut [PutJob]) -> Result<bool, StoreError> {
        if puts.is_empty() {
            return Ok(false);
        }
        let mut tx = Tx::sharing(Conn::Sqlite(&self.conn), &self.sealer);
        for job in &mut *puts {
            // A lost lease is that session's own affair.
            job.failed = tx.fence(&job.lease).err();
        }
        let rows = puts
            .iter()
            .filter(|job| job.failed.is_none())
            .flat_map(|job| job.rows.iter().map(|row| (&job.lease.session, row)));
        let written = device_state::put_rows(&mut tx, rows).and_then(|()| tx.finish());
        let Err(error) = written else {
            return Ok(true);
        };
        for job in &mut *puts {
            job.failed.get_or_insert_with(|| again(&error));
        }
        self.begin_again()?;
        Ok(false)
    }

    /// Runs a job with nothing to go back to but the transaction's beginning.
    fn unguarded(&self, job: &mut dyn Job, events: &mut Vec<Pending>) -> Result<Ran, StoreError> {
        let before = self.conn.changes();
        let keep = self.run_job(job, events)?;
        Ok(match keep {
            true => Ran::Kept,
            false if self.conn.changes() == before => Ran::Gone,
            false => Ran::Left,
        })
    }

    /// Runs a job so that nothing is left of it when it fails. While there is nothing else to lose
    /// (`begun`), the transaction itself is the savepoint.
    fn guarded(
        &self,
        job: &mut dyn Job,
        begun: bool,
        events: &mut Vec<Pending>,
    ) -> Result<Ran, StoreError> {
        let keep = if begun {
            self.savepoint(job, events)?
        } else {
            self.run_job(job, events)?
        };
        if keep {
            return Ok(Ran::Kept);
        }
        if !begun {
            self.begin_again()?;
        }
        Ok(Ran::Gone)
    }

    /// Undoes everything, in a transaction that goes on.
    fn begin_again(&self) -> Result<(), StoreError> {
        self.roll_back();
        self.conn.control("BEGIN IMMEDIATE")
    }

    fn run_job(&self, job: &mut dyn Job, events: &mut Vec<Pending>) -> Result<bool, StoreError> {
        let mut tx = Tx::sharing(Conn::Sqlite(&self.conn), &self.sealer);
        let keep = job.run(&mut tx);
        if self.conn.is_idle() {
            // SQLite ends the whole transaction by itself when the disk is full or fails.
            return Err(job.failure().map_or(StoreError::Busy, again));
        }
        if keep {
            events.append(&mut tx.events);
        }
        Ok(keep)
    }

    fn append(&self, events: Vec<Pending>) -> Result<(), StoreError> {
        let mut tx = Tx::new(Conn::Sqlite(&self.conn), &self.sealer);
        tx.events = events;
        outbox::flush(&mut tx)
    }

    /// Runs a job beside others. An error here concerns all of them, since the transaction is gone.
    fn savepoint(&self, job: &mut dyn Job, events: &mut Vec<Pending>) -> Result<bool, StoreError> {
        let lost = |error| {
            self.roll_back();
            error
        };
        self.conn.control("SAVEPOINT job").map_err(lost)?;
        let keep = self.run_job(job, events)?;
        if !keep {
            self.conn.control("ROLLBACK TO job").map_err(lost)?;
        }
        self.conn.control("RELEASE job").map_err(lost)?;
        Ok(keep)
    }

    fn roll_back(&self) {
        if !self.conn.is_idle()
            && let Err(error) = self.conn.control("ROLLBACK")
        {
            tracing::error!(error = %error, "rolling back failed");
        }
    }
}

fn read(conn: &SqliteConn, sealer: &Sealer, waiting: &Mutex<Waiting>) {
    while let Some(mut job) = next(waiting) {
        let ended = match conn.control("BEGIN") {
            Ok(()) => {
                job.run(&mut Tx::new(Conn::Sqlite(conn), sealer));
                if conn.is_idle() {
                    Ok(())
                } else {
                    conn.control("COMMIT")
                }
            }
            Err(error) => Err(error),
        };
        if ended.is_err() && !conn.is_idle() {
            conn.control("ROLLBACK").ok();
        }
        job.finish(ended);
    }
}

/// The same error once more, for each job of a group.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Busy => StoreError::Busy,
        StoreError::Corrupt { what } => StoreError::corrupt(what.clone()),
        other => StoreError::Unavailable(format!("{other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use wagate_domain::TenantId;

    use crate::db::{Db, DbOptions, Tx, When, params};
    use crate::error::StoreError;
    use crate::seal::{MasterKey, Sealer};

    /// SQLite's names for `FULL` and `NORMAL`.
    const SYNCED: i64 = 2;
    const UNSYNCED: i64 = 1;

    /// How firmly the transaction is committed that this is asked in.
    fn level(tx: &mut Tx<'_>) -> Result<i64, StoreError> {
        tx.query_one("PRAGMA synchronous", params![], |row| row.int(0))
    }

    async fn opened(folder: &tempfile::TempDir) -> Db {
        let url = format!("sqlite:{}", folder.path().join("wagate.db").display());
        let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
        Db::open(DbOptions::new(url), sealer).await.unwrap()
    }

    #[tokio::test]
    async fn only_what_may_be_undone_is_left_to_the_next_flush() {
        let folder = tempfile::tempdir().unwrap();
        let (db, tenant) = (opened(&folder).await, TenantId::generate());
        assert_eq!(db.write(level).await.unwrap(), SYNCED);
        for (when, expected) in [
            (When::Unsynced, UNSYNCED),
            (When::Now, SYNCED),
            (When::Unsynced, UNSYNCED),
            (When::Soon, SYNCED),
        ] {
            let found = db.write_repeatable(&tenant, when, level).await.unwrap();
            assert_eq!(found, expected, "{when:?}");
        }
        db.close().await;
    }

    /// Runs closures in one commit, in order: they wait in line before the thread is free.
    async fn together<T>(db: &Db, work: impl Future<Output = T>) -> T {
        let (entered, is_held) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let held = db.write(move |_| {
            entered.send(()).ok();
            released.recv().ok();
            Ok(())
        });
        let after = async {
            is_held.await.unwrap();
            let release = async { release.send(()).unwrap() };
            tokio::join!(work, release).0
        };
        let (held, done) = tokio::join!(held, after);
        held.unwrap();
        done
    }

    #[tokio::test]
    async fn what_may_be_undone_is_not_when_it_shares_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (db, tenant) = (opened(&folder).await, TenantId::generate());
        let both = async {
            let undoable = db.write_repeatable(&tenant, When::Unsynced, level);
            let firm = db.write_for(&tenant, level);
            let (undoable, firm) = tokio::join!(undoable, firm);
            (undoable.unwrap(), firm.unwrap())
        };
        assert_eq!(together(&db, both).await, (SYNCED, SYNCED));
        db.close().await;
    }

    /// What a closure does before its end.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Does {
        Adds,
        AddsAndFails,
        Fails,
        Panics,
        AddsOnce,
    }

    /// Adds its number, or not; says how often it ran.
    async fn work(db: &Db, tenant: &TenantId, number: i64, does: Does) -> (bool, u32) {
        let ran = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&ran);
        let work = move |tx: &mut Tx<'_>| {
            counted.fetch_add(1, Ordering::Relaxed);
            if does != Does::Fails {
                tx.execute("INSERT INTO numbers VALUES ($1)", params![number])?;
            }
            match does {
                Does::Adds | Does::AddsOnce => Ok(()),
                Does::AddsAndFails | Does::Fails => Err(StoreError::NotFound { what: "test" }),
                Does::Panics => panic!("a test of a panic"),
            }
        };
        let done = if does == Does::AddsOnce {
            db.write_for(tenant, work).await
        } else {
            db.write_repeatable(tenant, When::Now, work).await
        };
        (done.is_ok(), ran.load(Ordering::Relaxed))
    }

    /// Runs all in one commit; gives what each did, and the numbers that are there then.
    async fn numbers(all: [Does; 4]) -> ([(bool, u32); 4], Vec<i64>) {
        let folder = tempfile::tempdir().unwrap();
        let (db, tenant) = (opened(&folder).await, TenantId::generate());
        let table = "CREATE TABLE numbers (n INTEGER)";
        db.write(move |tx| tx.batch(table)).await.unwrap();
        let [a, b, c, d] = all;
        let work = async {
            tokio::join!(
                work(&db, &tenant, 1, a),
                work(&db, &tenant, 2, b),
                work(&db, &tenant, 3, c),
                work(&db, &tenant, 4, d),
            )
        };
        let done = together(&db, work).await;
        let found = db.read(|tx| {
            tx.query("SELECT n FROM numbers ORDER BY rowid", params![], |row| {
                row.int(0)
            })
        });
        let found = found.await.unwrap();
        db.close().await;
        (done.into(), found)
    }

    #[tokio::test]
    async fn a_closure_that_fails_halfway_harms_none_of_its_neighbours() {
        for halfway in [Does::AddsAndFails, Does::Panics] {
            let (done, found) =
                numbers([Does::Adds, halfway, Does::Adds, Does::AddsAndFails]).await;
            assert_eq!(found, [1, 3], "{halfway:?}");
            // Who came after it ran only once, with a savepoint where that was needed.
            assert_eq!(
                done,
                [(true, 2), (false, 2), (true, 1), (false, 1)],
                "{halfway:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_closure_that_changed_nothing_makes_nobody_run_again() {
        let (done, found) = numbers([Does::Adds, Does::Fails, Does::Adds, Does::Fails]).await;
        assert_eq!(found, [1, 3]);
        assert_eq!(done, [(true, 1), (false, 1), (true, 1), (false, 1)]);
    }

    #[tokio::test]
    async fn a_closure_that_runs_once_is_not_undone_for_another() {
        let all = [Does::Adds, Does::AddsOnce, Does::AddsAndFails, Does::Adds];
        let (done, found) = numbers(all).await;
        assert_eq!(found, [1, 2, 4]);
        assert_eq!(done, [(true, 1), (true, 1), (false, 1), (true, 1)]);
        // It comes after one that must begin anew.
        let all = [Does::Adds, Does::AddsAndFails, Does::AddsOnce, Does::Adds];
        let (done, found) = numbers(all).await;
        assert_eq!(found, [1, 3, 4]);
        assert_eq!(done, [(true, 2), (false, 2), (true, 1), (true, 1)]);
    }
}
