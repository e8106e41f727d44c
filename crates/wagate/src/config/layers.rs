//! Stacks the layers and reads typed values out of them, collecting every problem.
//!
//! figment merges and remembers where a value came from; [`Reader`] turns a value into the type that
//! a key wants. A reader never stops at the first problem: whoever fixes a configuration wants the
//! whole list. The compiled-in default file is the list of keys that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::aliases::{ALIASES, REFUSED};
use super::value::{parse_bytes, parse_duration, parse_switch, print_duration};

/// The compiled-in defaults: documented, complete, and the list of keys that exist.
pub const DEFAULT_FILE: &str = include_str!("../config.default.toml");

/// Where the settings come from, lowest first: the defaults (always), then these.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file that the operator named. It must exist.
    pub file: Option<PathBuf>,
    /// A file that is read when it exists (`wagate.toml` in the working folder).
    pub file_if_present: Option<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(String, String)>,
    /// `(key, value, flag)` from the command line, for example `("server.port", "0", "--port")`.
    pub flags: Vec<(String, String, String)>,
}

/// One thing wrong with the configuration: which key, which value, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

/// Everything wrong with the configuration, so that it can be put right in one go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  - {}", problem.0)?;
        }
        Ok(())
    }
}

/// One key with its effective value and where that came from.
#[derive(Debug, Clone)]
pub struct Effective {
    /// `section.key`.
    pub key: String,
    /// The value in TOML's words; masked for secrets.
    pub value: String,
    /// The layer that set it, for example `default`, `wagate.toml` or `environment variable PORT`.
    pub source: String,
}

/// Reads typed values from the merged layers and keeps the list of what is wrong.
pub(crate) struct Reader {
    figment: Figment,
    known: BTreeSet<String>,
    read: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) effective: Vec<Effective>,
}

impl Reader {
    /// Merges the layers. Problems of the layers themselves (a file that does not parse, an unknown
    /// key) are collected with the rest.
    pub(crate) fn new(layers: &Layers) -> Reader {
        let mut problems = Vec::new();
        let defaults = Toml::string(DEFAULT_FILE);
        let known = keys_of(&defaults).unwrap_or_default();
        let mut figment = Figment::new().merge(Named::new("default", defaults));

        for (path, required) in [(&layers.file_if_present, false), (&layers.file, true)] {
            let Some(path) = path else { continue };
            let named = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => match check_toml(&text) {
                    Ok(()) => {
                        figment = figment.merge(Named::new(&named, Toml::string(&text)));
                    }
                    Err(error) => problems.push(Problem(format!("{named}: {error}"))),
                },
                Err(error) if required || error.kind() != std::io::ErrorKind::NotFound => {
                    problems.push(Problem(format!("{named}: cannot be read: {error}")));
                }
                Err(_) => {}
            }
        }

        let (environment, found) = from_environment(&layers.environment);
        problems.extend(found);
        for (key, value, source) in environment.iter().chain(&layers.flags) {
            figment = figment.merge(Single { key, value, source });
        }

