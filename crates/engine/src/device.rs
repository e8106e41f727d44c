//! One linked device: the face that a session actor sees.
//!
//! A `Device` is made by [`crate::Engine::open`], inert; [`Device::start`] begins connecting, and goes
//! on doing so until [`Device::stop`], [`Device::logout`] or a reason that trying again does not cure.
//! After `EngineEvent::Ended` it is spent: open another. Dropping the last clone stops it, without waiting.

mod prepare;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use wacore::iq::devices::RemoveCompanionDeviceSpec;
use wacore::iq::usync::LidQuerySpec;
use wacore_binary::{Jid as LibraryJid, JidExt as _};
use wagate_domain::{Content, Jid, LinkChallenge, PhoneNumber, Timestamp, WaMessageId, plant};
use wagate_store::StoreError;
use whatsapp_rust::lid_pn_cache::LearningSource;
use whatsapp_rust::{Client, SendOptions};

use crate::engine::store_error;
use crate::error::EngineError;
use crate::event::{Ended, EngineEvent};
use crate::jid::{account, recipient, to_library};
use crate::outbound;
use crate::pairing;
use crate::runner::Inner;
use crate::sink::InboundSink;
use crate::unbroken::Unbroken;

/// So many recipients are remembered as reachable.
const REACHED_MAX: usize = 4096;
/// So many numbers are asked about in one request.
const REGISTRATIONS_MAX: usize = 50;
/// Unlinking waits so long for a connection, and so long for the answer.
const LOGOUT_CONNECT: Duration = Duration::from_secs(20);
const LOGOUT_ANSWER: Duration = Duration::from_secs(10);

/// One linked device, or one on its way to be linked. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device(Arc<Handle>);

/// What the last clone of a device takes with it.
struct Handle {
    inner: Arc<Inner>,
    /// Until the device is started.
    parts: Mutex<Option<Parts>>,
    /// Held while many recipients are asked about; who was found to have no account lately.
    preparing: tokio::sync::Mutex<prepare::Absent>,
}

type Parts = (Arc<dyn InboundSink>, mpsc::Sender<EngineEvent>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        if !self.inner.started.load(Ordering::SeqCst) {
            // The library's own tasks would wait for a start that does not come.
            self.inner.client.signal_shutdown_sync();
        }
    }
}

/// Who a device is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device's own address by phone number, with its device number.
    pub jid: Jid,
    /// The same by LID, when WhatsApp told it.
    pub lid: Option<Jid>,
    /// The name that the owner chose.
    pub push_name: Option<String>,
    /// The primary's kind, such as `android`; known right after pairing only.
    pub platform: Option<String>,
}

/// A message was written to the socket; whether WhatsApp took it, its acknowledgement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub wa_id: WaMessageId,
    pub at: Timestamp,
}

/// What WhatsApp says about one phone number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub phone: PhoneNumber,
    /// The account's address, if there is an account.
    pub jid: Option<Jid>,
    pub lid: Option<Jid>,
}

