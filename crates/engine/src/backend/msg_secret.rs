//! The secrets of messages, with which later votes, edits and reactions to them are decrypted.
//!
//! Those of the session's own queued messages are derived from one key and the message's id. So a message
//! has the same secret however often it is sent, and none of them needs a row: a row each would be a quarter
//! of all pages that a message changes.
//!
//! Those of others have rows, which sit in a wheel by their deadline; rows without one are kept. The merge
//! rules of the trait (the later deadline wins, a known time of the parent is never lost) need no reading
//! before a write: a row with a later deadline sits in a later spoke and outlives the other, and reading
//! merges what it finds.

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::OnceCell;
use wacore::store::traits::{MsgSecretEntry, MsgSecretStore};
use wagate_domain::WaMessageId;
use wagate_store::When;
use wagate_store::device_state::{self, Put};
use wagate_store::messages;

use super::wheel::{any_row, delete_kinds};
use super::{Result, SessionBackend, kind, wrong_form};

/// The longest retention that the wheel can tell apart; what lives longer is kept.
const DEADLINE_MAX_SECS: i64 = 14 * 8 * 24 * 3600;

/// What a message's add-ons are encrypted with.
pub(crate) type MessageSecret = [u8; 32];

/// The key of the session's own secrets, once it was read.
#[derive(Debug, Default)]
pub(super) struct OwnSecrets(OnceCell<OwnKey>);

struct OwnKey([u8; 32]);

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnKey")
    }
}

impl OwnKey {
    /// HMAC-SHA-256: whoever is told one secret, as each recipient is, learns nothing of the others.
    fn secret_of(&self, id: &str) -> Result<MessageSecret> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(super::bad_data)?;
        mac.update(b"wagate message secret");
        mac.update(id.as_bytes());
        Ok(mac.finalize().into_bytes().into())
    }
}

/// Where the key is, among rows of its kind.
const OWN: &str = "own";

fn row_key(chat: &str, sender: &str, msg_id: &str) -> String {
    format!("{chat}|{sender}|{msg_id}")
}

#[async_trait]
impl MsgSecretStore for SessionBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let now = self.clock.now().as_secs();
        let stored = entries.len();
        let own = self.own_key().await?;
        let is_own = |entry: &MsgSecretEntry| {
            let derived = own.secret_of(&entry.msg_id);
            derived.is_ok_and(|secret| secret == entry.secret)
        };
        let others = entries.into_iter().filter(|entry| !is_own(entry));
        let puts = others.map(|entry| {
            let kept = entry.expires_at == 0 || entry.expires_at > now + DEADLINE_MAX_SECS;
            let kind = match kept {
                true => kind::MSG_SECRET_KEPT,
                // A deadline that has passed still gets a whole span.
                false => self.secrets.spoke(entry.expires_at.max(now)),
            };
            let mut value = entry.secret.to_vec();
            value.extend_from_slice(&entry.message_ts.to_be_bytes());
            Put {
                kind,
                key: row_key(&entry.chat, &entry.sender, &entry.msg_id),
                value,
            }
        });
        // The library reads them from its buffer until this returns, and waits for nothing.
        let puts: Vec<Put> = puts.collect();
        self.rows.put(&puts, When::Soon).await?;
        Ok(stored)
    }

    async fn get_msg_secret(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<Vec<u8>>> {
        Ok(self
            .get_msg_secret_with_ts(chat, sender, msg_id)
            .await?
            .map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<(Vec<u8>, i64)>> {
        let key = row_key(chat, sender, msg_id);
        let kinds: Vec<_> = self
            .secrets
            .kinds()
            .chain([kind::MSG_SECRET_KEPT])
            .collect();
        let wa_id = WaMessageId::parse(msg_id).ok();
        let (rows, own) = self
            .rows
            .read(move |tx, session| {
                let mut rows = Vec::new();
                for kind in kinds {
                    rows.extend(device_state::get(tx, session, kind, &key)?);
                }
                let own = match &wa_id {
                    Some(wa_id) if rows.is_empty() => messages::sent_at(tx, session, wa_id)?,
                    _ => None,
                };
                Ok((rows, own))
            })
            .await?;
        if let Some(at) = own {
            return Ok(Some((
                self.own_secret(msg_id).await?.to_vec(),
                at.as_secs(),
            )));
        }
        let mut merged: Option<(Vec<u8>, i64)> = None;
        for row in rows {
            let (secret, at) = row
                .split_at_checked(32)
                .ok_or_else(|| wrong_form("secret"))?;
            let at = i64::from_be_bytes(at.try_into().map_err(|_| wrong_form("secret"))?);
            let latest = merged.as_ref().map_or(at, |(_, known)| at.max(*known));
            merged = Some((secret.to_vec(), latest));
        }
        Ok(merged)
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        // Deadlines lie at most this far ahead; what is before the cutoff has passed.
        let stale = self
            .secrets
            .stale(cutoff_timestamp, cutoff_timestamp + DEADLINE_MAX_SECS);
        self.sweep(&self.secrets, stale).await
    }
}

impl SessionBackend {
    /// The secret of the queued message with this id.
    pub(crate) async fn own_secret(&self, id: &str) -> Result<MessageSecret> {
        self.own_key().await?.secret_of(id)
    }

    /// Makes the key when it is asked for first; it is durable before anything is derived from it (SL-2).
    async fn own_key(&self) -> Result<&OwnKey> {
        let load = || async {
            if let Some(stored) = self.get_one(kind::MSG_SECRET_KEY, OWN).await? {
                return Ok(OwnKey(
                    stored.try_into().map_err(|_| wrong_form("secret's key"))?,
                ));
            }
            let key: [u8; 32] = rand::random();
            self.put_one(kind::MSG_SECRET_KEY, OWN.to_owned(), key.to_vec())
                .await?;
            Ok(OwnKey(key))
        };
        self.own_secrets.0.get_or_try_init(load).await
    }

    /// Empties spokes; asks first whether there is anything, since a commit costs more than a question.
    pub(super) async fn sweep(
        &self,
        wheel: &super::Wheel,
        stale: Vec<device_state::StateKind>,
    ) -> Result<u32> {
        if stale.is_empty() {
            return Ok(0);
        }
        let kinds = stale.clone();
        let any = self
            .rows
            .read(move |tx, session| any_row(tx, session, &kinds))
            .await?;
        let mut deleted = 0;
        if any {
            let kinds = stale.clone();
            deleted = self
                .rows
                .write(move |tx, lease| delete_kinds(tx, lease, &kinds))
                .await?;
        }
        wheel.cleared(&stale);
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }
}