        let mut reader = Reader {
            figment,
            known,
            read: BTreeSet::new(),
            problems,
            effective: Vec::new(),
        };
        reader.refuse_unknown_keys();
        reader
    }

    /// Text, as it stands.
    pub(crate) fn text(&mut self, key: &str) -> String {
        let (text, source) = self.take(key);
        self.note(key, quoted(&text), source);
        text
    }

    /// Text that must never be shown.
    pub(crate) fn secret(&mut self, key: &str) -> String {
        let (text, source) = self.take(key);
        let shown = if text.is_empty() {
            quoted("")
        } else {
            quoted("********")
        };
        self.note(key, shown, source);
        text
    }

    /// A whole number within bounds.
    pub(crate) fn number<T>(&mut self, key: &str, allowed: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let (text, source) = self.take(key);
        match text.trim().parse::<T>() {
            Ok(number) if allowed.contains(&number) => {
                self.note(key, number.to_string(), source);
                number
            }
            _ => {
                let expected = format!(
                    "a whole number from {} to {}",
                    allowed.start(),
                    allowed.end()
                );
                self.refuse(key, &text, &source, &expected);
                *allowed.start()
            }
        }
    }

    /// A duration within bounds.
    pub(crate) fn duration(&mut self, key: &str, allowed: RangeInclusive<Duration>) -> Duration {
        let (text, source) = self.take(key);
        match parse_duration(&text) {
            Some(duration) if allowed.contains(&duration) => {
                self.note(key, quoted(&print_duration(duration)), source);
                duration
            }
            _ => {
                let expected = format!(
                    "a duration from {} to {}, written as 500ms, 10s, 5m, 2h or 7d",
                    print_duration(*allowed.start()),
                    print_duration(*allowed.end())
                );
                self.refuse(key, &text, &source, &expected);
                *allowed.start()
            }
        }
    }

    /// A size in bytes within bounds.
    pub(crate) fn bytes(&mut self, key: &str, allowed: RangeInclusive<u64>) -> u64 {
        let (text, source) = self.take(key);
        match parse_bytes(&text) {
            Some(bytes) if allowed.contains(&bytes) => {
                self.note(key, quoted(&text), source);
                bytes
            }
            _ => {
                let expected = format!(
                    "a size from {} to {} bytes, written as 4096, 64KiB, 1MiB or 2GiB",
                    allowed.start(),
                    allowed.end()
                );
                self.refuse(key, &text, &source, &expected);
                *allowed.start()
            }
        }
    }

    /// A switch.
    pub(crate) fn switch(&mut self, key: &str) -> bool {
        let (text, source) = self.take(key);
        if let Some(switch) = parse_switch(&text) {
            self.note(key, switch.to_string(), source);
            switch
        } else {
            self.refuse(key, &text, &source, "true or false");
            false
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let (text, source) = self.take(key);
        let found = choices.iter().find(|(word, _)| *word == text.trim());
        if let Some((word, choice)) = found {
            self.note(key, quoted(word), source);
            Some(*choice)
        } else {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(
                key,
                &text,
                &source,
                &format!("one of: {}", words.join(", ")),
            );
            None
        }
    }

    /// A list of words, in TOML an array, elsewhere separated by commas.
    pub(crate) fn list(&mut self, key: &str) -> Vec<String> {
        let (text, source) = self.take(key);
        let words: Vec<String> = text
            .split(',')
            .map(|w| w.trim().to_owned())
            .filter(|w| !w.is_empty())
            .collect();
        let shown: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.note(key, format!("[{}]", shown.join(", ")), source);
        words
    }

    /// Adds a problem that is not one key's own.
    pub(crate) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(Problem(text.into()));
    }

    /// Refuses a key's value in the usual words.
    pub(crate) fn refuse(&mut self, key: &str, value: &str, source: &str, allowed: &str) {
        self.problem(format!(
            "{key} = {} (from {source}): must be {allowed}",
            quoted(value)
        ));
    }

    /// Where a key's value came from.
    pub(crate) fn source(&self, key: &str) -> String {
        self.figment
            .find_metadata(key)
            .map_or_else(|| "nowhere".to_owned(), |m| m.name.to_string())
    }

    /// Keys of the default file that nothing has read: each would be a setting without effect.
    #[cfg(test)]
    pub(crate) fn unread(&self) -> Vec<String> {
        self.known.difference(&self.read).cloned().collect()
    }

    fn take(&mut self, key: &str) -> (String, String) {
        self.read.insert(key.to_owned());
        let source = self.source(key);
        let text = self
            .figment
            .find_value(key)
            .ok()
            .and_then(|value| text_of(&value));
        if text.is_none() {
            self.problem(format!(
                "{key} (from {source}): must be one value or a list of values"
            ));
        }
        (text.unwrap_or_default(), source)
    }

    fn note(&mut self, key: &str, value: String, source: String) {
        self.effective.push(Effective {
            key: key.to_owned(),
            value,
            source,
        });
    }

    fn refuse_unknown_keys(&mut self) {
        let mut found = BTreeSet::new();
        if let Ok(everything) = self.figment.find_value("") {
            collect_keys(&everything, "", &self.known, &mut found);
        }
        found.retain(|key| !self.known.contains(key));
        for key in found {
            let source = self.source(&key);
            let hint = match nearest(&key, &self.known) {
                Some(near) => format!("did you mean {near}?"),
                None => known_in_section(&key, &self.known),
            };
            self.problem(format!(
                "{key} (from {source}): there is no such key; {hint}"
            ));
        }
    }
}