/// Counters of one device since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    pub connected: bool,
    /// Times that the device logged in.
    pub logins: u64,
    /// Messages that wait for the server's acknowledgement.
    pub awaiting_ack: usize,
    pub messages_written: u64,
    pub ack_timeouts: u64,
    pub nacks: u64,
    /// Answers to messages that nobody waited for and that did not fit.
    pub acks_dropped: u64,
    /// Receipts that did not fit.
    pub receipts_missed: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Device {
    pub(crate) fn new(
        inner: Arc<Inner>,
        sink: Arc<dyn InboundSink>,
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        Self(Arc::new(Handle {
            inner,
            parts: Mutex::new(Some((sink, events))),
            preparing: tokio::sync::Mutex::default(),
        }))
    }

    fn inner(&self) -> &Inner {
        &self.0.inner
    }

    /// Begins connecting; what happens comes as events. Once; later calls change nothing.
    pub fn start(&self) {
        let parts = self
            .0
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((sink, events)) = parts {
            self.inner().started.store(true, Ordering::SeqCst);
            self.0.inner.start(sink, events);
        }
    }

    /// Connects again now instead of at the end of the wait; for "the network is back".
    pub fn reconnect_now(&self) {
        self.inner().wake.notify_waiters();
    }

    /// Asks WhatsApp for a pairing code for the account with this number, to be entered on its phone.
    ///
    /// Waits for the connection; the device must be started. The code comes as an event too.
    ///
    /// # Errors
    /// `CodeOutstanding` while an earlier code is valid, `Throttled` when WhatsApp gives no more.
    pub async fn request_code(&self, phone: &PhoneNumber) -> Result<LinkChallenge, EngineError> {
        pairing::request_code(self.inner(), phone).await
    }

    /// Writes a message, under an id that was stored before (MP-2).
    ///
    /// `Ok` is not `sent` (MP-5): [`crate::EngineEvent::ServerAck`] or `AckTimeout` follows every `Ok`,
    /// unless the connection ends before, which `Disconnected` or `Ended` says. The same id may be sent
    /// again; the recipient's devices take it once.
    pub async fn send(
        &self,
        id: &WaMessageId,
        to: &Jid,
        content: &Content,
    ) -> Result<Written, EngineError> {
        let inner = self.inner();
        let jid = recipient(to)?;
        self.ready()?;
        let secret = inner.backend.own_secret(id.as_str()).await;
        let message = outbound::message(content, secret.map_err(store_error)?)?;
        let registered = inner
            .hub
            .acks
            .register(id)
            .map_err(|_| EngineError::Overloaded)?;
        let work = {
            let inner = Arc::clone(&self.0.inner);
            let id = id.clone();
            async move {
                inner.reach(&jid).await?;
                inner.store_ratchets().await?;
                let queued = inner.backend.queued.begin(&id);
                let options = SendOptions::default().with_message_id(id.as_str());
                let sent = inner
                    .client
                    .send_message_with_options(jid, message, options)
                    .await;
                drop(queued);
                sent.map(drop).map_err(EngineError::from_send)
            }
        };
        // A send must not be cut off half-way through Signal's counters (SL-2).
        let work = Unbroken::new(&inner.shared.tasks, work);
        let outcome = tokio::select! {
            outcome = inner.sent(work) => outcome,
            // SL-1: an answer that the library waits for will not come to a device that hangs up.
            () = inner.backend.lost().cancelled() => Err(StoreError::LeaseLost.into()),
        };
        match outcome {
            Ok(()) => {
                inner.hub.written(registered);
                if plant::is("sent_without_ack") {
                    inner.hub.acks.resolve(crate::acks::Ack {
                        wa_id: id.clone(),
                        chat: None,
                        error: None,
                        at: inner.shared.clock.now(),
                    });
                }
                inner.written.fetch_add(1, Ordering::Relaxed);
                Ok(Written {
                    wa_id: id.clone(),
                    at: inner.shared.clock.now(),
                })
            }
            Err(error) => {
                inner.hub.acks.withdraw(&registered);
                Err(error)
            }
        }
    }

    /// Asks which of these numbers have an account.
    pub async fn registrations(
        &self,
        phones: &[PhoneNumber],
    ) -> Result<Vec<Registration>, EngineError> {
        self.ready()?;
        let mut found = Vec::with_capacity(phones.len());
        for some in phones.chunks(REGISTRATIONS_MAX) {
            let jids: Vec<LibraryJid> = some
                .iter()
                .map(|phone| LibraryJid::pn(phone.digits()))
                .collect();
            let answers = self
                .inner()
                .client
                .contacts()
                .is_on_whatsapp(&jids)
                .await
                .map_err(|error| EngineError::from_library("looking up numbers", error))?;
            for (phone, asked) in some.iter().zip(&jids) {
                let answer = answers.iter().find(|answer| {
                    answer.jid.user == asked.user
                        || answer
                            .pn_jid
                            .as_ref()
                            .is_some_and(|pn| pn.user == asked.user)
                });
                let answer = answer.filter(|answer| answer.is_registered);
                found.push(Registration {
                    phone: phone.clone(),
                    jid: answer.map(|_| Jid::pn(phone.digits())),
                    lid: answer
                        .and_then(|answer| answer.lid.as_ref())
                        .and_then(account),
                });
            }
        }
        Ok(found)
    }

    /// Tells WhatsApp that the owner read messages of a chat here; `sender` only in groups.
    pub async fn mark_read(
        &self,
        chat: &Jid,
        sender: Option<&Jid>,
        ids: &[WaMessageId],
    ) -> Result<(), EngineError> {
        self.ready()?;
        let (chat, sender) = (to_library(chat), sender.map(to_library));
        let ids: Vec<&str> = ids.iter().map(WaMessageId::as_str).collect();
        let marked = self
            .inner()
            .client
            .mark_as_read(&chat, sender.as_ref(), &ids);
        marked.await.map_err(|source| EngineError::Protocol {
            doing: "marking as read",
            source: source.into(),
        })
    }

    /// Shows the owner as online, or not (the default, engine rule 9), for this and later connections.
    pub async fn set_online(&self, online: bool) -> Result<(), EngineError> {
        self.inner().online.store(online, Ordering::SeqCst);
        self.ready()?;
        let presence = self.inner().client.presence();
        let set = if online {
            presence.set_available().await
        } else {
            presence.set_unavailable().await
        };
        set.map_err(|error| EngineError::from_library("setting presence", error))
    }

    /// Unlinks at WhatsApp, starting and connecting the device if need be, and ends it with
    /// `Ended::LoggedOut`. Whether WhatsApp was told.
    ///
    /// The keys are worthless afterwards; deleting them is the caller's, through the store.
    pub async fn logout(&self) -> bool {
        let inner = self.inner();
        let client = &inner.client;
        let mut told = false;
        if client.pn().is_some() && !inner.stop.is_cancelled() {
            self.start();
            self.reconnect_now();
            let up = tokio::select! {
                up = client.wait_for_connected(LOGOUT_CONNECT) => up.is_ok(),
                () = inner.done.cancelled() => false,
            };
            if let (true, Some(jid)) = (up, client.pn()) {
                let unlink = client.execute(RemoveCompanionDeviceSpec::new(&jid));
                let answer = tokio::time::timeout(LOGOUT_ANSWER, unlink).await;
                // WhatsApp may cut the connection quicker than it answers.
                let cut_off = matches!(inner.hub.terminal(), Some(Ended::LoggedOut { .. }));
                told = cut_off || matches!(answer, Ok(Ok(_)));
            }
        }
        let reason = "logged out as asked".to_owned();
        inner.hub.terminate(Ended::LoggedOut { reason });
        self.stop().await;
        told
    }

    /// Flushes what is owed, closes the connection, keeps the keys; ends with `Ended::Stopped`.
    ///
    /// Returns when the device does nothing any more. The events must be taken meanwhile.
    pub async fn stop(&self) {
        let inner = self.inner();
        inner.stop.cancel();
        let parts = self
            .0
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((_, events)) = parts else {
            inner.done.cancelled().await;
            return;
        };
        // Never started: nobody forwards events, so the last one goes out from here.
        inner.client.disconnect().await;
        inner.done.cancel();
        let why = inner.hub.terminal().unwrap_or(Ended::Stopped);
        if events.send(EngineEvent::Ended(why)).await.is_err() {
            tracing::debug!("nobody waited for the end of a device that was never started");
        }
    }

    /// Who this device is linked to, if it is.
    pub fn identity(&self) -> Option<Identity> {
        self.inner().hub.identity()
    }

    /// Logged in, so that sending can work.
    pub fn is_connected(&self) -> bool {
        self.inner().is_ready()
    }

    pub fn stats(&self) -> DeviceStats {
        let inner = self.inner();
        let wire = inner.client.stats();
        let (ack_timeouts, nacks, acks_dropped) = inner.hub.acks.counters();
        DeviceStats {
            connected: inner.is_ready(),
            logins: inner.hub.logins(),
            awaiting_ack: inner.hub.acks.waiting(),
            messages_written: inner.written.load(Ordering::Relaxed),
            ack_timeouts,
            nacks,
            acks_dropped,
            receipts_missed: inner.hub.receipts_missed(),
            bytes_sent: wire.bytes_sent,
            bytes_received: wire.bytes_received,
        }
    }

    fn ready(&self) -> Result<(), EngineError> {
        let inner = self.inner();
        if inner.stop.is_cancelled() || inner.done.is_cancelled() {
            Err(EngineError::Stopped)
        } else if inner.is_ready() {
            Ok(())
        } else if inner.client.pn().is_none() {
            Err(EngineError::NotLinked)
        } else {
            Err(EngineError::NotConnected)
        }
    }
}

