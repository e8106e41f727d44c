//! The few real differences between the two databases; everything else is one set of statements.

use std::borrow::Cow;

use crate::error::StoreError;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// A row lock that a `SELECT` takes on PostgreSQL. SQLite has one writer and needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Nobody else may change the rows until the transaction ends.
    Update,
    /// As `Update` for the first table only; rows that somebody else holds are left out.
    UpdateSkip(&'static str),
    /// As `Update` for the named table only.
    UpdateOf(&'static str),
    /// Nobody may delete the rows; changing them is allowed.
    KeyShare,
}

impl Dialect {
    pub(crate) fn of(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            Ok(Self::Sqlite)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self::Postgres)
        } else {
            let text = "the database URL must begin with sqlite: or postgres://";
            Err(StoreError::Options(text.into()))
        }
    }

    /// The statement with the lock's words behind it, where the database has them.
    pub(crate) fn locked(self, sql: &str, lock: Lock) -> Cow<'_, str> {
        match (self, lock) {
            (Self::Sqlite, _) => Cow::Borrowed(sql),
            (Self::Postgres, Lock::Update) => Cow::Owned(format!("{sql} FOR UPDATE")),
            (Self::Postgres, Lock::UpdateOf(table)) => {
                Cow::Owned(format!("{sql} FOR UPDATE OF {table}"))
            }
            (Self::Postgres, Lock::UpdateSkip(table)) => {
                Cow::Owned(format!("{sql} FOR UPDATE OF {table} SKIP LOCKED"))
            }
            (Self::Postgres, Lock::KeyShare) => Cow::Owned(format!("{sql} FOR KEY SHARE")),
        }
    }

    /// Fills a migration's `{…}` words.
    pub(crate) fn render(self, template: &str) -> String {
        let words = match self {
            Self::Sqlite => [
                ("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
                ("{bytes}", "BLOB"),
                // Exactly this word makes a primary key the row's own number.
                ("{int}", "INTEGER"),
                // Compared byte by byte, as SQLite does anyway.
                ("{id}", "TEXT"),
                ("{clustered}", "WITHOUT ROWID"),
            ],
            Self::Postgres => [
                (
                    "{serial}",
                    "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                ),
                ("{bytes}", "BYTEA"),
                ("{int}", "BIGINT"),
                ("{id}", "TEXT COLLATE \"C\""),
                ("{clustered}", ""),
            ],
        };
        words.iter().fold(template.to_owned(), |text, (from, to)| {
            text.replace(from, to)
        })
    }

    /// Whether the table that records the migrations is there.
    pub(crate) fn has_migrations_table(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' \
                 AND name = 'schema_migrations'"
            }
            Self::Postgres => {
                "SELECT COUNT(*) FROM pg_catalog.pg_class \
                 WHERE oid = to_regclass('schema_migrations')"
            }
        }
    }

    /// What makes migrating processes wait for each other. SQLite's writers exclude each other anyway.
    pub(crate) fn migration_lock(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            // A migration may take longer than any statement of the service, and so may the wait for it.
            Self::Postgres => Some(
                "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
                 SELECT pg_advisory_xact_lock(7713, hashtext(current_schema()))",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_dialect() {
        assert_eq!(Dialect::of("sqlite:/tmp/x.db").unwrap(), Dialect::Sqlite);
        assert_eq!(Dialect::of("postgres://u@h/d").unwrap(), Dialect::Postgres);
        assert!(matches!(
            Dialect::of("mysql://h"),
            Err(StoreError::Options(_))
        ));
    }
}
