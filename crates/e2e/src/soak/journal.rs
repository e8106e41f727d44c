//! What clients and phones did and were told, and what the harness broke meanwhile: the client's side of
//! the evidence. Times are milliseconds since the Unix epoch by the network's clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::plan::{Priority, Wish};

/// Attempts of one request that are kept; later ones are counted.
const ATTEMPTS_MAX: usize = 2_000;

/// Moves of clocks that the next round knows of.
const SHIFTS_KEPT: usize = 8;

/// One request to send, with all its attempts.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The text: unique, so that a screen that shows it shows this request.
    pub marker: String,
    pub session: usize,
    pub contact: usize,
    pub priority: Priority,
    /// The key was used before for another text: it must be refused.
    pub reused_key: bool,
    pub wish: Wish,
    /// Not to be sent before.
    pub send_at: Option<i64>,
    pub attempts: Vec<Attempt>,
    pub end: End,
    /// It was withdrawn, and this is what was answered.
    pub withdrawal: Option<Withdrawal>,
}

/// What became of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    Canceled,
    /// It had failed or expired, and is gone.
    Deleted,
    TooLate,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Nobody knows: no attempt was answered.
    #[default]
    Open,
    /// Accepted as this message.
    Accepted(String),
    /// Refused for good.
    Refused { status: u16, code: String },
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub from: i64,
    pub to: i64,
    pub gateway: usize,
    pub answer: Answer,
}

/// What an attempt came back with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The client hung up by itself.
    Cut,
    /// No answer came.
    Nothing(String),
    Http {
        status: u16,
        code: Option<String>,
        retry_after: bool,
        /// The message's id, where the answer names one.
        message: Option<String>,
        /// It was withdrawn, and is gone altogether.
        deleted: bool,
        text: String,
    },
}

/// What a phone wrote to the owner of a session.
#[derive(Clone, Debug)]
pub struct Written {
    pub marker: String,
    pub session: usize,
    pub contact: usize,
    pub wa_id: String,
}

/// A time in which something was broken on purpose.
#[derive(Clone, Debug)]
pub struct Window {
    pub what: Broken,
    pub from: i64,
    /// Open until the end when `None`.
    pub to: Option<i64>,
}

/// A gateway's clock is so far ahead from now on.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    pub gateway: usize,
    pub at: i64,
    pub ahead: i64,
}

/// What is broken in a [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A gateway is dead, dying, starting or asleep.
    Gateway(usize),
    /// The same, asleep: it holds what it held.
    Asleep(usize),
    /// The database is away, locked or full.
    Database,
}

/// One round's records.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub requests: Vec<Request>,
    pub written: Vec<Written>,
    pub windows: Vec<Window>,
    pub shifts: Vec<Shift>,
    /// Other calls that a client made: steering sessions.
    pub calls: Vec<Attempt>,
    /// What happened and must not.
    pub mishaps: Vec<String>,
    pub faults: BTreeMap<String, u64>,
    pub kills: u64,
}

/// The journal, shared by everybody who writes it.
#[derive(Debug, Default)]
pub struct Book(Mutex<Journal>);

impl Book {
    pub fn open(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new round; gives the old one's records. Windows that are open stay open.
    pub fn turn(&self) -> Journal {
        let mut open = self.open();
        let windows = open.windows.iter().filter(|window| window.to.is_none());
        // The last moves of the clocks may still be about.
        let shifts = open.shifts.len().saturating_sub(SHIFTS_KEPT);
        let next = Journal {
            windows: windows.cloned().collect(),
            shifts: open.shifts[shifts..].to_vec(),
            ..Journal::default()
        };
        std::mem::replace(&mut *open, next)
    }

    /// Notes a request; gives its place.
    pub fn request(&self, request: Request) -> usize {
        let mut open = self.open();
        open.requests.push(request);
        open.requests.len() - 1
    }

    pub fn attempt(&self, at: usize, attempt: Attempt) {
        if let Some(request) = self.open().requests.get_mut(at)
            && request.attempts.len() < ATTEMPTS_MAX
        {
            request.attempts.push(attempt);
        }
    }

    pub fn end(&self, at: usize, end: End) {
        if let Some(request) = self.open().requests.get_mut(at) {
            request.end = end;
        }
    }

    pub fn withdrawn(&self, at: usize, how: Withdrawal) {
        if let Some(request) = self.open().requests.get_mut(at) {
            request.withdrawal = Some(how);
        }
    }

    pub fn fault(&self, name: &str) {
        *self.open().faults.entry(name.to_owned()).or_default() += 1;
    }

    pub fn mishap(&self, text: String) {
        self.open().mishaps.push(text);
    }

    pub fn broken(&self, what: Broken, from: i64) {
        self.open().windows.push(Window {
            what,
            from,
            to: None,
        });
    }

    /// Ends the open windows of this kind.
    pub fn mended(&self, what: Broken, at: i64) {
        for window in &mut self.open().windows {
            if window.what == what && window.to.is_none() {
                window.to = Some(at);
            }
        }
    }
}
