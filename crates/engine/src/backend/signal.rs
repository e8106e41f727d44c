//! Signal's keys and sessions.
//!
//! A prekey's value is its record behind one byte that says whether WhatsApp has it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use wacore::store::traits::SignalStore;
use wagate_domain::plant;
use wagate_store::device_state::{self, Put, StateKind};

use super::{Result, SessionBackend, kind, wrong_form};

fn number_key(id: u32) -> String {
    // Ten digits, so that the order of keys is the order of numbers.
    format!("{id:010}")
}

fn prekey_put(id: u32, record: &[u8], uploaded: bool) -> Put {
    let mut value = Vec::with_capacity(record.len() + 1);
    value.push(u8::from(uploaded));
    value.extend_from_slice(record);
    Put {
        kind: kind::PREKEY,
        key: number_key(id),
        value,
    }
}

fn prekey_record(value: Vec<u8>) -> Result<Bytes> {
    if value.is_empty() {
        return Err(wrong_form("prekey"));
    }
    Ok(Bytes::from(value).slice(1..))
}

fn puts<V: AsRef<[u8]>>(kind: StateKind, rows: &[(Arc<str>, V)]) -> Vec<Put> {
    rows.iter()
        .map(|(key, value)| Put {
            kind,
            key: key.to_string(),
            value: value.as_ref().to_vec(),
        })
        .collect()
}

#[async_trait]
impl SignalStore for SessionBackend {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.put_identities_batch(&[(Arc::from(address), key)])
            .await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        self.put_user_rows(puts(kind::IDENTITY, identities)).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        match self
            .patiently(|| self.user_row(kind::IDENTITY, address))
            .await?
        {
            None => Ok(None),
            Some(bytes) => bytes
                .as_ref()
                .try_into()
                .map(Some)
                .map_err(|_| wrong_form("identity key")),
        }
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.delete_user_row(kind::IDENTITY, address).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        self.patiently(|| self.user_row(kind::SESSION, address))
            .await
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.may_store_sessions()?;
        let put = Put {
            kind: kind::SESSION,
            key: address.to_owned(),
            value: session.to_vec(),
        };
        self.put_user_rows(vec![put]).await
    }

    // SL-2: one transaction, durable before Ok; the library has leased counters on the strength of it.
    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.may_store_sessions()?;
        if plant::is("signal_not_durable") {
            let mut known = true;
            for (address, _) in sessions {
                known &= self.has_session(address).await?;
            }
            if known {
                return Ok(());
            }
        }
        let moved = self.ratchets.now();
        self.put_user_rows(puts(kind::SESSION, sessions)).await?;
        self.ratchets.stored(moved);
        Ok(())
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.delete_user_row(kind::SESSION, address).await
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        self.patiently(|| self.user_row_exists(kind::SESSION, address))
            .await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        self.user_has_signal_state(user).await
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.put_all(vec![prekey_put(id, record, uploaded)]).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], uploaded: bool) -> Result<()> {
        self.put_all(
            keys.iter()
                .map(|(id, record)| prekey_put(*id, record, uploaded))
                .collect(),
        )
        .await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        let read = || self.get_one(kind::PREKEY, number_key(id));
        let value = self.patiently(read).await?;
        value.map(prekey_record).transpose()
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let keys: Vec<String> = ids.iter().map(|id| number_key(*id)).collect();
        let rows = self
            .rows
            .read(move |tx, session| device_state::get_many(tx, session, kind::PREKEY, &keys))
            .await?;
        rows.into_iter()
            .map(|(key, value)| {
                let id = key.parse().map_err(|_| wrong_form("prekey number"))?;
                Ok((id, prekey_record(value)?))
            })
            .collect()
    }

    async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<()> {
        let keys: Vec<String> = ids.iter().map(|id| number_key(*id)).collect();
        self.rows
            .write(move |tx, lease| {
                // Reading and writing in one transaction: a key used up meanwhile stays deleted.
                let rows = device_state::get_many(tx, &lease.session, kind::PREKEY, &keys)?;
                let marked: Vec<Put> = rows
                    .into_iter()
                    .filter(|(_, value)| value.first() == Some(&0))
                    .map(|(key, mut value)| {
                        value[0] = 1;
                        Put {
                            kind: kind::PREKEY,
                            key,
                            value,
                        }
                    })
                    .collect();
                device_state::update_many(tx, lease, &marked)
            })
            .await
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.delete_some(kind::PREKEY, vec![number_key(id)]).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        let keys = self
            .rows
            .read(|tx, session| device_state::keys(tx, session, kind::PREKEY, ""))
            .await?;
        match keys.last() {
            None => Ok(0),
            Some(key) => key.parse().map_err(|_| wrong_form("prekey number")),
        }
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.put_one(kind::SIGNED_PREKEY, number_key(id), record.to_vec())
            .await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.patiently(|| self.get_one(kind::SIGNED_PREKEY, number_key(id)))
            .await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows = self
            .rows
            .read(|tx, session| device_state::load_all(tx, session, kind::SIGNED_PREKEY))
            .await?;
        rows.into_iter()
            .map(|(key, value)| {
                Ok((
                    key.parse()
                        .map_err(|_| wrong_form("signed prekey number"))?,
                    value,
                ))
            })
            .collect()
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.delete_some(kind::SIGNED_PREKEY, vec![number_key(id)])
            .await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.put_one(kind::SENDER_KEY, address.to_owned(), record.to_vec())
            .await
    }

    // SL-2, as for sessions.
    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put_all(puts(kind::SENDER_KEY, sender_keys)).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.patiently(|| self.get_one(kind::SENDER_KEY, address))
            .await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.delete_some(kind::SENDER_KEY, vec![address.to_owned()])
            .await
    }
}
