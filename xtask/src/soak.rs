//! `cargo xtask soak`: builds gateway and soak in the release profile and lets them run.

use std::process::Command;

use anyhow::Result;

use crate::run;

/// Builds, and passes the arguments on.
pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    run::cargo(&["build", "--release", "--package", "wagate-e2e", "--bins"])?;
    let program = run::root().join("target/release/soak");
    run::show(Command::new(program).args(arguments))
}
