//! Where the library's events arrive, and the lanes in which ours wait for the actor.
//!
//! [`Hub::handle_event`] runs inline on the library's receive path (engine rule 7): it only sorts into
//! bounded lanes. The forwarder takes from them and waits for the actor's channel. What does not fit: of
//! receipts the newest are counted and reported, acknowledgements are bounded by [`Acks`] itself, and the
//! few events about the connection always fit.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use wacore::types::events::{
    ConnectFailureReason, Event, EventHandler, EventInterest, EventKind, InboundMessage, LoggedOut,
    PairSuccess, TemporaryBan,
};
use wacore::types::message::MessageInfo;
use wacore::types::presence::ReceiptType;
use wagate_domain::retry::{Ending, SessionMove, Trouble};
use wagate_domain::{Clock, LinkChallenge, ReceiptKind, Timestamp, WaMessageId};
use whatsapp_rust::Client;

use crate::acks::{Ack, Acks, Registered};
use crate::device::Identity;
use crate::event::{Ended, EngineEvent};
use crate::jid::{account, from_library};

/// Receipts that wait for the actor; one names many messages when it was read late.
const RECEIPTS_MAX: usize = 1024;
/// Messages that bypass the durability hook and wait for their commit.
const UNHOOKED_MAX: usize = 256;
/// Events about the connection; there are a few for each attempt.
const CONTROL_MAX: usize = 256;
/// Strangers cause these, as many as they like: they must not push out what the connection says.
const UNDECRYPTABLE_MAX: usize = CONTROL_MAX / 2;
/// How long to stay away after a login that was refused for too many of them.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(300);

/// A receipt as it came, before its addresses are looked up.
pub(crate) struct RawReceipt {
    pub(crate) chat: wacore_binary::Jid,
    pub(crate) sender: wacore_binary::Jid,
    pub(crate) ids: Vec<WaMessageId>,
    pub(crate) kind: ReceiptKind,
    pub(crate) at: Timestamp,
}

/// What the forwarder does next.
pub(crate) enum Next {
    Event(EngineEvent),
    Receipt(RawReceipt),
    Unhooked(Vec<InboundMessage>),
}

/// Where a device stands, as far as its events have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No login, no challenge yet in this attempt.
    #[default]
    Opening,
    /// A challenge is shown.
    Challenge,
    /// Paired in this attempt; the server restarts the connection.
    Paired,
    Connected,
}

#[derive(Default)]
struct Lanes {
    control: VecDeque<EngineEvent>,
    receipts: VecDeque<RawReceipt>,
    receipts_missed: u64,
    unhooked: VecDeque<Vec<InboundMessage>>,
    ended: bool,
}

#[derive(Default)]
struct Link {
    phase: Phase,
    connected_at: Option<Instant>,
    terminal: Option<Ended>,
    /// Why the newest attempt ended, as far as WhatsApp said.
    reason: Option<String>,
    /// WhatsApp asked for patience.
    pause: Option<Duration>,
    /// No further QR text comes on this connection.
    qr_over: bool,
    /// Until when a pairing code can be entered.
    code_until: Option<Timestamp>,
}

