//! Node and the packages of the JavaScript clients that the tests drive.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// Installs Node (Debian) and the clients' packages (npm), where they are absent or outdated.
pub(crate) fn packages_up() -> Result<()> {
    if !run::exists("node") || !run::exists("npm") {
        run::install(&["nodejs", "npm"])?;
    }
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
