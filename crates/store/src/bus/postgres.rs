//! The bus over LISTEN/NOTIFY: a thread that listens and a thread that notifies, each with a connection
//! of its own that is opened again after a loss.
//!
//! A notification carries many wake-ups, one a line, behind a line that names the process; a process
//! passes its own on at once and ignores their echo.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Config, NoTls};
use tokio::sync::mpsc;

use super::{BusMessage, Heard, Speaker};
use crate::error::StoreError;

/// Wake-ups that may wait for the notifying thread; more are lost.
const OUTGOING_MAX: usize = 4096;
/// Wake-ups of one notification: PostgreSQL takes less than 8,000 bytes, a line has 33.
const BATCH_MAX: usize = 128;
/// How often the listener looks whether it should end.
const LISTEN_SLICE: Duration = Duration::from_millis(200);
/// Quiet slices after which the listener asks whether the connection is alive.
const QUIET_SLICES_MAX: u32 = 50;
/// The pause between attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);
/// The channel is the schema's, so that several gateways can share a database.
const CHANNEL: &str = "left('wagate_' || current_schema(), 63)";

pub(super) struct Remote {
    /// None ends the notifying thread.
    outgoing: mpsc::Sender<Option<BusMessage>>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    config: Config,
    /// Names this process in its notifications.
    origin: String,
    stop: AtomicBool,
    speaker: Speaker,
}

impl Remote {
    pub(super) fn start(url: &str, speaker: Speaker) -> Result<Self, StoreError> {
        let mut config: Config = url.parse().map_err(|error: postgres::Error| {
            StoreError::Options(format!("the PostgreSQL URL cannot be read: {error}"))
        })?;
        config
            .connect_timeout(Duration::from_secs(3))
            .tcp_user_timeout(Duration::from_secs(10));
        if config.get_application_name().is_none() {
            config.application_name("wagate bus");
        }
        let mut random = [0; 8];
        crate::seal::fill_random(&mut random)?;
        let origin = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let shared = Arc::new(Shared {
            config,
            origin,
            stop: AtomicBool::new(false),
            speaker,
        });
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| StoreError::Unavailable(error.into()))
        };
        let (listener, notifier) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            start("bus-listen", Box::new(move || listener.listen()))?,
            start("bus-notify", Box::new(move || notifier.notify(queue)))?,
        ];
        Ok(Self {
            outgoing,
            shared,
            threads: Mutex::new(threads),
        })
    }

    pub(super) fn publish(&self, message: BusMessage) {
        if self.outgoing.try_send(Some(message)).is_err() {
            tracing::debug!("a wake-up was lost, the bus is away or full");
        }
    }

    pub(super) async fn close(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // An error means that the thread has ended.
        self.outgoing.send(None).await.ok();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads
                .into_iter()
                .filter_map(|thread| thread.join().err())
                .count()
        });
        if joined.await.ok() != Some(0) {
            tracing::error!("a thread of the bus panicked");
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn listen(&self) {
        let mut again = false;
        while !self.stopped() {
            let mut client = match self.listening() {
                Ok(client) => client,
                Err(error) => {
                    tracing::debug!(error = %error, "the bus cannot connect");
                    again = true;
                    std::thread::sleep(RECONNECT_PAUSE);
                    continue;
                }
            };
            if again {
                // Whatever was said meanwhile is lost.
                self.speaker.say(Heard::Missed);
            }
            self.hear(&mut client);
            again = true;
        }
    }

    fn listening(&self) -> Result<Client, postgres::Error> {
        let mut client = self.config.connect(NoTls)?;
        let channel: String = client
            .query_one(&format!("SELECT {CHANNEL}"), &[])?
            .try_get(0)?;
        client.batch_execute(&format!("LISTEN \"{}\"", channel.replace('"', "\"\"")))?;
        Ok(client)
    }

    /// Passes on what is heard until the connection is lost or the bus is closed.
    fn hear(&self, client: &mut Client) {
        let mut quiet = 0;
        while !self.stopped() {
            let next = client.notifications().timeout_iter(LISTEN_SLICE).next();
            match next {
                Ok(Some(notification)) => {
                    quiet = 0;
                    self.pass_on(notification.payload());
                }
                Ok(None) if client.is_closed() => return,
                Ok(None) => quiet += 1,
                Err(error) => {
                    tracing::debug!(error = %error, "the bus lost its connection");
                    return;
                }
            }
            if quiet >= QUIET_SLICES_MAX {
                quiet = 0;
                if client.is_valid(Duration::from_secs(5)).is_err() {
                    return;
                }
            }
        }
    }

    fn pass_on(&self, payload: &str) {
        let mut lines = payload.lines();
        if lines.next() == Some(self.origin.as_str()) {
            return;
        }
        for message in lines.filter_map(BusMessage::from_line) {
            self.speaker.say(Heard::Message(message));
        }
    }

    fn notify(&self, mut queue: mpsc::Receiver<Option<BusMessage>>) {
        let mut client: Option<Client> = None;
        while let Some(lines) = next_batch(&mut queue)
            && !self.stopped()
        {
            let payload = format!("{}\n{}", self.origin, lines.join("\n"));
            // A second attempt, since the first may only have found that the connection is gone.
            for _ in 0..2 {
                if self.send(&mut client, &payload).is_ok() {
                    break;
                }
                client = None;
            }
        }
    }

    fn send(&self, client: &mut Option<Client>, payload: &str) -> Result<(), postgres::Error> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.config.connect(NoTls)?),
        };
        client.execute(&format!("SELECT pg_notify({CHANNEL}, $1)"), &[&payload])?;
        Ok(())
    }
}

/// Waits for a wake-up and takes what else is there, each once. None: the bus was closed.
fn next_batch(queue: &mut mpsc::Receiver<Option<BusMessage>>) -> Option<Vec<String>> {
    let mut lines = vec![queue.blocking_recv()??.to_line()];
    while lines.len() < BATCH_MAX
        && let Ok(Some(message)) = queue.try_recv()
    {
        let line = message.to_line();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Some(lines)
}