/// One device's events.
pub(crate) struct Hub {
    clock: Arc<dyn Clock>,
    /// Set once, after the client is made; weak, since the client holds this handler.
    client: OnceLock<Weak<Client>>,
    pub(crate) acks: Acks,
    lanes: Mutex<Lanes>,
    link: Mutex<Link>,
    /// Something waits in a lane.
    pub(crate) ready: Notify,
    /// The phase changed, or a terminal reason is known.
    pub(crate) moved: Notify,
    /// The library went online by itself; the runner takes it back (engine rule 9).
    pub(crate) went_online: AtomicBool,
    logins: AtomicU64,
    missed: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(clock: Arc<dyn Clock>, acks: Acks) -> Self {
        Self {
            clock,
            client: OnceLock::new(),
            acks,
            lanes: Mutex::default(),
            link: Mutex::default(),
            ready: Notify::new(),
            moved: Notify::new(),
            went_online: AtomicBool::new(false),
            logins: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    /// Tells the hub whose events it gets.
    pub(crate) fn attach(&self, client: &Arc<Client>) {
        // `Engine::open` calls it once for each hub; the first client would stay.
        let first = self.client.set(Arc::downgrade(client)).is_ok();
        debug_assert!(first, "a hub serves one client");
    }

    /// Who the device is linked to, as the library knows it now.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let client = self.client.get()?.upgrade()?;
        let push_name = client.push_name();
        Some(Identity {
            jid: from_library(&client.pn()?)?,
            lid: client.lid().as_ref().and_then(from_library),
            push_name: Some(push_name).filter(|name| !name.is_empty()),
            platform: None,
        })
    }

    /// The events that this handler wants; each further kind costs the library work.
    pub(crate) fn interest() -> EventInterest {
        EventInterest::of(&[
            EventKind::Connected,
            EventKind::Disconnected,
            EventKind::PairSuccess,
            EventKind::PairError,
            EventKind::PairingQrCode,
            EventKind::PairingCodeRefresh,
            EventKind::PairingCodeError,
            EventKind::PairingQrCodesExhausted,
            EventKind::QrScannedWithoutMultidevice,
            EventKind::LoggedOut,
            EventKind::StreamReplaced,
            EventKind::TemporaryBan,
            EventKind::ClientOutdated,
            EventKind::ConnectFailure,
            EventKind::StreamError,
            EventKind::ServerAck,
            EventKind::Receipt,
            EventKind::Messages,
            EventKind::UndecryptableMessage,
            EventKind::SelfPushNameUpdated,
        ])
    }

    pub(crate) fn emit(&self, event: EngineEvent) {
        let mut lanes = locked(&self.lanes);
        if lanes.ended {
            return;
        }
        if lanes.control.len() >= CONTROL_MAX {
            // Only an actor that takes nothing at all gets here; the newest state is worth most.
            lanes.control.pop_front();
        }
        lanes.control.push_back(event);
        drop(lanes);
        self.ready.notify_one();
    }

    /// The last event. What was written and not acknowledged ends with it.
    pub(crate) fn end(&self, why: Ended) {
        self.acks.forget_written();
        self.emit(EngineEvent::Ended(why));
        locked(&self.lanes).ended = true;
    }

    /// Takes what is to be forwarded next; `Ended` comes when nothing else waits.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut lanes = locked(&self.lanes);
        let last = |event: &EngineEvent| matches!(event, EngineEvent::Ended(_));
        if lanes.control.front().is_some_and(|event| !last(event)) {
            return lanes.control.pop_front().map(Next::Event);
        }
        if let Some(decided) = self.acks.take_decided() {
            return Some(Next::Event(decided));
        }
        if let Some(messages) = lanes.unhooked.pop_front() {
            return Some(Next::Unhooked(messages));
        }
        if let Some(receipt) = lanes.receipts.pop_front() {
            return Some(Next::Receipt(receipt));
        }
        if lanes.receipts_missed > 0 {
            let receipts = std::mem::take(&mut lanes.receipts_missed);
            return Some(Next::Event(EngineEvent::Missed { receipts }));
        }
        lanes.control.pop_front().map(Next::Event)
    }

    /// A new attempt to connect begins.
    pub(crate) fn begin(&self) {
        let mut link = locked(&self.link);
        link.phase = Phase::Opening;
        link.connected_at = None;
        link.reason = None;
        link.pause = None;
        link.qr_over = false;
        link.code_until = None;
    }

    /// A pairing code was handed out.
    pub(crate) fn code_open(&self, until: Timestamp) {
        locked(&self.link).code_until = Some(until);
        self.enter(Phase::Challenge);
    }

    /// Nothing that was shown can be scanned or entered any more.
    pub(crate) fn challenge_over(&self) -> bool {
        let link = locked(&self.link);
        link.phase == Phase::Challenge
            && link.qr_over
            && link
                .code_until
                .is_none_or(|until| until <= self.clock.now())
    }

    /// The message was written: its acknowledgement is due.
    pub(crate) fn written(&self, registered: Registered) {
        if self.acks.written(registered) {
            // The forwarder had no deadline to wait for; now it has.
            self.ready.notify_one();
        }
    }

    /// The connection is gone, and with it whatever was to be acknowledged on it.
    pub(crate) fn connection_lost(&self) {
        self.acks.forget_written();
    }

    pub(crate) fn phase(&self) -> Phase {
        locked(&self.link).phase
    }

    pub(crate) fn connected_at(&self) -> Option<Instant> {
        locked(&self.link).connected_at
    }

    /// Why the device must stop, if WhatsApp said so.
    pub(crate) fn terminal(&self) -> Option<Ended> {
        locked(&self.link).terminal.clone()
    }

    /// Forgets a terminal reason that turned out to be curable.
    pub(crate) fn forget_terminal(&self) {
        locked(&self.link).terminal = None;
    }

    pub(crate) fn reason(&self) -> Option<String> {
        locked(&self.link).reason.clone()
    }

    pub(crate) fn pause(&self) -> Option<Duration> {
        locked(&self.link).pause
    }

    pub(crate) fn logins(&self) -> u64 {
        self.logins.load(Ordering::Relaxed)
    }