impl Inner {
    fn is_ready(&self) -> bool {
        self.client.is_connected() && self.client.is_logged_in()
    }

    /// Makes sure, before the first message to somebody, that it reaches a device of his.
    ///
    /// The library sends to whichever devices it has keys for, also when these are only our own, and
    /// says `Ok` (engine rule 3).
    async fn reach(&self, jid: &LibraryJid) -> Result<(), EngineError> {
        if jid.is_group() || self.is_own(jid) {
            return Ok(());
        }
        let name = jid.to_string();
        if self.known_to_reach(|reached| reached.contains(name.as_str())) {
            return Ok(());
        }
        self.learn_lid(jid).await?;
        let signal = self.client.signal();
        let asserted = signal.assert_sessions(std::slice::from_ref(jid)).await;
        let failure = match asserted {
            Ok(()) => None,
            Err(error) => Some(EngineError::from_library("fetching keys", error)),
        };
        if let Some(error @ (EngineError::NotConnected | EngineError::Timeout { .. })) = failure {
            return Err(error);
        }
        let valid = signal
            .validate_session(jid)
            .await
            .map_err(|error| EngineError::from_library("checking keys", error))?;
        if valid {
            self.reaches(&name);
            return Ok(());
        }
        self.why_unreachable(&self.client, jid, failure).await
    }

