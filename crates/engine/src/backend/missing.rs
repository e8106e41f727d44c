//! Messages that came again, cannot be decrypted again, and are not stored.
//!
//! The library writes Signal's sessions behind, all that changed in one go, while messages that it has just
//! decrypted are still on their way to their buffer. A process that dies between the two leaves a session
//! that is past a message which nobody kept. WhatsApp delivers it again, the library takes it for a
//! duplicate and would acknowledge it: lost (IN-1). So a duplicate that is neither buffered nor stored is
//! not acknowledged, and its sender is asked to send it again, as for one that could not be decrypted.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use wacore::store::traits::{DeviceStore as _, ProtocolStore as _};
use wacore_binary::{Jid as LibraryJid, JidExt as _};
use wagate_domain::{Jid, WaMessageId};
use wagate_store::messages;

use super::protocol::inbound_key;
use super::{Result, SessionBackend, bad_data};
use crate::jid::account;

/// Requests that wait at most; what is not noted is delivered again by the next connection.
const ASK_MAX: usize = 1_000;
/// Messages of which is remembered that they need nothing more.
const SETTLED_MAX: usize = 1_000;

/// One message that its sender must send again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Missing {
    pub(crate) chat: LibraryJid,
    /// The device that wrote it.
    pub(crate) sender: LibraryJid,
    pub(crate) id: String,
}

/// What is missing, and what is not.
#[derive(Debug, Default)]
pub(crate) struct MissingInbound {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    ask: VecDeque<Missing>,
    /// Keys of messages that were committed (not all are stored: some are for devices only) or given up.
    settled: HashSet<String>,
    order: VecDeque<String>,
}

impl MissingInbound {
    /// Waits until something is missing.
    pub(crate) async fn noticed(&self) {
        self.news.notified().await;
    }

    /// What to ask for now.
    pub(crate) fn take(&self) -> VecDeque<Missing> {
        std::mem::take(&mut self.lock().ask)
    }

    /// Puts back what could not be asked for yet.
    pub(crate) fn put_back(&self, mut missing: VecDeque<Missing>) {
        let mut state = self.lock();
        missing.append(&mut state.ask);
        state.ask = missing;
    }

    /// Nobody will send it again: the next duplicate is acknowledged.
    pub(crate) fn give_up(&self, missing: &Missing) {
        let (chat, sender) = (missing.chat.to_string(), missing.sender.to_string());
        self.settle([inbound_key(&chat, &sender, &missing.id)]);
    }

    /// Notes what was committed.
    pub(super) fn settle(&self, keys: impl IntoIterator<Item = String>) {
        let mut state = self.lock();
        for key in keys {
            if !state.settled.insert(key.clone()) {
                continue;
            }
            state.order.push_back(key);
            if state.order.len() > SETTLED_MAX
                && let Some(oldest) = state.order.pop_front()
            {
                state.settled.remove(&oldest);
            }
        }
    }

    fn is_settled(&self, key: &str) -> bool {
        self.lock().settled.contains(key)
    }

    fn ask(&self, missing: Missing) {
        let mut state = self.lock();
        if state.ask.len() < ASK_MAX && !state.ask.contains(&missing) {
            state.ask.push_back(missing);
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that was decrypted once, and is nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the message was not kept; its sender is asked to send it again")]
struct NotKept;

impl SessionBackend {
    /// Fails for a duplicate that is neither buffered nor stored: upon an error, and upon nothing else,
    /// the library leaves it unacknowledged. Its sender will be asked.
    pub(super) async fn refuse_missing(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        if self.is_missing(chat, sender, id).await? {
            return Err(bad_data(NotKept));
        }
        Ok(())
    }

    /// What the owner's own devices sent is not asked for: to repeat that to oneself is not possible.
    async fn is_missing(&self, chat: &str, sender: &str, id: &str) -> Result<bool> {
        let key = inbound_key(chat, sender, id);
        let (Ok(chat), Ok(sender)) = (chat.parse::<LibraryJid>(), sender.parse::<LibraryJid>())
        else {
            return Ok(false);
        };
        let askable = chat.is_group() || chat.is_same_user_as(&sender);
        if !askable || self.missing.is_settled(&key) || self.is_own(&sender).await? {
            return Ok(false);
        }
        let Ok(wa_id) = WaMessageId::parse(id) else {
            return Ok(false);
        };
        let chats = self.addresses(&chat).await?;
        let senders = self.addresses(&sender).await?;
        let stored = self
            .rows
            .read(move |tx, session| messages::has_inbound(tx, session, &chats, &senders, &wa_id))
            .await?;
        if stored {
            return Ok(false);
        }
        let id = id.to_owned();
        self.missing.ask(Missing { chat, sender, id });
        Ok(true)
    }

    async fn is_own(&self, jid: &LibraryJid) -> Result<bool> {
        let Some(device) = self.load().await? else {
            return Ok(false);
        };
        let own = [device.pn, device.lid];
        Ok(own.iter().flatten().any(|own| own.is_same_user_as(jid)))
    }

    /// The addresses under which a chat or writer may be stored.
    pub(super) async fn addresses(&self, jid: &LibraryJid) -> Result<Vec<Jid>> {
        let mut addresses: Vec<Jid> = account(jid).into_iter().collect();
        if jid.is_lid() {
            let entry = self.get_lid_mapping(&jid.user).await?;
            addresses.extend(entry.map(|entry| Jid::pn(&*entry.phone_number)));
        } else if !jid.is_group() {
            let entry = self.get_pn_mapping(&jid.user).await?;
            addresses.extend(entry.map(|entry| Jid::lid(&*entry.lid)));
        }
        Ok(addresses)
    }
}
