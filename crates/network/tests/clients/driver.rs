//! Starts a Baileys driver (`driver.mjs`) and speaks to it in JSON lines. All waits have a bound and
//! say what they waited for and what came instead.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Long enough for a link with its key derivation in JavaScript on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Six,
    Seven,
}

impl Generation {
    fn name(self) -> &'static str {
        match self {
            Self::Six => "6",
            Self::Seven => "7",
        }
    }
}

/// A Baileys client in a Node process of its own, which ends with this value.
pub(crate) struct Driver {
    generation: Generation,
    _child: Child,
    stdin: ChildStdin,
    shared: Arc<Shared>,
    next: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: Vec<Value>,
    answers: HashMap<u64, oneshot::Sender<Value>>,
    log: Vec<String>,
    ended: bool,
}

impl Driver {
    /// Starts the process; installs the packages where they are missing.
    pub(crate) async fn start(generation: Generation) -> Self {
        tokio::task::spawn_blocking(install_packages).await.unwrap();
        let mut child = Command::new("node")
            .arg("driver.mjs")
            .arg(generation.name())
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start Node ({error}); it must be installed"));
        let shared = Arc::new(Shared::default());
        let tracker = TaskTracker::new();
        tracker.spawn(read_lines(
            child.stdout.take().unwrap(),
            Arc::clone(&shared),
            State::line,
        ));
        tracker.spawn(read_lines(
            child.stderr.take().unwrap(),
            Arc::clone(&shared),
            State::log,
        ));
        let stdin = child.stdin.take().unwrap();
        let driver = Self {
            generation,
            _child: child,
            stdin,
            shared,
            next: 1,
        };
        driver.wait("ready", |event| is(event, "ready")).await;
        driver
    }

    /// Gives a command and waits for its answer.
    pub(crate) async fn ask(&mut self, what: &str, fields: Value) -> Result<Value, String> {
        let number = self.next;
        self.next += 1;
        let mut command = fields;
        command["n"] = json!(number);
        command["do"] = json!(what);
        let (sender, receiver) = oneshot::channel();
        self.shared
            .state
            .lock()
            .unwrap()
            .answers
            .insert(number, sender);
        self.stdin
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
        let Ok(answer) = timeout(BOUND, receiver).await else {
            panic!("no answer to {command}\n{}", self.story())
        };
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {command}\n{}", self.story()));
        match answer.get("error") {
            Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// Gives a command that must succeed.
    pub(crate) async fn must(&mut self, what: &str, fields: Value) -> Value {
        match self.ask(what, fields).await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}\n{}", self.story()),
        }
    }

    /// How many events came so far; to be given to [`wait_after`](Self::wait_after).
    pub(crate) fn mark(&self) -> usize {
        self.shared.state.lock().unwrap().events.len()
    }

    /// Waits for an event, among those that came already too.
    pub(crate) async fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_after(0, what, wanted).await
    }

    /// Waits for an event that came after a mark.
    pub(crate) async fn wait_after(
        &self,
        mark: usize,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let found = timeout(BOUND, async {
            loop {
                let changed = self.shared.changed.notified();
                {
                    let state = self.shared.state.lock().unwrap();
                    if let Some(event) = state.events.iter().skip(mark).find(|e| wanted(e)) {
                        return Some(event.clone());
                    }
                    if state.ended {
                        return None;
                    }
                }
                changed.await;
            }
        });
        match found.await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("the client ended before `{what}`\n{}", self.story()),
            Err(_) => panic!("`{what}` did not come in {BOUND:?}\n{}", self.story()),
        }
    }

    /// Waits for a text with this content and answers the event.
    pub(crate) async fn text(&self, text: &str) -> Value {
        self.wait(text, |event| is(event, "message") && event["text"] == text)
            .await
    }

    /// Waits until a sent message has at least this status: 2 server, 3 delivered, 4 read.
    pub(crate) async fn status(&self, id: &str, status: u64) {
        let what = format!("status {status} of {id}");
        self.wait(&what, |event| {
            is(event, "status")
                && event["id"] == id
                && event["status"].as_u64().is_some_and(|has| has >= status)
        })
        .await;
    }

    /// The events that came, of one kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let state = self.shared.state.lock().unwrap();
        state
            .events
            .iter()
            .filter(|event| is(event, kind))
            .cloned()
            .collect()
    }

    /// What the client did, for a failing test.
    pub(crate) fn story(&self) -> String {
        let state = self.shared.state.lock().unwrap();
        let events: Vec<_> = state.events.iter().map(Value::to_string).collect();
        let log = &state.log[state.log.len().saturating_sub(40)..];
        format!(
            "events of Baileys {}:\n  {}\nits log:\n  {}",
            self.generation.name(),
            events.join("\n  "),
            log.join("\n  ")
        )
    }
}

impl State {
    fn line(&mut self, line: String) {
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            self.log.push(line);
            return;
        };
        match value["n"].as_u64() {
            Some(number) => {
                if let Some(sender) = self.answers.remove(&number) {
                    // Nobody listens any more when the asker gave up.
                    drop(sender.send(value));
                }
            }
            None => self.events.push(value),
        }
    }

    fn log(&mut self, line: String) {
        self.log.push(line);
    }
}

/// Whether an event is of this kind.
pub(crate) fn is(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

async fn read_lines(
    pipe: impl AsyncRead + Unpin,
    shared: Arc<Shared>,
    take: fn(&mut State, String),
) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        take(&mut shared.state.lock().unwrap(), line);
        shared.changed.notify_waiters();
    }
    let mut state = shared.state.lock().unwrap();
    state.ended = true;
    state.answers.clear();
    drop(state);
    shared.changed.notify_waiters();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs `npm ci` unless the packages of the present lock file are there. Test processes run side by
/// side, so one installs and the others wait.
fn install_packages() {
    let folder = folder();
    let wanted = fs::read(folder.join("package-lock.json")).unwrap();
    let stamp = folder.join("node_modules/.wagate-lock");
    let installed = || fs::read(&stamp).is_ok_and(|has| has == wanted);
    if installed() {
        return;
    }
    let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients.lock");
    let lock = File::create(lock).unwrap();
    lock.lock().unwrap();
    if installed() {
        return;
    }
    let output = std::process::Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--no-progress"])
        .current_dir(&folder)
        .output()
        .unwrap_or_else(|error| panic!("cannot run npm ({error}); Node 20 or newer is needed"));
    assert!(
        output.status.success(),
        "`npm ci` in {} failed:\n{}{}",
        folder.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(stamp, wanted).unwrap();
}
