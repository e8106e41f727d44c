//! A transaction: one type over both databases, so that a store function is plain synchronous code.
//!
//! Statements use `$1…`, are prepared once and cached. A statement that fails dooms the transaction, on
//! SQLite too: PostgreSQL would turn the commit into a silent rollback. Only this crate runs statements.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use wagate_domain::{FencingToken, SessionId, SessionName, plant};

use super::dialect::{Dialect, Lock};
use super::postgres::PgConn;
use super::sql::{Form, pad_to_step, steps, values};
use super::sqlite::SqliteConn;
use super::value::{Row, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::messages::{self, Counts};
use crate::outbox::{self, Pending};
use crate::seal::Sealer;

/// Rows that one statement names at most (`IN`, `UPDATE … FROM`).
const CHUNK: usize = 128;

/// An open transaction, handed to the closures of [`crate::Db::write`] and [`crate::Db::read`].
pub struct Tx<'c> {
    conn: Conn<'c>,
    sealer: &'c Sealer,
    /// The leases that this transaction found valid. PostgreSQL holds their row locks until the end.
    fenced: Vec<(SessionId, FencingToken, SessionName)>,
    /// Events to write when the closure ends, so that the sequence's lock is held for the shortest time.
    pub(crate) events: Vec<Pending>,
    /// What to add to sessions' counters, written at the end as well.
    pub(crate) counts: BTreeMap<SessionId, Counts>,
    /// Other closures share the transaction, and their events are written together at its end.
    shares: bool,
    doomed: bool,
}

