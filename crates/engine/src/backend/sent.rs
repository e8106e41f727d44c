//! What was sent, for a device that could not decrypt it and asks for it again (a retry receipt).
//!
//! The library says here what it sends, before it does, and asks for it here when a retry receipt comes.
//! A message of the queue lies in the store already and is not written once more; so it can be asked for
//! as long as it is stored. Whatever else the library sends waits five hours in a wheel.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wacore_binary::Jid as LibraryJid;
use wagate_domain::{Content, WaMessageId, failpoint};
use wagate_store::device_state::{self, Put};
use wagate_store::messages;
use waproto::codec::message_to_vec;

use super::protocol::pair_key;
use super::{Result, SessionBackend};
use crate::outbound;

/// The ids of queued messages that are being sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueuedIds(Arc<Mutex<HashSet<String>>>);

/// A queued message is being sent, as long as this lives.
#[derive(Debug)]
pub(crate) struct Queued {
    ids: QueuedIds,
    id: String,
}

impl QueuedIds {
    /// Says that the message with this id is in the store.
    pub(crate) fn begin(&self, id: &WaMessageId) -> Queued {
        let id = id.as_str().to_owned();
        self.lock().insert(id.clone());
        let ids = self.clone();
        Queued { ids, id }
    }

    fn has(&self, id: &str) -> bool {
        self.lock().contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.ids.lock().remove(&self.id);
    }
}

/// What was found of a sent message.
enum Found {
    Queued(Content),
    Other(Vec<u8>),
}

impl SessionBackend {
    /// Keeps what the library is about to send, unless the store has it.
    pub(super) async fn keep_sent(&self, chat: &str, id: &str, payload: &[u8]) -> Result<()> {
        if self.queued.has(id) {
            return Ok(());
        }
        let put = Put {
            kind: self.sent.spoke(self.clock.now().as_secs()),
            key: pair_key(chat, id),
            value: payload.to_vec(),
        };
        // Handed over for the next commit, which is before anybody can ask for it.
        self.rows.post(&[put]).await
    }

    /// What a device asks for again. That it asked is noted with it, durably, before the library answers:
    /// its answer may be refused, or never be given.
    ///
    /// A text is for those only to whom it was sent: for whoever knows the id of another chat's, there is none.
    ///
    /// Waits for a database that is away: the library would not answer, and WhatsApp does not ask twice.
    pub(super) async fn asked_again(&self, chat: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let wa_id = WaMessageId::parse(id).ok();
        let chats = match chat.parse::<LibraryJid>() {
            Ok(jid) => self.patiently(|| self.addresses(&jid)).await?,
            Err(_) => Vec::new(),
        };
        let due = self.clock.now().plus(self.resend_after);
        let found = self
            .patiently(|| {
                let (wa_id, chats, key) = (wa_id.clone(), chats.clone(), pair_key(chat, id));
                let kinds: Vec<_> = self.sent.kinds().collect();
                self.rows.write(move |tx, lease| {
                    if let Some(wa_id) = &wa_id
                        && let Some((chat, content)) = messages::sent(tx, &lease.session, wa_id)?
                    {
                        if !chats.contains(&chat) {
                            return Ok(None);
                        }
                        messages::note_asked_again(tx, lease, wa_id, due)?;
                        return Ok(Some(Found::Queued(content)));
                    }
                    // One transaction on the one writer: two takers cannot both find it. What was sent
                    // twice sits in two spokes; both go.
                    let mut taken = None;
                    for kind in kinds {
                        if let Some(value) = device_state::get(tx, &lease.session, kind, &key)? {
                            let one = std::slice::from_ref(&key);
                            if device_state::delete_many(tx, lease, kind, one)? > 0 {
                                taken = Some(Found::Other(value));
                            }
                        }
                    }
                    Ok(taken)
                })
            })
            .await?;
        failpoint::hit("asked_again");
        Ok(match found {
            Some(Found::Queued(content)) => {
                let secret = self.patiently(|| self.own_secret(id)).await?;
                // Accepted once, so it can be written once more.
                let message = outbound::message(&content, secret).ok();
                message.map(|message| message_to_vec(&message))
            }
            Some(Found::Other(payload)) => Some(payload),
            None => None,
        })
    }
}