/// Picks our keys and the aliases out of the environment, as `(key, value, source)`.
fn from_environment(
    environment: &[(String, String)],
) -> (Vec<(String, String, String)>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut chosen: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (name, why) in REFUSED {
        if environment.iter().any(|(n, v)| n == name && !v.is_empty()) {
            problems.push(Problem(format!("environment variable {name}: {why}")));
        }
    }
    for alias in ALIASES {
        // Platforms set some of these to nothing; that is the same as not setting them.
        let set = environment
            .iter()
            .find(|(n, v)| n == alias.name && !v.is_empty());
        if let Some((_, value)) = set {
            chosen.insert(alias.key.to_owned(), (value.clone(), alias.name.to_owned()));
        }
    }
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix("WAGATE_") else {
            continue;
        };
        let Some((section, key)) = rest.split_once("__") else {
            problems.extend(misspelt(name, rest));
            continue;
        };
        let key = format!(
            "{}.{}",
            section.to_ascii_lowercase(),
            key.to_ascii_lowercase()
        );
        if let Some((other, alias)) = chosen.get(&key)
            && other != value
        {
            problems.push(Problem(format!(
                "environment variables {name} and {alias} both set {key}, to different values: \
                 set only one of them"
            )));
        }
        chosen.insert(key, (value.clone(), name.clone()));
    }
    let list = chosen
        .into_iter()
        .map(|(key, (value, name))| (key, value, format!("environment variable {name}")))
        .collect();
    (list, problems)
}

/// A variable of ours without the two underscores would otherwise be ignored without a word.
fn misspelt(name: &str, rest: &str) -> Option<Problem> {
    if rest == "CONFIG" || rest.starts_with("TEST_") {
        return None;
    }
    let meant = rest.replacen('_', "__", 1);
    Some(Problem(format!(
        "environment variable {name}: there is no such setting; section and key are separated by \
         two underscores, as in WAGATE_{meant}"
    )))
}

/// A layer under the name that the operator knows it by.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P> Named<P> {
    fn new(name: &str, inner: P) -> Named<P> {
        Named {
            name: name.to_owned(),
            inner,
        }
    }
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.inner.data()
    }
}

/// One key set by one variable or flag, so that the source can be named exactly.
struct Single<'a> {
    key: &'a str,
    value: &'a str,
    source: &'a str,
}

impl Provider for Single<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_owned())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let leaf = Value::String(Tag::Default, self.value.to_owned());
        let (section, key) = self.key.split_once('.').unwrap_or((self.key, ""));
        let mut dict = Dict::new();
        if key.is_empty() {
            dict.insert(section.to_owned(), leaf);
        } else {
            let inner = Dict::from([(key.to_owned(), leaf)]);
            dict.insert(section.to_owned(), Value::Dict(Tag::Default, inner));
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// Whether a text is TOML, and if not, where it goes wrong.
fn check_toml(text: &str) -> Result<(), String> {
    Toml::from_str::<Dict>(text)
        .map(|_| ())
        .map_err(|error| error.to_string().trim().to_owned())
}

fn keys_of(provider: &impl Provider) -> Option<BTreeSet<String>> {
    let data = provider.data().ok()?;
    let mut keys = BTreeSet::new();
    for (section, value) in data.get(&Profile::Default)? {
        collect_keys(value, section, &BTreeSet::new(), &mut keys);
    }
    Some(keys)
}

/// Collects the paths of all leaves. A known key is a leaf even when somebody gave it a table.
fn collect_keys(value: &Value, at: &str, known: &BTreeSet<String>, into: &mut BTreeSet<String>) {
    match value {
        Value::Dict(_, dict) if !known.contains(at) => {
            for (name, value) in dict {
                let path = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                collect_keys(value, &path, known, into);
            }
        }
        _ => {
            into.insert(at.to_owned());
        }
    }
}

/// The text form of a scalar or of a list of scalars.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, switch) => Some(switch.to_string()),
        Value::Num(_, number) => number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        Value::Array(_, items) => items
            .iter()
            .map(text_of)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        Value::Empty(..) | Value::Dict(..) => None,
    }
}

/// Puts a text in quotes the way TOML does.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// The known key that differs least, when it differs little.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(key, candidate), candidate.as_str()))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, candidate)| candidate)
}

fn known_in_section(key: &str, known: &BTreeSet<String>) -> String {
    let section = key.split('.').next().unwrap_or_default();
    let prefix = format!("{section}.");
    let keys: Vec<&str> = known
        .iter()
        .filter(|k| k.starts_with(&prefix))
        .map(String::as_str)
        .collect();
    if keys.is_empty() {
        let sections: BTreeSet<&str> = known.iter().filter_map(|k| k.split('.').next()).collect();
        let sections: Vec<&str> = sections.into_iter().collect();
        format!("the sections are: {}", sections.join(", "))
    } else {
        format!("this section has: {}", keys.join(", "))
    }
}

/// Levenshtein's distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let above = row[j + 1];
            let changed = diagonal + usize::from(left != *right);
            row[j + 1] = changed.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
