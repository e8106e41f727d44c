//! The API's description in docs/, made from the code.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::run;

/// Writes `docs/openapi.json`, or compares it with what the code says.
pub(crate) fn openapi(check: bool) -> Result<()> {
    let made = run::output(&mut run::cargo_command(&[
        "run",
        "--quiet",
        "--package",
        "wagate",
        "--",
        "openapi",
    ]))?;
    let path = run::root().join("docs/openapi.json");
    if !check {
        fs::write(&path, made)?;
        println!("wrote {}", path.display());
        return Ok(());
    }
    let kept = fs::read_to_string(&path).context("docs/openapi.json is missing")?;
    if kept != made {
        bail!("docs/openapi.json is out of date: run `cargo xtask openapi`");
    }
    Ok(())
}
