//! Node and the packages of the JavaScript clients that the tests drive.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The oldest Node that Baileys 7 runs on; Debian 12 has an older one.
const MAJOR_MIN: u32 = 20;
/// What the npm registry has in its place.
const MAJOR_FETCHED: u32 = 22;

/// Installs Node and the clients' packages, where they are absent or outdated. Returns the search path
/// with which the tests find Node, if it is not the machine's own.
pub(crate) fn packages_up() -> Result<Option<OsString>> {
    if !run::exists("node") || !run::exists("npm") {
        run::install(&["nodejs", "npm"])?;
    }
    clients_up()?;
    if major(Path::new("node"))? >= MAJOR_MIN {
        return Ok(None);
    }
    let bin = fetched_node()?;
    let found = major(&bin.join("node"))?;
    anyhow::ensure!(
        found >= MAJOR_MIN,
        "Node {MAJOR_MIN} or newer is needed, found {found}"
    );
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    Ok(Some(path))
}

/// Node from the npm registry, which carries its builds as packages.
fn fetched_node() -> Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => anyhow::bail!("install Node {MAJOR_MIN} or newer by hand: none for {other}"),
    };
    let package = format!("node-linux-{architecture}");
    let prefix = run::root().join("target/node");
    let bin = prefix.join("node_modules").join(&package).join("bin");
    if !bin.join("node").exists() {
        println!("this machine's Node is older than {MAJOR_MIN}; fetching {MAJOR_FETCHED} …");
        fs::create_dir_all(&prefix)?;
        run::output(
            Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
                .arg("--prefix")
                .arg(&prefix)
                .arg(format!("{package}@{MAJOR_FETCHED}")),
        )
        .with_context(|| format!("install Node {MAJOR_MIN} or newer by hand"))?;
    }
    Ok(bin)
}

fn major(node: &Path) -> Result<u32> {
    let version = run::output(Command::new(node).arg("--version"))?;
    let major = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .next()
        .unwrap_or_default();
    major
        .parse()
        .with_context(|| format!("`node --version` said {version}"))
}

/// Installs the clients' packages as their lock file has them.
fn clients_up() -> Result<()> {
    let folder = run::root().join("crates/network/tests/clients");
    let lock = fs::read(folder.join("package-lock.json"))
        .context("crates/network/tests/clients/package-lock.json is missing")?;
    let stamp = folder.join("node_modules/.wagate-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    println!("installing the JavaScript clients (npm ci) …");
    run::output(
        Command::new("npm")
            .args([
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--legacy-peer-deps",
            ])
            .current_dir(&folder),
    )
    .context("the JavaScript clients could not be installed: is the npm registry reachable?")?;
    fs::write(stamp, lock)?;
    Ok(())
}
