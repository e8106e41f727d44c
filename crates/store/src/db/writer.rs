//! SQLite's threads: one writer with group commit, and readers.
//!
//! The writer takes every closure that waits, runs each in a savepoint of its own, commits once, and
//! answers each after the commit. So one flush to the disk serves up to `group_max` callers, a closure
//! that fails harms none of its neighbours, and nobody hears of success before it is durable (MP-1).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{self, Receiver};

use super::job::{Job, Message};
use super::sqlite::{SqliteConn, is_memory, path_of};
use super::tx::{Conn, Tx};
use super::{DbOptions, Threads, spawn};
use crate::error::StoreError;
use crate::seal::Sealer;

/// Opens the connections, so that a bad path fails here, and starts the threads.
pub(super) fn start(options: &DbOptions, sealer: &Sealer) -> Result<Threads, StoreError> {
    let path = path_of(&options.url)?;
    let (writer, queue) = mpsc::channel(options.queue_max.max(1));
    let mut thread = Writer {
        conn: SqliteConn::open(path, options)?,
        sealer: sealer.clone(),
        group_max: options.group_max.max(1),
    };
    let mut readers = Vec::new();
    // A database in memory belongs to one connection, so the writer reads as well.
    if !is_memory(path) {
        for _ in 0..options.readers.max(1) {
            let conn = SqliteConn::open(path, options)?;
            conn.refuse_writes()?;
            readers.push(conn);
        }
    }
    let mut handles = vec![spawn("db-writer".into(), move || thread.run(queue))?];
    if readers.is_empty() {
        return Ok(Threads {
            reader: writer.clone(),
            writer,
            handles,
        });
    }
    let (reader, queue) = mpsc::channel(options.queue_max.max(1));
    let queue = Arc::new(Mutex::new(queue));
    for (number, conn) in readers.into_iter().enumerate() {
        let (queue, sealer) = (Arc::clone(&queue), sealer.clone());
        handles.push(spawn(format!("db-reader-{number}"), move || {
            read(&conn, &sealer, &queue);
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
}

impl Writer {
    fn run(&mut self, mut queue: Receiver<Message>) {
        let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(self.group_max);
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Run(job) => group.push(job),
                    // What was sent before is still served, then `blocking_recv` gives nothing.
                    Message::Stop => queue.close(),
                }
                if group.len() < self.group_max {
                    next = queue.try_recv().ok();
                }
            }
            self.commit(&mut group);
        }
    }

    /// Runs and answers every job; more than one transaction when SQLite ends one by itself.
    fn commit(&mut self, group: &mut Vec<Box<dyn Job>>) {
        let mut waiting = std::mem::take(group).into_iter();
        while waiting.len() > 0 {
            let mut done = Vec::with_capacity(waiting.len());
            let ended = self.transaction(&mut waiting, &mut done);
            for job in done {
                job.finish(ended.as_ref().map_err(again).copied());
            }
        }
    }

    fn transaction(
        &self,
        waiting: &mut std::vec::IntoIter<Box<dyn Job>>,
        done: &mut Vec<Box<dyn Job>>,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.conn.control("BEGIN IMMEDIATE") {
            done.extend(waiting);
            return Err(error);
        }
        for mut job in waiting {
            let kept = self.savepoint(&mut *job);
            done.push(job);
            kept?;
        }
        self.conn
            .control("COMMIT")
            .inspect_err(|_| self.roll_back())
    }

    /// An error here concerns every job of the transaction, since it is gone.
    fn savepoint(&self, job: &mut dyn Job) -> Result<(), StoreError> {
        let lost = |error| {
            self.roll_back();
            error
        };
        self.conn.control("SAVEPOINT job").map_err(lost)?;
        let keep = job.run(&mut Tx::new(Conn::Sqlite(&self.conn), &self.sealer));
        if self.conn.is_idle() {
            // SQLite ends the whole transaction by itself when the disk is full or fails.
            return Err(job.failure().map_or(StoreError::Busy, again));
        }
        if !keep {
            self.conn.control("ROLLBACK TO job").map_err(lost)?;
        }
        self.conn.control("RELEASE job").map_err(lost)
    }

    fn roll_back(&self) {
        if !self.conn.is_idle()
            && let Err(error) = self.conn.control("ROLLBACK")
        {
            tracing::error!(error = %error, "rolling back failed");
        }
    }
}

fn read(conn: &SqliteConn, sealer: &Sealer, queue: &Mutex<Receiver<Message>>) {
    while let Some(mut job) = next(queue) {
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

/// The next job of a queue that several threads share.
pub(super) fn next(queue: &Mutex<Receiver<Message>>) -> Option<Box<dyn Job>> {
    loop {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.blocking_recv()? {
            Message::Run(job) => return Some(job),
            Message::Stop => queue.close(),
        }
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
