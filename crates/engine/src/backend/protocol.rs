//! What the protocol wants remembered beside Signal: device lists, LID mappings, tokens, sent messages,
//! and messages that came but are not committed yet.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore,
    TcTokenEntry,
};
use wagate_store::device_state::{self, Put};
use wagate_store::{Lease, StoreError, Tx};

use super::cache::Change;
use super::{Result, SessionBackend, bad_data, from_json, kind, to_json, wrong_form};

/// So many keys of committed inbound messages wait at most for the next write to take them along.
const PENDING_DELETES_MAX: usize = 128;

/// Inbound messages that are committed, and whose buffered rows may go with the next write.
///
/// They are gone for every reader at once. Should the process die before, a row is replayed once more,
/// and the commit recognises it (IN-1).
#[derive(Debug, Default)]
pub(super) struct PendingDeletes(Mutex<HashSet<String>>);

impl PendingDeletes {
    fn with<R>(&self, f: impl FnOnce(&mut HashSet<String>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn inbound_key(chat: &str, sender: &str, id: &str) -> String {
    format!("{chat}|{sender}|{id}")
}

pub(super) fn pair_key(first: &str, second: &str) -> String {
    format!("{first}|{second}")
}

/// Seconds, then the payload.
fn stamped(at: i64, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(payload.len() + 8);
    value.extend_from_slice(&at.to_be_bytes());
    value.extend_from_slice(payload);
    value
}

fn unstamped(value: &[u8]) -> Result<(i64, &[u8])> {
    let (at, payload) = value
        .split_first_chunk::<8>()
        .ok_or_else(|| wrong_form("stamped row"))?;
    Ok((i64::from_be_bytes(*at), payload))
}

type SenderKeyDevices = std::collections::BTreeMap<String, bool>;

fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt {
        what: what.to_owned(),
    }
}

fn group_devices(
    tx: &mut Tx<'_>,
    lease: &Lease,
    group: &str,
) -> std::result::Result<SenderKeyDevices, StoreError> {
    match device_state::get(tx, &lease.session, kind::SENDER_KEY_DEVICES, group)? {
        None => Ok(SenderKeyDevices::new()),
        Some(value) => serde_json::from_slice(&value).map_err(|_| corrupt("sender key devices")),
    }
}

fn put_group_devices(
    tx: &mut Tx<'_>,
    lease: &Lease,
    group: &str,
    devices: &SenderKeyDevices,
) -> std::result::Result<(), StoreError> {
    let value = serde_json::to_vec(devices).map_err(|_| corrupt("sender key devices"))?;
    let put = Put {
        kind: kind::SENDER_KEY_DEVICES,
        key: group.to_owned(),
        value,
    };
    device_state::put_many(tx, lease, &[put])
}

fn lid_puts(entries: &[LidPnMappingEntry]) -> Result<Vec<Put>> {
    let mut puts = Vec::with_capacity(entries.len() * 2);
    for entry in entries {
        puts.push(Put {
            kind: kind::LID,
            key: entry.lid.clone(),
            value: to_json(entry)?,
        });
        puts.push(Put {
            kind: kind::PN,
            key: entry.phone_number.clone(),
            value: entry.lid.clone().into_bytes(),
        });
    }
    Ok(puts)
}

fn device_list_put(record: &DeviceListRecord) -> Result<Put> {
    Ok(Put {
        kind: kind::DEVICE_LIST,
        key: record.user.clone(),
        value: to_json(record)?,
    })
}

impl SessionBackend {
    /// Changes a contact's token in one transaction; `None` from `change` leaves it.
    async fn change_tc_token(
        &self,
        jid: &str,
        change: impl FnOnce(Option<TcTokenEntry>) -> Option<TcTokenEntry> + Send + 'static,
    ) -> Result<()> {
        let key = jid.to_owned();
        self.write_user_rows(move |tx, lease| {
            let stored = device_state::get(tx, &lease.session, kind::TC_TOKEN, &key)?;
            let stored = stored
                .map(|value| serde_json::from_slice(&value).map_err(|_| corrupt("token")))
                .transpose()?;
            let Some(entry) = change(stored) else {
                return Ok(((), Vec::new()));
            };
            let value = serde_json::to_vec(&entry).map_err(|_| corrupt("token"))?;
            let put = Put {
                kind: kind::TC_TOKEN,
                key,
                value,
            };
            device_state::put_many(tx, lease, std::slice::from_ref(&put))?;
            Ok(((), vec![Change::Put(put)]))
        })
        .await
    }

    /// Deletes the rows of inbound messages that were committed since the last time.
    pub(super) async fn flush_pending_deletes(&self) -> Result<()> {
        let keys: Vec<String> = self
            .pending
            .with(|pending| pending.iter().cloned().collect());
        if keys.is_empty() {
            return Ok(());
        }
        self.delete_some(kind::PENDING_INBOUND, keys.clone())
            .await?;
        self.pending
            .with(|pending| pending.retain(|key| !keys.contains(key)));
        Ok(())
    }
}

#[async_trait]
impl ProtocolStore for SessionBackend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let value = self.get_one(kind::SENDER_KEY_DEVICES, group_jid).await?;
        let devices: SenderKeyDevices = value
            .as_deref()
            .map(from_json)
            .transpose()?
            .unwrap_or_default();
        Ok(devices.into_iter().collect())
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let group = group_jid.to_owned();
        let entries: Vec<(String, bool)> = entries
            .iter()
            .map(|(device, has_key)| ((*device).to_owned(), *has_key))
            .collect();
        self.rows
            .write(move |tx, lease| {
                let mut devices = group_devices(tx, lease, &group)?;
                devices.extend(entries);
                put_group_devices(tx, lease, &group, &devices)
            })
            .await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.delete_some(kind::SENDER_KEY_DEVICES, vec![group_jid.to_owned()])
            .await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        let gone: HashSet<String> = device_jids.iter().map(|jid| (*jid).to_owned()).collect();
        self.rows
            .write(move |tx, lease| {
                let groups = device_state::keys(tx, &lease.session, kind::SENDER_KEY_DEVICES, "")?;
                for group in groups {
                    let mut devices = group_devices(tx, lease, &group)?;
                    let before = devices.len();
                    devices.retain(|jid, _| !gone.contains(jid));
                    if devices.len() != before {
                        put_group_devices(tx, lease, &group, &devices)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.rows
            .write(|tx, lease| {
                device_state::delete_kind(tx, lease, kind::SENDER_KEY_DEVICES).map(drop)
            })
            .await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        let value = self.get_one(kind::LID, lid).await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let phone = phone.to_owned();
        let value = self
            .rows
            .read(move |tx, session| {
                let Some(lid) = device_state::get(tx, session, kind::PN, &phone)? else {
                    return Ok(None);
                };
                device_state::get(tx, session, kind::LID, &String::from_utf8_lossy(&lid))
            })
            .await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let puts = lid_puts(entries)?;
        let entries = entries.to_vec();
        self.rows
            .write(move |tx, lease| {
                for entry in &entries {
                    forget_old_number(tx, lease, entry)?;
                }
                device_state::put_many(tx, lease, &puts)
            })
            .await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let rows = self
            .rows
            .read(|tx, session| device_state::load_all(tx, session, kind::LID))
            .await?;
        rows.iter().map(|(_, value)| from_json(value)).collect()
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.put_one(
            kind::BASE_KEY,
            pair_key(address, message_id),
            base_key.to_vec(),
        )
        .await
    }

    async fn has_same_base_key(
        &self,
        address: &str,
        message_id: &str,
        current_base_key: &[u8],
    ) -> Result<bool> {
        let stored = self
            .get_one(kind::BASE_KEY, pair_key(address, message_id))
            .await?;
        Ok(stored.is_some_and(|stored| stored == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.delete_some(kind::BASE_KEY, vec![pair_key(address, message_id)])
            .await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.put_user_rows(vec![device_list_put(&record)?]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let puts = records
            .iter()
            .map(device_list_put)
            .collect::<Result<Vec<_>>>()?;
        self.put_user_rows(puts).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        let value = self.user_row(kind::DEVICE_LIST, user).await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.delete_user_row(kind::DEVICE_LIST, user).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.get_one(kind::GROUP, group_jid).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.put_one(kind::GROUP, group_jid.to_owned(), blob.to_vec())
            .await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.delete_some(kind::GROUP, vec![group_jid.to_owned()])
            .await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let value = self.user_row(kind::TC_TOKEN, jid).await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let put = Put {
            kind: kind::TC_TOKEN,
            key: jid.to_owned(),
            value: to_json(entry)?,
        };
        self.put_user_rows(vec![put]).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.delete_user_row(kind::TC_TOKEN, jid).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        self.rows
            .read(|tx, session| device_state::keys(tx, session, kind::TC_TOKEN, ""))
            .await
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let rows = self
            .rows
            .read(|tx, session| device_state::load_all(tx, session, kind::TC_TOKEN))
            .await?;
        let expired = move |entry: &TcTokenEntry| {
            let token_live = !entry.token.is_empty() && entry.token_timestamp >= token_cutoff;
            let sender_live = entry.sender_timestamp.is_some_and(|at| at >= sender_cutoff);
            !token_live && !sender_live
        };
        let mut keys = Vec::new();
        for (key, value) in rows {
            if expired(&from_json(&value)?) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Ok(0);
        }
        let deleted = self
            .write_user_rows(move |tx, lease| {
                // Looked at again inside the transaction: a token may have been renewed meanwhile.
                let rows = device_state::get_many(tx, &lease.session, kind::TC_TOKEN, &keys)?;
                let gone: Vec<String> = rows
                    .into_iter()
                    .filter(|(_, value)| serde_json::from_slice(value).is_ok_and(|e| expired(&e)))
                    .map(|(key, _)| key)
                    .collect();
                let deleted = device_state::delete_many(tx, lease, kind::TC_TOKEN, &gone)?;
                let changes = gone
                    .into_iter()
                    .map(|key| Change::Delete(kind::TC_TOKEN, key));
                Ok((deleted, changes.collect()))
            })
            .await?;
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }

    async fn touch_tc_token_sender_timestamp(
        &self,
        jid: &str,
        sender_timestamp: i64,
    ) -> Result<()> {
        self.change_tc_token(jid, move |stored| {
            let mut entry = stored.unwrap_or(TcTokenEntry {
                token: Vec::new(),
                token_timestamp: sender_timestamp,
                sender_timestamp: None,
            });
            entry.sender_timestamp = entry.sender_timestamp.max(Some(sender_timestamp));
            Some(entry)
        })
        .await
    }

    async fn store_received_tc_token(
        &self,
        jid: &str,
        token: &[u8],
        token_timestamp: i64,
    ) -> Result<()> {
        let token = token.to_vec();
        self.change_tc_token(jid, move |stored| {
            let sender_timestamp = match &stored {
                Some(known)
                    if !known.token.is_empty() && token_timestamp < known.token_timestamp =>
                {
                    return None;
                }
                Some(known) => known.sender_timestamp,
                None => None,
            };
            Some(TcTokenEntry {
                token,
                token_timestamp,
                sender_timestamp,
            })
        })
        .await
    }

    async fn store_sent_message(
        &self,
        chat_jid: &str,
        message_id: &str,
        payload: &[u8],
    ) -> Result<()> {
        self.keep_sent(chat_jid, message_id, payload).await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        self.asked_again(chat_jid, message_id).await
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        let stale = self
            .sent
            .stale(cutoff_timestamp, self.clock.now().as_secs());
        self.sweep(&self.sent, stale).await
    }

    async fn store_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
        message: &[u8],
    ) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow {
            chat,
            sender,
            id,
            message,
        }])
        .await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let now = self.clock.now().as_secs();
        let puts: Vec<Put> = rows
            .iter()
            .map(|row| Put {
                kind: kind::PENDING_INBOUND,
                key: inbound_key(row.chat, row.sender, row.id),
                value: stamped(now, row.message),
            })
            .collect();
        let again: HashSet<String> = puts.iter().map(|put| put.key.clone()).collect();
        // What is committed goes with this write, except what is stored again by it.
        let done: Vec<String> = self.pending.with(|pending| {
            pending.retain(|key| !again.contains(key));
            pending.iter().cloned().collect()
        });
        let (puts, deleted) = (Arc::new(puts), Arc::new(done.clone()));
        // The ratchet in the library's memory is past these messages: what is refused now could never be
        // decrypted again, however often it is delivered. So this waits until the database is back.
        self.insist(|| {
            let (puts, deleted) = (Arc::clone(&puts), Arc::clone(&deleted));
            self.rows.write(move |tx, lease| {
                device_state::delete_many(tx, lease, kind::PENDING_INBOUND, &deleted)?;
                device_state::put_many(tx, lease, &puts)
            })
        })
        .await?;
        self.ratchets.moved();
        self.pending
            .with(|pending| pending.retain(|key| !done.contains(key)));
        Ok(())
    }

    async fn get_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>> {
        let key = inbound_key(chat, sender, id);
        if self.pending.with(|pending| pending.contains(&key)) {
            return Ok(None);
        }
        if let Some(value) = self.get_one(kind::PENDING_INBOUND, key).await? {
            return Ok(Some(unstamped(&value)?.1.to_vec()));
        }
        self.refuse_missing(chat, sender, id).await.map(|()| None)
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.delete_pending_inbound_batch(&[PendingInboundKey { chat, sender, id }])
            .await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let key = |key: &PendingInboundKey<'_>| inbound_key(key.chat, key.sender, key.id);
        self.missing.settle(keys.iter().map(key));
        let waiting = self.pending.with(|pending| {
            pending.extend(keys.iter().map(key));
            pending.len()
        });
        if waiting > PENDING_DELETES_MAX {
            self.flush_pending_deletes().await
        } else {
            Ok(())
        }
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.flush_pending_deletes().await?;
        let rows = self
            .rows
            .read(|tx, session| device_state::load_all(tx, session, kind::PENDING_INBOUND))
            .await?;
        let mut expired = Vec::new();
        for (key, value) in rows {
            if unstamped(&value)?.0 < cutoff_timestamp {
                expired.push(key);
            }
        }
        let count = u32::try_from(expired.len()).map_err(bad_data)?;
        self.delete_some(kind::PENDING_INBOUND, expired).await?;
        Ok(count)
    }
}

/// A LID that moved to another number no longer answers for the old one.
fn forget_old_number(
    tx: &mut Tx<'_>,
    lease: &Lease,
    entry: &LidPnMappingEntry,
) -> std::result::Result<(), StoreError> {
    let Some(value) = device_state::get(tx, &lease.session, kind::LID, &entry.lid)? else {
        return Ok(());
    };
    let stored: LidPnMappingEntry =
        serde_json::from_slice(&value).map_err(|_| corrupt("LID mapping"))?;
    if stored.phone_number == entry.phone_number {
        return Ok(());
    }
    // The old number may have got another LID meanwhile; that one stays.
    let names = device_state::get(tx, &lease.session, kind::PN, &stored.phone_number)?;
    if names.is_some_and(|lid| lid == entry.lid.as_bytes()) {
        device_state::delete_many(tx, lease, kind::PN, &[stored.phone_number])?;
    }
    Ok(())
}
