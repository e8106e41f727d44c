//! Keyset pages: a cursor names the last row seen, so that page 1,000 costs what page 1 costs.

use wagate_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};

/// Which rows of a list are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Rows at most; 0 means the default. Clamped to `PAGE_ROWS_MAX`.
    pub limit: u32,
    /// `next` of the page before.
    pub after: Option<String>,
    /// Rows to skip, for the dialects that page by offset. Costs what it skips.
    pub offset: u32,
}

/// Some rows of a list, and where the next ones begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; none on the last.
    pub next: Option<String>,
}

impl PageRequest {
    pub fn first(limit: u32) -> Self {
        Self {
            limit,
            after: None,
            offset: 0,
        }
    }

    pub(crate) fn rows(&self) -> u32 {
        match self.limit {
            0 => PAGE_ROWS_DEFAULT,
            limit => limit.min(PAGE_ROWS_MAX),
        }
    }

    /// One row more than wanted is read, to know whether there is a next page.
    pub(crate) fn sql_limit(&self) -> i64 {
        i64::from(self.rows()) + 1
    }
}

impl<T> Page<T> {
    pub(crate) fn of(mut rows: Vec<T>, request: &PageRequest, key: impl Fn(&T) -> String) -> Self {
        let wanted = usize::try_from(request.rows()).unwrap_or(usize::MAX);
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let next = if more { rows.last().map(key) } else { None };
        Self { items: rows, next }
    }
}
