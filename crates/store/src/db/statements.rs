//! SQLite's prepared statements, found by how they are written here.
//!
//! A small statement runs in about as many instructions as it takes to make its text, or to find it by its
//! text in `rusqlite`'s own cache, which hashes it twice and keeps an order of use. So one look finds both.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rusqlite::{Connection, PrepFlags, Statement};
use self_cell::self_cell;

use super::sql::{Form, for_sqlite};

/// Statements kept for a connection; the store has fewer.
const MOST: usize = 512;

self_cell!(
    /// A connection with the statements that were prepared on it.
    pub(super) struct Prepared {
        owner: Connection,
        #[not_covariant]
        dependent: Statements,
    }
);

/// The statements of one connection.
struct Statements<'c>(RefCell<Kept<'c>>);

#[derive(Default)]
struct Kept<'c> {
    /// Where a statement's variants are, by their numbers of rows.
    places: HashMap<Box<str>, Vec<(usize, usize)>, BuildHasherDefault<Quick>>,
    statements: Vec<Statement<'c>>,
    #[cfg(test)]
    texts: Vec<String>,
}

impl Prepared {
    pub(super) fn on(conn: Connection) -> Self {
        Self::new(conn, |_| Statements(RefCell::default()))
    }

    pub(super) fn conn(&self) -> &Connection {
        self.borrow_owner()
    }

    /// Lends the statement, which is prepared where it is not yet. It is given back with nothing bound.
    pub(super) fn with<R>(
        &self,
        sql: &str,
        form: Form<'_>,
        work: impl FnOnce(&mut Statement<'_>) -> R,
    ) -> Result<R, rusqlite::Error> {
        self.with_dependent(|conn, statements| {
            let mut kept = statements.0.borrow_mut();
            let place = kept.place(conn, sql, form)?;
            let statement = &mut kept.statements[place];
            let done = work(statement);
            statement.clear_bindings();
            Ok(done)
        })
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.with_dependent(|_, statements| statements.0.take());
    }

    /// The statements' texts, as SQLite got them.
    #[cfg(test)]
    pub(super) fn texts(&self) -> Vec<String> {
        self.with_dependent(|_, statements| statements.0.borrow().texts.clone())
    }

    /// How often a statement was planned anew since it was prepared.
    #[cfg(test)]
    pub(super) fn replanned(&self, text: &str) -> i32 {
        self.with_dependent(|_, statements| {
            let kept = statements.0.borrow();
            let place = kept.texts.iter().position(|one| one == text);
            place.map_or(0, |place| {
                kept.statements[place].get_status(rusqlite::StatementStatus::RePrepare)
            })
        })
    }
}

impl<'c> Kept<'c> {
    fn place(
        &mut self,
        conn: &'c Connection,
        sql: &str,
        form: Form<'_>,
    ) -> Result<usize, rusqlite::Error> {
        let count = match form {
            Form::Plain => 0,
            Form::Rows(_, count, _) => count,
        };
        let known = self.places.get(sql);
        let known = known.and_then(|all| all.iter().find(|(rows, _)| *rows == count));
        if let Some((_, place)) = known {
            return Ok(*place);
        }
        if self.statements.len() >= MOST {
            *self = Self::default();
        }
        let text = for_sqlite(sql, form);
        let flags = PrepFlags::SQLITE_PREPARE_PERSISTENT;
        self.statements.push(conn.prepare_with_flags(&text, flags)?);
        #[cfg(test)]
        self.texts.push(text);
        let place = self.statements.len() - 1;
        let variants = self.places.entry(sql.into()).or_default();
        variants.push((count, place));
        Ok(place)
    }
}

/// A hash for our own statements, which nobody chooses to collide.
#[derive(Default)]
struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: [u8; 8]) {
        let mixed = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        self.0 = mixed.wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(*word);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(word);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome<R> = Result<R, rusqlite::Error>;

    fn prepared() -> Prepared {
        Prepared::on(Connection::open_in_memory().unwrap())
    }

    /// The first value of the first row.
    fn first(statement: &mut Statement<'_>) -> Outcome<Option<i64>> {
        statement.raw_query().next()?.unwrap().get(0)
    }

    #[test]
    fn a_statement_is_prepared_once_for_each_number_of_rows() {
        let prepared = prepared();
        for count in [1, 2, 2, 1, 2] {
            let form = Form::Rows("(?)", count, 1);
            let rows = prepared.with("SELECT COUNT(*) FROM (VALUES {})", form, first);
            assert_eq!(rows.unwrap().unwrap(), i64::try_from(count).ok());
        }
        assert_eq!(prepared.texts().len(), 2);
    }

    #[test]
    fn a_statement_comes_back_with_nothing_bound() {
        let prepared = prepared();
        let bound = prepared.with("SELECT $1", Form::Plain, |statement| {
            statement.raw_bind_parameter(1, 7)?;
            first(statement)
        });
        assert_eq!(bound.unwrap().unwrap(), Some(7));
        let unbound = prepared.with("SELECT $1", Form::Plain, first);
        assert_eq!(unbound.unwrap().unwrap(), None);
    }

    #[test]
    fn a_statement_that_failed_works_again() {
        let prepared = prepared();
        let select = "SELECT CASE WHEN $1 THEN abs(-9223372036854775808) ELSE 1 END";
        for fails in [false, true, false] {
            let done = prepared.with(select, Form::Plain, |statement| {
                statement.raw_bind_parameter(1, fails)?;
                first(statement)
            });
            assert_eq!(done.unwrap().is_err(), fails);
        }
        let wrong = prepared.with("SELECT nothing", Form::Plain, first);
        assert!(wrong.is_err());
        assert_eq!(prepared.texts().len(), 1);
    }

    #[test]
    fn more_than_it_keeps_are_prepared_anew() {
        let prepared = prepared();
        for _ in 0..2 {
            for n in 0..MOST + 9 {
                let found = prepared.with(&format!("SELECT {n}"), Form::Plain, first);
                assert_eq!(found.unwrap().unwrap(), i64::try_from(n).ok());
            }
        }
        assert!(prepared.texts().len() <= MOST);
    }
}
