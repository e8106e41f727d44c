//! What serde says about a value, in words for people who do not know Rust.
//!
//! serde names its own types (`u64`, `struct SendIn`); a caller wants to know which field is wrong and
//! what it should be. What our own types say about a value passes as it is.

/// What is wrong with a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The field, where the complaint itself names it: missing, unknown or repeated.
    pub(super) field: Option<String>,
    /// A sentence whose subject is the field.
    pub(super) sentence: String,
}

/// Reads a complaint of serde, as of a JSON body or of a query.
pub(super) fn complaint(text: &str) -> Complaint {
    if let Some((field, _)) = quoted_after(text, "missing field ") {
        return named(field, "is missing".to_owned());
    }
    if let Some((field, _)) = quoted_after(text, "duplicate field ") {
        return named(field, "is there more than once".to_owned());
    }
    if let Some((field, rest)) = quoted_after(text, "unknown field ") {
        let known = words(rest);
        let sentence = if known.is_empty() {
            "is not known here".to_owned()
        } else {
            format!("is not known here; known: {}", known.join(", "))
        };
        return named(field, sentence);
    }
    Complaint {
        field: None,
        sentence: about_the_value(text),
    }
}

fn named(field: &str, sentence: String) -> Complaint {
    Complaint {
        field: Some(field.to_owned()),
        sentence,
    }
}

fn about_the_value(text: &str) -> String {
    if let Some((_, rest)) = quoted_after(text, "unknown variant ") {
        return format!("must be one of: {}", words(rest).join(", "));
    }
    for start in ["invalid type: ", "invalid value: "] {
        let Some(rest) = text.strip_prefix(start) else {
            continue;
        };
        // The value comes first, and may say anything; what is wanted comes last.
        if let Some((found, expected)) = rest.rsplit_once(", expected ") {
            return match found_word(found) {
                Some(found) => format!("must be {}, not {found}", wanted(expected)),
                None => format!("must be {}", wanted(expected)),
            };
        }
    }
    match text {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            format!("must be {WHOLE_NUMBER}")
        }
        "number too large to fit in target type" => "is too large".to_owned(),
        "number too small to fit in target type" => "is too small".to_owned(),
        "provided string was not `true` or `false`" => "must be true or false".to_owned(),
        other => format!("is refused: {other}"),
    }
}

const WHOLE_NUMBER: &str = "a whole number, 0 or more";

fn wanted(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => WHOLE_NUMBER,
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other if other.starts_with("enum ") || other == "a borrowed string" => "a string",
        other => other,
    }
}

/// The kind of a value that came; nothing where what is wanted says it better.
fn found_word(found: &str) -> Option<&'static str> {
    match found.split(' ').next()? {
        "string" => Some("a string"),
        "boolean" => Some("a boolean"),
        "null" => Some("null"),
        "sequence" => Some("a list"),
        "map" => Some("an object"),
        "floating" => Some("a number with a fraction"),
        _ => None,
    }
}

/// Splits what follows `start` into the quoted word there and the rest.
fn quoted_after<'t>(text: &'t str, start: &str) -> Option<(&'t str, &'t str)> {
    text.strip_prefix(start)?.strip_prefix('`')?.split_once('`')
}

/// The quoted words of a list such as "expected one of `a`, `b`".
fn words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(text: &str, field: Option<&str>, sentence: &str) {
        let found = complaint(text);
        assert_eq!(
            (found.field.as_deref(), found.sentence.as_str()),
            (field, sentence)
        );
    }

    #[test]
    fn wrong_types_are_told_in_the_callers_words() {
        let number = "must be a whole number, 0 or more";
        let text = format!("{number}, not a string");
        says("invalid type: string \"5\", expected u64", None, &text);
        // A value may say anything.
        let sly = "invalid type: string \"x, expected f64\", expected u32";
        says(sly, None, &text);
        says("invalid value: integer `-1`, expected u64", None, number);
        let fraction = "invalid type: floating point `1.5`, expected u64";
        says(
            fraction,
            None,
            &format!("{number}, not a number with a fraction"),
        );
        says(
            "invalid type: integer `5`, expected a string",
            None,
            "must be a string",
        );
        says(
            "invalid type: map, expected a string",
            None,
            "must be a string, not an object",
        );
        says(
            "invalid type: sequence, expected struct SendIn",
            None,
            "must be an object, not a list",
        );
        says(
            "invalid type: integer `1`, expected enum MethodWord",
            None,
            "must be a string",
        );
        says("invalid digit found in string", None, number);
        says(
            "number too large to fit in target type",
            None,
            "is too large",
        );
    }

    #[test]
    fn fields_that_serde_names_are_found() {
        says("missing field `to`", Some("to"), "is missing");
        says(
            "duplicate field `to`",
            Some("to"),
            "is there more than once",
        );
        says(
            "unknown field `x`, expected one of `limit`, `cursor`",
            Some("x"),
            "is not known here; known: limit, cursor",
        );
        says(
            "unknown field `x`, expected `wait`",
            Some("x"),
            "is not known here; known: wait",
        );
        says(
            "unknown field `x`, there are no fields",
            Some("x"),
            "is not known here",
        );
        says(
            "unknown variant `x`, expected `qr` or `code`",
            None,
            "must be one of: qr, code",
        );
    }

    #[test]
    fn what_our_own_types_say_is_kept() {
        says(
            "a name has 1 to 64 characters",
            None,
            "is refused: a name has 1 to 64 characters",
        );
    }
}