    /// Asks for the account's LID before there are keys for it.
    ///
    /// The library keeps keys under the LID once it knows it, and its send asks for it, which would be
    /// too late: keys fetched before lie under the number, and to move them it looks through two hundred
    /// possible devices and keeps a lock for each address, 160 KiB a contact.
    async fn learn_lid(&self, jid: &LibraryJid) -> Result<(), EngineError> {
        if !jid.is_pn() || self.knows_lid(jid).await {
            return Ok(());
        }
        let (high, low, number): (u8, u8, u16) = rand::random();
        let query = LidQuerySpec::new(vec![jid.clone()], format!("{high}.{low}-{number}"));
        let answer = match self.client.execute(query).await {
            Ok(answer) => answer,
            Err(error) => {
                let error = EngineError::from_library("asking for a LID", error);
                if let EngineError::NotConnected | EngineError::Timeout { .. } = error {
                    return Err(error);
                }
                // An account without one is written to by its number.
                tracing::debug!(%error, "the LID of a recipient is not known");
                return Ok(());
            }
        };
        for found in answer.lid_mappings {
            let learned = self.client.add_lid_pn_mapping(
                &found.lid,
                &found.phone_number,
                LearningSource::Usync,
            );
            if let Err(error) = learned.await {
                tracing::debug!(%error, "the LID of a recipient was not stored");
            }
        }
        Ok(())
    }

    /// Stores what was decrypted, so that nothing is encrypted on top of what a crash would undo.
    async fn store_ratchets(&self) -> Result<(), EngineError> {
        let ratchets = &self.backend.ratchets;
        if !ratchets.are_ahead() {
            return Ok(());
        }
        let moved = ratchets.now();
        let stored = self.client.flush_pending_signal_state().await;
        stored.map_err(|error| {
            tracing::debug!(%error, "decrypted messages' keys were not stored before a send");
            EngineError::Store(StoreError::Busy)
        })?;
        ratchets.stored(moved);
        Ok(())
    }

    async fn knows_lid(&self, jid: &LibraryJid) -> bool {
        matches!(self.client.get_lid_pn_entry(jid).await, Ok(Some(_)))
    }

    async fn why_unreachable(
        &self,
        client: &Client,
        jid: &LibraryJid,
        failure: Option<EngineError>,
    ) -> Result<(), EngineError> {
        let Some(ours) = account(jid) else {
            return Err(EngineError::Invalid("not an account's address".to_owned()));
        };
        let answers = client
            .contacts()
            .is_on_whatsapp(std::slice::from_ref(jid))
            .await;
        match answers {
            Ok(answers) if !answers.iter().any(|answer| answer.is_registered) => {
                Err(EngineError::NotOnWhatsApp(ours))
            }
            _ => Err(failure.unwrap_or(EngineError::NoUsableDevice(ours))),
        }
    }

    fn is_own(&self, jid: &LibraryJid) -> bool {
        let own = |own: Option<LibraryJid>| own.is_some_and(|own| own.is_same_user_as(jid));
        own(self.client.pn()) || own(self.client.lid())
    }

    /// Notes that a message to this address reaches a device.
    fn reaches(&self, name: &str) {
        self.known_to_reach(|reached| {
            if reached.len() >= REACHED_MAX {
                reached.clear();
            }
            reached.insert(name.into());
        });
    }

    fn known_to_reach<R>(
        &self,
        f: impl FnOnce(&mut std::collections::HashSet<Box<str>>) -> R,
    ) -> R {
        f(&mut self.reached.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
