//! The secrets of messages, with which later votes, edits and reactions to them are decrypted.
//!
//! Rows sit in a wheel by their deadline; those without one are kept. The merge rules of the trait (the
//! later deadline wins, a known time of the parent is never lost) need no reading before a write: a row
//! with a later deadline sits in a later spoke and outlives the other, and reading merges what it finds.

use async_trait::async_trait;
use wacore::store::traits::{MsgSecretEntry, MsgSecretStore};
use wagate_store::When;
use wagate_store::device_state::{self, Put};

use super::wheel::{any_row, delete_kinds};
use super::{Result, SessionBackend, kind, wrong_form};

/// The longest retention that the wheel can tell apart; what lives longer is kept.
const DEADLINE_MAX_SECS: i64 = 14 * 8 * 24 * 3600;

fn row_key(chat: &str, sender: &str, msg_id: &str) -> String {
    format!("{chat}|{sender}|{msg_id}")
}

#[async_trait]
impl MsgSecretStore for SessionBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let now = self.clock.now().as_secs();
        let stored = entries.len();
        let puts = entries.into_iter().map(|entry| {
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
        let rows = self
            .rows
            .read(move |tx, session| {
                let mut rows = Vec::new();
                for kind in kinds {
                    rows.extend(device_state::get(tx, session, kind, &key)?);
                }
                Ok(rows)
            })
            .await?;
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
