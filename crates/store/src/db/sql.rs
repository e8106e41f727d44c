//! Statement texts with a varying number of rows, in few variants, so that each is prepared once.

use super::value::Value;

/// Most rows of one statement.
const ROWS_MAX: usize = 128;

/// Writes `count` rows of `VALUES`: each `?` of the template becomes the next `$n`, from `first` on.
pub(crate) fn values(template: &str, count: usize, first: usize) -> String {
    let mut text = String::with_capacity(count * (template.len() + 8));
    let mut next = first;
    for row in 0..count {
        if row > 0 {
            text.push_str(", ");
        }
        for part in template.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) => {
                    text.push_str(before);
                    text.push('$');
                    text.push_str(&next.to_string());
                    next += 1;
                }
                None => text.push_str(part),
            }
        }
    }
    text
}

/// Cuts rows into runs whose lengths are powers of two: any number of rows needs at most eight
/// different statements. For inserts, where a row must not come twice.
pub(crate) fn steps<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let step = ROWS_MAX.min(1 << rest.len().ilog2());
        let (head, tail) = rest.split_at(step);
        rest = tail;
        Some(head)
    })
}

/// Repeats the last row until the length is a power of two, for statements to which a repeated row
/// means nothing (`IN`, `UPDATE … FROM`). `rows` is `arity` values a row, `ROWS_MAX` rows at most.
pub(crate) fn pad_to_step<'a>(mut values: Vec<Value<'a>>, arity: usize) -> Vec<Value<'a>> {
    let rows = values.len() / arity;
    let wanted = rows.next_power_of_two();
    for _ in rows..wanted {
        let start = values.len() - arity;
        for column in 0..arity {
            let value = values[start + column].clone();
            values.push(value);
        }
    }
    values
}

/// What becomes of a statement's text before it is prepared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    /// It is complete.
    Plain,
    /// Its `{}` becomes so many rows of a template, numbered from a place on. One statement has one
    /// template and one first number.
    Rows(&'a str, usize, usize),
}

/// A statement as SQLite wants it (`?1`), from how it is written here (`$1`, `{}`).
pub(super) fn for_sqlite(sql: &str, form: Form<'_>) -> String {
    match form {
        Form::Plain => sql.replace('$', "?"),
        Form::Rows(template, count, first) => sql
            .replace("{}", &values(template, count, first))
            .replace('$', "?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_on() {
        assert_eq!(
            values("(?, CAST(? AS TEXT))", 2, 3),
            "($3, CAST($4 AS TEXT)), ($5, CAST($6 AS TEXT))"
        );
    }

    #[test]
    fn runs_are_powers_of_two_and_leave_nothing_out() {
        let rows: Vec<usize> = (0..300).collect();
        let runs: Vec<usize> = steps(&rows).map(<[usize]>::len).collect();
        assert_eq!(runs, [128, 128, 32, 8, 4]);
        assert_eq!(steps(&rows).flatten().count(), 300);
    }

    #[test]
    fn sqlite_gets_its_own_placeholders() {
        let insert = |count| for_sqlite("INSERT INTO t VALUES {}", Form::Rows("(?, ?)", count, 1));
        assert_eq!(insert(1), "INSERT INTO t VALUES (?1, ?2)");
        assert_eq!(insert(2), "INSERT INTO t VALUES (?1, ?2), (?3, ?4)");
        assert_eq!(for_sqlite("SELECT $1", Form::Plain), "SELECT ?1");
    }

    #[test]
    fn padding_repeats_whole_rows() {
        let padded = pad_to_step(vec![Value::Int(1), Value::Int(2), Value::Int(3)], 1);
        assert_eq!(
            padded,
            [Value::Int(1), Value::Int(2), Value::Int(3), Value::Int(3)]
        );
    }
}
