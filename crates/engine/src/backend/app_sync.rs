//! App state: its keys, the version of each collection, and the MACs of its entries.

use std::collections::HashMap;

use async_trait::async_trait;
use wacore::appstate::hash::HashState;
use wacore::appstate::processor::AppStateMutationMAC;
use wacore::store::traits::{AppStateSyncKey, AppSyncStore};
use wagate_store::device_state::{self, Put};

use super::{Result, SessionBackend, from_json, hex, kind, to_json, unhex};

/// The row of [`kind::META`] that names the newest app state key.
const LATEST_SYNC_KEY: &str = "latest_sync_key";

fn mac_key(collection: &str, index_mac: &[u8]) -> String {
    format!("{collection}:{}", hex(index_mac))
}

#[async_trait]
impl AppSyncStore for SessionBackend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        let value = self.get_one(kind::SYNC_KEY, hex(key_id)).await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let id = hex(key_id);
        self.put_all(vec![
            Put {
                kind: kind::META,
                key: LATEST_SYNC_KEY.to_owned(),
                value: id.clone().into_bytes(),
            },
            Put {
                kind: kind::SYNC_KEY,
                key: id,
                value: to_json(&key)?,
            },
        ])
        .await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        match self.get_one(kind::SYNC_VERSION, name).await? {
            Some(value) => from_json(&value),
            None => Ok(HashState::default()),
        }
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        self.put_one(kind::SYNC_VERSION, name.to_owned(), to_json(&state)?)
            .await
    }

    async fn put_mutation_macs(
        &self,
        name: &str,
        _version: u64,
        mutations: &[AppStateMutationMAC],
    ) -> Result<()> {
        let puts = mutations.iter().map(|mutation| Put {
            kind: kind::MUTATION_MAC,
            key: mac_key(name, &mutation.index_mac),
            value: mutation.value_mac.clone(),
        });
        self.put_all(puts.collect()).await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_one(kind::MUTATION_MAC, mac_key(name, index_mac))
            .await
    }

    async fn get_mutation_macs(
        &self,
        name: &str,
        index_macs: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let wanted: HashMap<String, [u8; 32]> = index_macs
            .iter()
            .map(|index| (mac_key(name, index), *index))
            .collect();
        let keys: Vec<String> = wanted.keys().cloned().collect();
        let rows = self
            .rows
            .read(move |tx, session| device_state::get_many(tx, session, kind::MUTATION_MAC, &keys))
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(key, value)| wanted.get(&key).map(|index| (*index, value)))
            .collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let keys = index_macs
            .iter()
            .map(|index| mac_key(name, index))
            .collect();
        self.delete_some(kind::MUTATION_MAC, keys).await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        let prefix = format!("{name}:");
        self.rows
            .write(move |tx, lease| {
                let keys = device_state::keys(tx, &lease.session, kind::MUTATION_MAC, &prefix)?;
                device_state::delete_many(tx, lease, kind::MUTATION_MAC, &keys).map(drop)
            })
            .await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        let value = self.get_one(kind::META, LATEST_SYNC_KEY).await?;
        value
            .map(|id| unhex(&String::from_utf8_lossy(&id)))
            .transpose()
    }
}