    pub(crate) fn receipts_missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub(crate) fn terminate(&self, why: Ended) {
        let mut link = locked(&self.link);
        // The first reason is the cause; what follows are consequences.
        link.terminal.get_or_insert(why);
        drop(link);
        self.moved.notify_one();
    }

    /// Waits, bounded, for the end of the challenge.
    pub(crate) async fn until_paired(&self, bound: Duration) {
        let paired = async {
            while self.phase() == Phase::Challenge {
                self.moved.notified().await;
            }
        };
        if tokio::time::timeout(bound, paired).await.is_err() {
            tracing::warn!("the library stored a pairing and did not tell of it");
        }
    }

    fn enter(&self, phase: Phase) {
        let mut link = locked(&self.link);
        link.phase = phase;
        if phase == Phase::Connected {
            link.connected_at = Some(Instant::now());
            self.logins.fetch_add(1, Ordering::Relaxed);
        }
        drop(link);
        self.moved.notify_one();
        if phase == Phase::Connected
            && let Some(identity) = self.identity()
        {
            self.emit(EngineEvent::Connected(identity));
        }
    }

    fn set_reason(&self, reason: String, pause: Option<Duration>) {
        let mut link = locked(&self.link);
        link.reason = Some(reason);
        link.pause = pause.or(link.pause);
    }

    fn ack(&self, ack: &wacore::types::events::ServerAck) {
        if ack.class.as_deref() != Some("message") {
            return;
        }
        let Ok(wa_id) = WaMessageId::parse(&ack.id) else {
            return;
        };
        let at = ack.timestamp.map_or_else(
            || self.clock.now(),
            |at| Timestamp::from_millis(at.timestamp_millis()),
        );
        // A refusal whose code is no number is a refusal all the same.
        let error = ack.error.as_deref().map(|code| code.parse().unwrap_or(500));
        let chat = ack.from.as_ref().and_then(account);
        self.acks.resolve(Ack {
            wa_id,
            chat,
            error,
            at,
        });
        self.ready.notify_one();
    }

    fn receipt(&self, receipt: &wacore::types::events::Receipt) {
        let kind = match receipt.r#type {
            ReceiptType::Delivered | ReceiptType::Inactive => ReceiptKind::Delivered,
            ReceiptType::Read => ReceiptKind::Read,
            ReceiptType::Played => ReceiptKind::Played,
            // The owner's own devices, retries (the library serves them) and internal ones.
            _ => return,
        };
        if receipt.source.is_from_me {
            return;
        }
        let ids: Vec<_> = receipt
            .message_ids
            .iter()
            .filter_map(|id| WaMessageId::parse(id).ok())
            .collect();
        if ids.is_empty() {
            return;
        }
        let raw = RawReceipt {
            chat: receipt.source.chat.clone(),
            sender: receipt.source.sender.clone(),
            ids,
            kind,
            at: Timestamp::from_millis(receipt.timestamp.timestamp_millis()),
        };
        let mut lanes = locked(&self.lanes);
        if lanes.receipts.len() < RECEIPTS_MAX {
            lanes.receipts.push_back(raw);
        } else {
            lanes.receipts_missed += 1;
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        drop(lanes);
        self.ready.notify_one();
    }

    /// Newsletters and messages recovered from the phone come past the hook; they are committed from here.
    fn messages(&self, batch: &wacore::types::events::MessageBatch) {
        if batch.hook_committed {
            return;
        }
        let mut lanes = locked(&self.lanes);
        if lanes.unhooked.len() >= UNHOOKED_MAX {
            tracing::warn!(
                count = batch.len(),
                "messages outside the commit path were dropped"
            );
            return;
        }
        lanes.unhooked.push_back(batch.messages.to_vec());
        drop(lanes);
        self.ready.notify_one();
    }

    fn qr(&self, qr: &wacore::types::events::PairingQrCode) {
        self.enter(Phase::Challenge);
        let expires_at = self.clock.now().plus(qr.timeout);
        self.emit(EngineEvent::Challenge(LinkChallenge::Qr {
            qr: qr.code.clone(),
            expires_at,
        }));
    }

    fn logged_out(&self, event: &LoggedOut) {
        let reason = match (event.on_connect, &event.reason) {
            (true, ConnectFailureReason::AccountLocked) => {
                let reason = event
                    .logout_message
                    .as_ref()
                    .and_then(|message| message.header.clone())
                    .unwrap_or_else(|| "WhatsApp locked the account".to_owned());
                return self.terminate(Ended::Locked { reason });
            }
            (true, _) => "WhatsApp refused the login: the device is no longer linked",
            (false, _) => "the device was unlinked",
        };
        self.terminate(Ended::LoggedOut {
            reason: reason.to_owned(),
        });
    }

