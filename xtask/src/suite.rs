//! The test suite, and the whole of CI.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{node, openapi, run, services, tidy};

/// Everything that must pass.
pub(crate) fn ci() -> Result<()> {
    run::cargo(&["fmt", "--all", "--check"])?;
    tidy::tidy()?;
    lint()?;
    run::show(
        run::cargo_command(&["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    openapi::openapi(true)?;
    test(false, &["--profile".to_owned(), "ci".to_owned()])
}

/// Clippy over everything, warnings being errors.
fn lint() -> Result<()> {
    run::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
}

/// All tests; `quick` leaves out those that need a service or packages.
pub(crate) fn test(quick: bool, arguments: &[String]) -> Result<()> {
    nextest_up()?;
    let mut command = run::cargo_command(&["nextest", "run", "--workspace"]);
    if !quick {
        command.env(services::POSTGRES_VARIABLE, services::postgres_up()?);
        if let Some(path) = node::packages_up()? {
            command.env("PATH", path);
        }
        production_binary(&mut command)?;
        command.args(["--run-ignored", "all"]);
    }
    command.args(arguments);
    run::show(&mut command)?;
    run::cargo(&["test", "--doc", "--workspace", "--quiet"])?;
    if !quick {
        services::postgres_down()?;
    }
    println!("\nall tests passed");
    Ok(())
}

/// Builds the binary that users run, by itself: in a build of the whole workspace the unsafe feature
/// of the test crates is on, and the test that it refuses a foreign network would prove nothing. The
/// copy survives the workspace's build, which puts its own variant in the same place.
fn production_binary(tests: &mut Command) -> Result<()> {
    run::cargo(&["build", "--quiet", "--package", "wagate"])?;
    let target = run::root().join("target");
    let copy = target.join("production/wagate");
    fs::create_dir_all(target.join("production"))?;
    fs::copy(target.join("debug/wagate"), &copy)?;
    tests.env("WAGATE_PRODUCTION_BINARY", copy);
    Ok(())
}

/// One process a test: the engine's clock and the failpoints are of the process.
fn nextest_up() -> Result<()> {
    let mut version = run::cargo_command(&["nextest", "--version"]);
    if run::output(&mut version).is_ok() {
        return Ok(());
    }
    println!("installing cargo-nextest (once a machine, some minutes) …");
    run::show(&mut run::cargo_command(&[
        "install",
        "cargo-nextest",
        "--locked",
        "--debug",
    ]))
    .context("cargo-nextest could not be installed")
}
