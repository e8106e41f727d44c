//! Source rules that no compiler checks: layers, where a library may be named, lengths, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::run;

/// Which of our crates may depend on which; `dev` dependencies are free.
const LAYERS: &[(&str, &[&str])] = &[
    ("wagate-domain", &[]),
    ("wagate-store", &["wagate-domain"]),
    ("wagate-app", &["wagate-domain", "wagate-store"]),
    ("wagate-engine", &["wagate-domain", "wagate-store"]),
    (
        "wagate-worker",
        &["wagate-domain", "wagate-store", "wagate-engine"],
    ),
    ("wagate-api", &["wagate-domain", "wagate-app"]),
    (
        "wagate",
        &[
            "wagate-domain",
            "wagate-store",
            "wagate-app",
            "wagate-engine",
            "wagate-worker",
            "wagate-api",
        ],
    ),
    ("wagate-network", &[]),
    ("wagate-sandbox", &["wagate", "wagate-network"]),
    // Its gateway's clock can be shifted.
    ("wagate-e2e", &["wagate-domain", "wagate", "wagate-network"]),
    (
        "wagate-bench",
        &[
            "wagate-domain",
            "wagate-store",
            "wagate",
            "wagate-network",
            "wagate-e2e",
        ],
    ),
    ("xtask", &[]),
];

/// Words that may stand only in the sources of these crates.
const CONFINED: &[(&str, &[&str])] = &[
    // The soak holds a database's lock as a stranger would.
    ("rusqlite::", &["store", "e2e"]),
    ("postgres::", &["store"]),
    ("wacore::", &["engine", "network"]),
    ("wacore_", &["engine", "network"]),
    ("waproto::", &["engine", "network"]),
    ("whatsapp_rust::", &["engine", "network"]),
    ("axum::", &["api", "wagate", "network", "e2e", "bench"]),
    ("env::var", &["wagate"]),
];

/// Files that are longer than [`LINES_MAX`] and may only shrink.
const LONG_FILES: &[&str] = &[];
const LINES_WARN: usize = 600;
const LINES_MAX: usize = 800;

/// Checks all rules and reports every breach at once.
pub(crate) fn tidy() -> Result<()> {
    let mut breaches = Vec::new();
    layers(&mut breaches)?;
    unsafe_feature(&mut breaches)?;
    for file in rust_files() {
        source(&file, &mut breaches);
    }
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"] {
        if !run::root().join(name).exists() {
            breaches.push(format!("{name} is missing"));
        }
    }
    if breaches.is_empty() {
        println!("tidy: all source rules hold");
        return Ok(());
    }
    bail!(
        "{} source rule(s) broken:\n  {}",
        breaches.len(),
        breaches.join("\n  ")
    )
}

fn layers(breaches: &mut Vec<String>) -> Result<()> {
    let metadata: Value = serde_json::from_str(&run::output(&mut run::cargo_command(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            breaches.push(format!(
                "{name} is in no layer: add it to xtask/src/tidy.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let ours = LAYERS.iter().any(|(layer, _)| *layer == on);
            if ours && dependency["kind"].is_null() && !allowed.contains(&on) {
                breaches.push(format!("{name} must not depend on {on}"));
            }
        }
    }
    Ok(())
}

/// The production build must check WhatsApp's certificate chain.
fn unsafe_feature(breaches: &mut Vec<String>) -> Result<()> {
    for packages in [&["--package", "wagate"][..], &[]] {
        let mut command = run::cargo_command(&["tree", "--edges", "normal,features"]);
        let tree = run::output(command.args(packages))?;
        if tree.contains("danger-skip") || tree.contains("unsafe-sandbox") {
            breaches.push(format!(
                "the unsafe feature is on in `cargo build {}`",
                packages.join(" ")
            ));
        }
    }
    Ok(())
}

fn source(file: &Path, breaches: &mut Vec<String>) {
    let root = run::root();
    let shown = file
        .strip_prefix(&root)
        .unwrap_or(file)
        .display()
        .to_string();
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONG_FILES.contains(&shown.as_str()) {
        breaches.push(format!(
            "{shown} has {lines} lines, more than {LINES_MAX}: split it"
        ));
    } else if lines > LINES_WARN {
        println!("tidy: {shown} has {lines} lines, more than {LINES_WARN}");
    }
    if shown.ends_with("/mod.rs") {
        breaches.push(format!("{shown}: name the file after its module"));
    }
    let leftovers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    for (number, line) in text.lines().enumerate() {
        if leftovers.iter().any(|word| line.contains(word)) {
            breaches.push(format!("{shown}:{}: unfinished", number + 1));
        }
    }
    if let Some(name) = shown
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once("/src/"))
    {
        confined(name.0, &shown, &text, breaches);
    }
}

fn confined(crate_name: &str, shown: &str, text: &str, breaches: &mut Vec<String>) {
    for (word, crates) in CONFINED {
        if !crates.contains(&crate_name) && code(text).any(|line| names(line, word)) {
            breaches.push(format!(
                "{shown} names {word}, which belongs to {}",
                crates.join(", ")
            ));
        }
    }
    if shown.contains("/compat/") && code(text).any(|line| line.contains("wagate_store")) {
        breaches.push(format!(
            "{shown}: a dialect translates; it must not name the store"
        ));
    }
}

/// The lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a line of code holds the word, not as the end of a longer one (`tokio_postgres::`,
/// `bus::postgres::`) and not in a string, such as a log filter.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = &line[..at];
        let longer = before
            .chars()
            .next_back()
            .is_some_and(|sign| sign.is_alphanumeric() || sign == '_' || sign == ':');
        let in_string = before.matches('"').count() % 2 == 1;
        !longer && !in_string
    })
}

fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![run::root().join("crates"), run::root().join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let skipped = path.ends_with("node_modules") || path.ends_with("target");
            if path.is_dir() && !skipped {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