    fn connect_failure(&self, event: &wacore::types::events::ConnectFailure) {
        let code = failure_code(&event.reason);
        let reason = format!("WhatsApp refused the connection with code {code}");
        match Trouble::Login(code).verdict().session {
            SessionMove::Pauses { .. } => {
                // The only cure is patience.
                self.set_reason(reason, Some(RATE_LIMIT_PAUSE));
                self.emit(EngineEvent::RateLimited);
            }
            // A ban whose end WhatsApp did not say.
            SessionMove::Ends(Ending::Banned) => {
                self.terminate(Ended::Banned { until: None, code });
            }
            // Logged out, locked and outdated come as events of their own.
            SessionMove::Ends(_) => self.terminate(Ended::Refused { code, reason }),
            SessionMove::Stays | SessionMove::Reconnects => self.set_reason(reason, None),
        }
    }
}

fn failure_code(reason: &ConnectFailureReason) -> u32 {
    u32::try_from(reason.code()).unwrap_or(0)
}

impl Hub {
    fn paired(&self, pair: &PairSuccess) {
        if let Some(jid) = from_library(&pair.id) {
            let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            self.emit(EngineEvent::Paired(Identity {
                jid,
                lid: from_library(&pair.lid),
                push_name: some(&pair.business_name),
                platform: some(&pair.platform),
            }));
        }
        self.enter(Phase::Paired);
    }

    fn pairing_event(&self, event: &Event) {
        match event {
            Event::PairingQrCode(qr) => self.qr(qr),
            Event::PairSuccess(pair) => self.paired(pair),
            Event::PairError(error) => {
                self.emit(EngineEvent::PairingFailed {
                    reason: error.error.clone(),
                });
            }
            Event::PairingCodeError(error) => {
                self.emit(EngineEvent::PairingFailed {
                    reason: error.error.clone(),
                });
            }
            Event::PairingCodeRefresh(_) => self.emit(EngineEvent::ChallengeExpired),
            Event::QrScannedWithoutMultidevice(_) => {
                let reason = "the phone's WhatsApp is too old to link devices".to_owned();
                self.emit(EngineEvent::PairingFailed { reason });
            }
            Event::PairingQrCodesExhausted(exhausted) => {
                locked(&self.link).qr_over = true;
                if exhausted.disconnected {
                    self.emit(EngineEvent::ChallengeExpired);
                    self.terminate(Ended::ChallengeExpired);
                }
            }
            _ => {}
        }
    }

    fn banned(&self, ban: &TemporaryBan) {
        let secs = u64::try_from(ban.expire.num_seconds()).unwrap_or(0);
        let until = Some(self.clock.now().plus(Duration::from_secs(secs)));
        let code = u32::try_from(ban.code.code()).unwrap_or(0);
        self.terminate(Ended::Banned { until, code });
    }

    fn undecryptable(&self, info: &MessageInfo) {
        let (Some(chat), Some(sender), Ok(wa_id)) = (
            account(&info.source.chat),
            account(&info.source.sender),
            WaMessageId::parse(&info.id),
        ) else {
            return;
        };
        let at = Timestamp::from_secs(info.timestamp.timestamp());
        if locked(&self.lanes).control.len() >= UNDECRYPTABLE_MAX {
            tracing::debug!("a message that could not be decrypted is not told of");
            return;
        }
        self.emit(EngineEvent::Undecryptable {
            chat,
            sender,
            wa_id,
            at,
        });
    }
}

impl EventHandler for Hub {
    fn handle_event(&self, event: Arc<Event>) {
        match &*event {
            Event::ServerAck(ack) => self.ack(ack),
            Event::Receipt(receipt) => self.receipt(receipt),
            Event::Messages(batch) => self.messages(batch),
            Event::UndecryptableMessage(message) => self.undecryptable(&message.info),
            Event::Connected(_) => {
                self.went_online.store(true, Ordering::SeqCst);
                self.enter(Phase::Connected);
            }
            Event::SelfPushNameUpdated(_) => {
                self.went_online.store(true, Ordering::SeqCst);
                self.moved.notify_one();
            }
            Event::LoggedOut(logged_out) => self.logged_out(logged_out),
            Event::StreamReplaced(_) => self.terminate(Ended::Replaced),
            Event::TemporaryBan(ban) => self.banned(ban),
            Event::ClientOutdated(_) => self.terminate(Ended::Outdated),
            Event::ConnectFailure(failure) => self.connect_failure(failure),
            Event::StreamError(error) => {
                self.set_reason(format!("WhatsApp ended the stream ({})", error.code), None);
            }
            Event::Disconnected(disconnected) => {
                self.set_reason(disconnected.reason.to_string(), None);
            }
            other => self.pairing_event(other),
        }
    }
}
