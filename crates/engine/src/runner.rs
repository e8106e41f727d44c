//! The two tasks of a started device: one keeps it connected, one forwards its events.
//!
//! The library would reconnect by itself, each device for itself, sleeping up to fifteen minutes. Here each
//! attempt is one run of the library, begun in turn with all other devices of the process (engine rule 6),
//! and what ended it is looked at before the next (engine rule 8).

mod missing;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wacore::iq::keepalive::KeepaliveSpec;
use wacore::store::DeviceCommand;
use wacore::types::events::InboundMessage as LibraryMessage;
use whatsapp_rust::store::persistence_manager::PersistenceManager;
use whatsapp_rust::{Client, InboundDurabilityHook, anyhow};

use crate::backend::SessionBackend;
use crate::engine::Shared;
use crate::error::EngineError;
use crate::event::{Ended, EngineEvent};
use crate::handler::{Hub, Next, Phase, RawReceipt};
use crate::inbound::{convert_all, person};
use crate::pairing::check_server;
use crate::sink::InboundSink;
use crate::transport::Wire;
use crate::unbroken::{Panicked, Unbroken};
use crate::version::Version;

/// A connection that held so long counts as a success for the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How long the library's word of a pairing may lag behind the pairing.
const PAIRED_WITHIN: Duration = Duration::from_secs(5);
/// The library flushes what it owes within ten seconds.
const HANG_UP_WITHIN: Duration = Duration::from_secs(13);
/// The library tells of a stream that ended for too many requests (429) by so many errors at once.
const RATE_LIMITED: u32 = 5;
/// A version is written into the device's row again after half of what the library takes for fresh.
const VERSION_KEPT_MS: i64 = 12 * 3600 * 1000;

/// Everything of one device.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Arc<Client>,
    state: Arc<PersistenceManager>,
    pub(crate) backend: Arc<SessionBackend>,
    pub(crate) hub: Arc<Hub>,
    wire: Arc<Wire>,
    /// Somebody wants the device to stop.
    pub(crate) stop: CancellationToken,
    /// The device has ended and its event channel is served.
    pub(crate) done: CancellationToken,
    pub(crate) wake: tokio::sync::Notify,
    pub(crate) started: AtomicBool,
    /// The owner is to be shown as online.
    pub(crate) online: AtomicBool,
    /// Whom a message is known to reach (engine rule 3).
    pub(crate) reached: Mutex<HashSet<Box<str>>>,
    pub(crate) written: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// The library at work on one message.
type SendWork = Unbroken<Result<(), EngineError>>;

/// What an attempt left to be done.
enum Watch {
    /// The library's run ended by itself.
    RunEnded,
    /// The device is to stop; the library has hung up.
    HungUp,
}