pub(super) enum Conn<'c> {
    Sqlite(&'c SqliteConn),
    Postgres(&'c mut PgConn),
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("dialect", &self.dialect())
            .finish_non_exhaustive()
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(conn: Conn<'c>, sealer: &'c Sealer) -> Self {
        Self {
            conn,
            sealer,
            fenced: Vec::new(),
            events: Vec::new(),
            counts: BTreeMap::new(),
            shares: false,
            doomed: false,
        }
    }

    /// For one of several closures in one transaction: whoever commits it writes [`Self::events`].
    pub(super) fn sharing(conn: Conn<'c>, sealer: &'c Sealer) -> Self {
        Self {
            shares: true,
            ..Self::new(conn, sealer)
        }
    }

    /// What is asked of this database for the same tenant from now on is done after this transaction,
    /// so whoever is to go on with its work may be told before the commit: SQLite has one writer, and a
    /// tenant's transactions keep their order there.
    pub fn is_in_order(&self) -> bool {
        self.dialect() == Dialect::Sqlite
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.conn {
            Conn::Sqlite(_) => Dialect::Sqlite,
            Conn::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(crate) fn sealer(&self) -> &'c Sealer {
        self.sealer
    }

    /// Runs a statement and says how many rows it changed.
    pub(crate) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let result = match &mut self.conn {
            Conn::Sqlite(conn) => conn.execute(sql, Form::Plain, values),
            Conn::Postgres(conn) => conn.execute(sql, values),
        };
        self.note(result)
    }

    /// Runs a statement and reads every row of its answer.
    pub(crate) fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let result = match &mut self.conn {
            Conn::Sqlite(conn) => conn.query(sql, values, read),
            Conn::Postgres(conn) => conn.query(sql, values, read),
        };
        self.note(result)
    }

    /// The first row, if there is one.
    pub(crate) fn query_opt<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.query(sql, values, read)?.into_iter().next())
    }

    /// The row of a statement that always has one.
    pub(crate) fn query_one<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.query_opt(sql, values, read)?
            .ok_or_else(|| StoreError::corrupt("an empty answer"))
    }

    /// SQLite: the number of the row that was inserted last, on this connection.
    pub(crate) fn last_insert_id(&self) -> Result<i64, StoreError> {
        match &self.conn {
            Conn::Sqlite(conn) => Ok(conn.last_insert_id()),
            Conn::Postgres(_) => Err(StoreError::Sql("PostgreSQL returns ids".into())),
        }
    }

    /// Several statements with no parameters: migrations only.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        let result = match &mut self.conn {
            Conn::Sqlite(conn) => conn.batch(sql),
            Conn::Postgres(conn) => conn.batch(sql),
        };
        self.note(result)
    }

    pub(crate) fn locked<'s>(&self, sql: &'s str, lock: Lock) -> Cow<'s, str> {
        self.dialect().locked(sql, lock)
    }

    /// Inserts rows of `arity` values each: `head VALUES (…), (…) tail`.
    pub(crate) fn insert_rows(
        &mut self,
        head: &str,
        arity: usize,
        tail: &str,
        rows: &[Vec<Value<'_>>],
    ) -> Result<u64, StoreError> {
        let sql = format!("{head} VALUES {{}} {tail}");
        let template = placeholders(arity);
        let mut inserted = 0;
        for step in steps(rows) {
            let flat: Vec<Value<'_>> = step.iter().flatten().cloned().collect();
            let form = Form::Rows(&template, step.len(), 1);
            let result = match &mut self.conn {
                Conn::Sqlite(conn) => conn.execute(&sql, form, &flat),
                Conn::Postgres(conn) => {
                    let list = values(&template, step.len(), 1);
                    conn.execute(&sql.replace("{}", &list), &flat)
                }
            };
            inserted += self.note(result)?;
        }
        Ok(inserted)
    }

    /// Runs a statement about many keys: `{}` in `sql` becomes a list of placeholders for them, numbered
    /// after `fixed`. Keys may be named twice, so the statement must not mind.
    pub(crate) fn query_keys<T>(
        &mut self,
        sql: &str,
        fixed: &[Value<'_>],
        keys: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.query_rows(sql, fixed, ("?", 1), keys, read)
    }

    /// As [`Self::query_keys`] with rows of several values; the template shows one row, such as
    /// `(CAST(? AS TEXT), ?)`, and its number of values.
    pub(crate) fn query_rows<T>(
        &mut self,
        sql: &str,
        fixed: &[Value<'_>],
        (template, arity): (&str, usize),
        rows: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let result = match &mut self.conn {
            Conn::Sqlite(conn) => conn.query_each(sql, fixed, (template, arity), rows, read),
            Conn::Postgres(conn) => {
                rows.chunks(CHUNK * arity)
                    .try_fold(Vec::new(), |mut answers, chunk| {
                        let (sql, all) = about_many(sql, fixed, (template, arity), chunk);
                        answers.extend(conn.query(&sql, &all, &mut read)?);
                        Ok(answers)
                    })
            }
        };
        self.note(result)
    }

    /// As [`Self::query_rows`] for statements with no answer.
    pub(crate) fn execute_rows(
        &mut self,
        sql: &str,
        fixed: &[Value<'_>],
        (template, arity): (&str, usize),
        rows: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let result = match &mut self.conn {
            Conn::Sqlite(conn) => conn.execute_each(sql, fixed, (template, arity), rows),
            Conn::Postgres(conn) => rows.chunks(CHUNK * arity).try_fold(0, |sum, chunk| {
                let (sql, all) = about_many(sql, fixed, (template, arity), chunk);
                Ok(sum + conn.execute(&sql, &all)?)
            }),
        };
        self.note(result)
    }

    /// Checks that the lease is still the session's newest grant, and keeps it so until the transaction
    /// ends (SL-1). Every write on behalf of a worker begins with this. Gives the session's name.
    pub(crate) fn fence(&mut self, lease: &Lease) -> Result<SessionName, StoreError> {
        let known = self
            .fenced
            .iter()
            .find(|f| f.0 == lease.session && f.1 == lease.token);
        if let Some((_, _, name)) = known {
            return Ok(name.clone());
        }
        let sql = self.locked(
            "SELECT s.name FROM leases l JOIN sessions s ON s.id = l.session_id \
             WHERE l.session_id = $1 AND l.tenant_id = $2 AND l.token = $3 \
             AND l.worker_id IS NOT NULL",
            Lock::UpdateOf("l"),
        );
        let sql = if plant::is("no_fencing") {
            Cow::Owned(sql.replace("l.token = $3", "l.token >= $3"))
        } else {
            sql
        };
        let values = params![&lease.session, &lease.tenant, lease.token];
        let name: Option<SessionName> = self.query_opt(&sql, values, |row| row.parse(0))?;
        let name = name.ok_or(StoreError::LeaseLost)?;
        self.fenced
            .push((lease.session.clone(), lease.token, name.clone()));
        Ok(name)
    }

    /// Ends the closure's part: writes the counters and events that wait for it, and refuses to commit after a failed
    /// statement.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        if self.doomed {
            return Err(StoreError::Sql(
                "a statement failed and its error was dropped".into(),
            ));
        }
        messages::flush_counts(self)?;
        if self.shares {
            return Ok(());
        }
        outbox::flush(self)
    }

    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.doomed |= result.is_err();
        result
    }
}

/// A statement about many rows at once, and its values.
fn about_many<'v>(
    sql: &str,
    fixed: &[Value<'v>],
    (template, arity): (&str, usize),
    rows: &[Value<'v>],
) -> (String, Vec<Value<'v>>) {
    let padded = pad_to_step(rows.to_vec(), arity);
    let list = values(template, padded.len() / arity, fixed.len() + 1);
    let all = fixed.iter().cloned().chain(padded).collect();
    (sql.replace("{}", &list), all)
}

/// `(?, ?, …)` with `arity` places.
fn placeholders(arity: usize) -> String {
    let places = vec!["?"; arity];
    format!("({})", places.join(", "))
}