impl Inner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        state: Arc<PersistenceManager>,
        backend: Arc<SessionBackend>,
        hub: Arc<Hub>,
        wire: Arc<Wire>,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            client,
            state,
            backend,
            hub,
            wire,
            stop: CancellationToken::new(),
            done: CancellationToken::new(),
            wake: tokio::sync::Notify::new(),
            started: AtomicBool::new(false),
            online: AtomicBool::new(false),
            reached: Mutex::default(),
            written: AtomicU64::new(0),
        })
    }

    /// Begins the two tasks; once.
    pub(crate) fn start(
        self: &Arc<Self>,
        sink: Arc<dyn InboundSink>,
        events: mpsc::Sender<EngineEvent>,
    ) {
        let tasks = &self.shared.tasks;
        let inner = Arc::clone(self);
        tasks.spawn(async move {
            let why = inner.supervise().await;
            inner.hang_up().await;
            inner.backend.close();
            inner.backend.flush().await;
            inner.hub.end(why);
        });
        let inner = Arc::clone(self);
        tasks.spawn(async move {
            inner.forward(&*sink, &events).await;
            inner.done.cancel();
        });
    }

    /// Connects again and again until there is a reason to end.
    async fn supervise(&self) -> Ended {
        let mut failures: u32 = 0;
        loop {
            self.hub.begin();
            self.wire.begin();
            self.hub.emit(EngineEvent::Connecting);
            let patience = self.client.stats().reconnect_errors;
            let failure = self.attempt().await.err();
            self.hub.connection_lost();
            if let Some(ended) = self.reason_to_end().await {
                return ended;
            }
            if self.hub.phase() == Phase::Challenge && self.client.pn().is_some() {
                // The keys of the pairing are stored, and the server's restart has overtaken the
                // library's own word of it.
                self.hub.until_paired(PAIRED_WITHIN).await;
            }
            if self.hub.phase() == Phase::Paired {
                // The server restarts the connection after pairing; the login comes next.
                continue;
            }
            if self.hub.phase() == Phase::Challenge {
                self.hub.emit(EngineEvent::ChallengeExpired);
            }
            let stable = self
                .hub
                .connected_at()
                .is_some_and(|at| at.elapsed() >= STABLE_AFTER);
            failures = if stable {
                1
            } else {
                failures.saturating_add(1)
            };
            if self.client.stats().reconnect_errors >= patience.saturating_add(RATE_LIMITED) {
                failures = failures.saturating_add(RATE_LIMITED);
                self.hub.emit(EngineEvent::RateLimited);
            }
            let reason = match self.look_at_server(failures, failure.is_some()).await {
                Ok(()) => failure
                    .or_else(|| self.hub.reason())
                    .or_else(|| self.wire.failure()),
                Err(ended @ Ended::RefusedCertificate { .. }) if self.client.pn().is_none() => {
                    return ended;
                }
                // A linked device waits for the true WhatsApp to be back.
                Err(Ended::RefusedCertificate { reason }) => Some(reason),
                Err(other) => return other,
            };
            let reason = reason.unwrap_or_else(|| "the connection was closed".to_owned());
            self.rest(failures, reason).await;
            if let Some(ended) = self.reason_to_end().await {
                return ended;
            }
        }
    }

    /// Why the device must end now, if it must.
    async fn reason_to_end(&self) -> Option<Ended> {
        if self.backend.lost().is_cancelled() {
            return Some(Ended::LeaseLost);
        }
        let terminal = self.hub.terminal();
        if terminal == Some(Ended::Outdated) && self.shared.versions.is_there_newer().await {
            self.hub.forget_terminal();
            return None;
        }
        terminal.or_else(|| self.stop.is_cancelled().then_some(Ended::Stopped))
    }

    /// Waits before the next attempt.
    async fn rest(&self, failures: u32, reason: String) {
        let options = &self.shared.options;
        let usual = options.reconnect.wait(failures, rand::random());
        let wait = self.hub.pause().map_or(usual, |pause| pause.max(usual));
        let retry_at = self.shared.clock.now().plus(wait);
        let woken = self.wake.notified();
        tokio::pin!(woken);
        // Whoever hears of the wait may end it at once.
        woken.as_mut().enable();
        tracing::debug!(reason, wait_ms = wait.as_millis(), "connection lost");
        self.hub
            .emit(EngineEvent::Disconnected { reason, retry_at });
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = &mut woken => return,
                () = self.stopping() => return,
                () = self.hub.moved.notified() => {
                    if self.hub.terminal().is_some() {
                        return;
                    }
                }
            }
        }
    }

    async fn stopping(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.backend.lost().cancelled() => {}
        }
    }

    /// One run of the library; an error says why it did not come to one.
    async fn attempt(&self) -> Result<(), String> {
        let turn = tokio::select! {
            turn = self.shared.pacer.turn() => turn,
            () = self.stopping() => return Ok(()),
        };
        let version = tokio::select! {
            version = self.shared.versions.current() => version.map_err(|error| chain(&error))?,
            () = self.stopping() => return Ok(()),
        };
        self.say_version(version).await;
        // One run is one connection: the library's own reconnecting is not wanted.
        self.client
            .enable_auto_reconnect
            .store(false, Ordering::SeqCst);
        let client = Arc::clone(&self.client);
        let mut run = self.shared.tasks.spawn(async move { client.run().await });
        match self.watch(&mut run, turn).await {
            Watch::RunEnded => {}
            Watch::HungUp => {
                if timeout(HANG_UP_WITHIN, &mut run).await.is_err() {
                    run.abort();
                }
            }
        }
        Ok(())
    }

    /// Puts the version into the device's row, where the library reads it, unless it is there.
    async fn say_version(&self, version: Version) {
        let now = wacore::time::now_millis();
        let device = self.state.get_device_snapshot();
        let said = (
            device.app_version_primary,
            device.app_version_secondary,
            device.app_version_tertiary,
        );
        if said != version || now - device.app_version_last_fetched_ms > VERSION_KEPT_MS {
            self.state
                .process_command(DeviceCommand::SetAppVersion(version))
                .await;
        }
    }

    /// Looks after a connection until it ends or the device is to stop.
    async fn watch<T>(&self, run: &mut JoinHandle<()>, turn: T) -> Watch {
        let mut turn = Some(turn);
        let begun = Instant::now();
        let liveness = self.shared.options.liveness;
        let period = (liveness.probe_after.min(liveness.answer_within) / 2)
            .clamp(Duration::from_millis(50), Duration::from_secs(10));
        let mut tick = tokio::time::interval_at(begun + period, period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut health = Health::new(begun);
        loop {
            tokio::select! {
                _ = &mut *run => return Watch::RunEnded,
                () = self.stopping() => {
                    self.hang_up().await;
                    return Watch::HungUp;
                }
                () = self.hub.moved.notified() => {}
                () = self.backend.missing.noticed() => {}
                _ = tick.tick() => {}
            }
            self.ask_for_missing().await;
            if self.hub.phase() != Phase::Opening || begun.elapsed() > liveness.answer_within {
                turn = None;
            }
            self.stay_offline().await;
            if self.hub.terminal().is_some() && health.lingers(liveness.answer_within) {
                // The library ends such a connection by itself, and at once; this is for when not.
                self.hang_up().await;
                return Watch::HungUp;
            }
            if self.hub.challenge_over() {
                self.hub.emit(EngineEvent::ChallengeExpired);
                self.hub.terminate(Ended::ChallengeExpired);
                self.hang_up().await;
                return Watch::HungUp;
            }
            let silent = tokio::select! {
                _ = &mut *run => return Watch::RunEnded,
                () = self.stopping() => {
                    self.hang_up().await;
                    return Watch::HungUp;
                }
                silent = self.is_silent(&mut health) => silent,
            };
            if health.replaced {
                continue;
            }
            let owed =
                !silent && self.client.is_logged_in() && self.backend.wants_redelivery().await;
            if silent || owed {
                health.replaced = true;
                drop(turn.take());
                if silent {
                    self.hub.emit(EngineEvent::Silent);
                } else {
                    tracing::info!(
                        "connecting anew for messages that could not be committed before"
                    );
                }
                self.client.reconnect_immediately().await;
            }
        }
    }

    /// The library goes online at each login and when the owner's name changes; this takes it back.
    async fn stay_offline(&self) {
        if !self.hub.went_online.swap(false, Ordering::SeqCst) {
            return;
        }
        if self.online.load(Ordering::SeqCst) {
            return;
        }
        // Without a name there is no presence, and nothing to take back.
        let presence = self.client.presence();
        let within = self.shared.options.liveness.answer_within;
        let away = timeout(within, presence.set_unavailable()).await;
        if let Ok(Err(error)) = away {
            tracing::debug!(%error, "presence was not taken back");
        }
    }

    /// Whether the connection is to be given up since nothing comes from the other side.
    async fn is_silent(&self, health: &mut Health) -> bool {
        let liveness = self.shared.options.liveness;
        if self.state.is_saver_halted() {
            let reason = "device state could not be saved for too long".to_owned();
            self.hub.terminate(Ended::Fault { reason });
            self.stop.cancel();
            return false;
        }
        let patience = self.shared.options.connect_timeout + liveness.answer_within * 2;
        match self.hub.phase() {
            Phase::Challenge => false,
            // Also before `Connected`: the first login synchronises for minutes, and says so all the time.
            _ if self.client.is_logged_in() => {
                health.login_lost = None;
                self.idle() > liveness.probe_after && !self.answers(liveness.answer_within).await
            }
            Phase::Opening | Phase::Paired => health.begun.elapsed() > patience,
            Phase::Connected => {
                // The server said that it goes away (503) and did not hang up.
                let since = *health.login_lost.get_or_insert_with(Instant::now);
                since.elapsed() > liveness.answer_within
            }
        }
    }

    fn idle(&self) -> Duration {
        let last = self.client.stats().last_data_received_ms;
        let now = u64::try_from(wacore::time::now_millis()).unwrap_or(0);
        Duration::from_millis(now.saturating_sub(last))
    }

    async fn answers(&self, within: Duration) -> bool {
        let ping = self.client.execute(KeepaliveSpec::with_timeout(within));
        // An error in the answer is an answer; bytes that came meanwhile are one too.
        match timeout(within, ping).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) | Err(_) => self.idle() < within,
        }
    }

    /// Waits for the end of a send, however long that takes: a message that was given up on before could
    /// still be written, after it was declared failed. So it is the connection that is given up, which
    /// ends whatever the library waits for, and in the end the device.
    pub(crate) async fn sent(&self, mut work: SendWork) -> Result<(), EngineError> {
        let patience = self.shared.options.send_timeout;
        let doing = "sending";
        let ended = |ended: Result<Result<(), EngineError>, Panicked>| {
            ended.unwrap_or_else(|panicked| {
                let source = Box::new(panicked);
                Err(EngineError::Protocol { doing, source })
            })
        };
        if let Ok(outcome) = timeout(patience, &mut work).await {
            return ended(outcome);
        }
        // What follows may wait for something that it holds.
        work.go_on_alone();
        if self.client.is_logged_in() {
            tracing::warn!("connecting anew since a send does not end");
            let anew = self.client.reconnect_immediately();
            if timeout(HANG_UP_WITHIN, anew).await.is_err() {
                tracing::warn!("the connection was not given up in time");
            }
        }
        // Now it is late, whatever hinders it: that counts as an attempt.
        let late = |error| match error {
            doubtful @ EngineError::Ambiguous(_) => doubtful,
            _ => EngineError::Timeout { doing },
        };
        if let Ok(outcome) = timeout(patience, &mut work).await {
            return ended(outcome).map_err(late);
        }
        let reason = "a send does not end".to_owned();
        self.hub.terminate(Ended::Fault { reason });
        self.stop.cancel();
        tokio::select! {
            biased;
            outcome = &mut work => ended(outcome).map_err(late),
            // Nothing can be written on a device that has hung up for good.
            () = self.done.cancelled() => Err(EngineError::Timeout { doing }),
        }
    }

    async fn hang_up(&self) {
        let bye = self.client.disconnect();
        if timeout(HANG_UP_WITHIN, bye).await.is_err() {
            tracing::warn!("the device did not flush in time");
        }
    }

    /// A handshake that broke may mean that the other side is not WhatsApp, and so may an attempt that
    /// was hindered before there was one. Asks at the first failure and at each eighth after.
    async fn look_at_server(&self, failures: u32, hindered: bool) -> Result<(), Ended> {
        let suspicious = hindered || self.wire.handshake_broke();
        if !suspicious || failures % 8 != 1 {
            return Ok(());
        }
        match check_server(&self.shared).await {
            Err(EngineError::NotWhatsApp { reason }) => Err(Ended::RefusedCertificate { reason }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes from the lanes and waits for the actor's channel; ends after `Ended`.
    async fn forward(&self, sink: &dyn InboundSink, events: &mpsc::Sender<EngineEvent>) {
        loop {
            while let Some(next) = self.hub.next() {
                let event = match next {
                    Next::Event(event) => event,
                    Next::Receipt(receipt) => match self.receipt(receipt).await {
                        Some(event) => event,
                        None => continue,
                    },
                    Next::Unhooked(batch) => {
                        self.commit_unhooked(sink, &batch).await;
                        continue;
                    }
                };
                let last = matches!(event, EngineEvent::Ended(_));
                if events.send(event).await.is_err() {
                    // Nobody listens any more: there is no point in staying.
                    self.stop.cancel();
                }
                if last {
                    return;
                }
            }
            let deadline = self.hub.acks.next_deadline();
            tokio::select! {
                () = self.hub.ready.notified() => {}
                () = until(deadline) => self.hub.acks.expire(),
            }
        }
    }

    async fn receipt(&self, raw: RawReceipt) -> Option<EngineEvent> {
        let (chat, _) = person(&self.client, &raw.chat, None).await?;
        let (sender, _) = person(&self.client, &raw.sender, None).await?;
        Some(EngineEvent::Receipt {
            chat,
            sender,
            ids: raw.ids,
            kind: raw.kind,
            at: raw.at,
        })
    }

    async fn commit_unhooked(&self, sink: &dyn InboundSink, batch: &[LibraryMessage]) {
        let messages = convert_all(&self.client, batch).await;
        if messages.is_empty() {
            return;
        }
        if let Err(error) = sink.commit(messages).await {
            // Nobody will deliver these again.
            tracing::warn!(
                error = chain(&error),
                "messages outside the commit path were lost"
            );
        }
    }
}

/// What [`Inner::is_silent`] remembers of one connection.
struct Health {
    begun: Instant,
    login_lost: Option<Instant>,
    terminal: Option<Instant>,
    replaced: bool,
}

impl Health {
    fn new(begun: Instant) -> Self {
        Self {
            begun,
            login_lost: None,
            terminal: None,
            replaced: false,
        }
    }

    /// Whether the reason to end has been known for that long.
    fn lingers(&mut self, patience: Duration) -> bool {
        self.terminal.get_or_insert_with(Instant::now).elapsed() > patience
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

/// The library's hook: commits before anything is acknowledged (IN-1).
pub(crate) struct SinkHook {
    pub(crate) sink: Arc<dyn InboundSink>,
    pub(crate) backend: Arc<SessionBackend>,
}

#[whatsapp_rust::async_trait]
impl InboundDurabilityHook for SinkHook {
    async fn on_messages(
        &self,
        client: Arc<Client>,
        batch: &[LibraryMessage],
    ) -> anyhow::Result<()> {
        let messages = convert_all(&client, batch).await;
        if messages.is_empty() {
            return Ok(());
        }
        let committed = self.sink.commit(messages).await;
        Ok(committed.inspect_err(|_| self.backend.owe_inbound())?)
    }
}
