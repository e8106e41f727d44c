//! API keys: a secret is shown once; its hash and a visible prefix are stored.
//!
//! A secret is `wg_<id>_<43 characters>`. The id finds the row, the hash is compared in constant time.
//! The random part has 256 bits, so that a plain SHA-256 is enough.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wagate_domain::{ApiKeyId, TenantId, Timestamp};

use crate::db::{Row, Tx, params};
use crate::error::StoreError;
use crate::seal::fill_random;

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub tenant: TenantId,
    pub name: String,
    /// The beginning of the secret, to recognise it by.
    pub prefix: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub expires_at: Option<Timestamp>,
}

/// Whom a secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyIdentity {
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub expires_at: Option<Timestamp>,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "API key" };
const ID_PREFIX: &str = "key_";

/// Creates a key and returns its secret, which can never be read again.
pub fn create(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    new: &NewApiKey,
    now: Timestamp,
) -> Result<(ApiKey, String), StoreError> {
    let id = ApiKeyId::generate();
    let secret = new_secret(&id)?;
    let key = ApiKey {
        prefix: prefix_of(&secret),
        id,
        tenant: tenant.clone(),
        name: new.name.clone(),
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
    };
    tx.execute(
        "INSERT INTO api_keys (id, tenant_id, name, prefix, hash, created_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            &key.id,
            tenant,
            &key.name,
            &key.prefix,
            hash(&secret),
            now,
            new.expires_at
        ],
    )?;
    Ok((key, secret))
}

/// Finds whom a secret belongs to; nothing when it is unknown, revoked or expired.
pub fn find_by_secret(
    tx: &mut Tx<'_>,
    secret: &str,
    now: Timestamp,
) -> Result<Option<ApiKeyIdentity>, StoreError> {
    let Some(id) = id_of(secret) else {
        return Ok(None);
    };
    let row = tx.query_opt(
        "SELECT tenant_id, hash, expires_ms FROM api_keys \
         WHERE id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
        params![&id, now],
        |row| Ok((row.parse(0)?, row.bytes(1)?.to_vec(), row.opt_time(2)?)),
    )?;
    Ok(row.and_then(|(tenant, stored, expires_at)| {
        let same = bool::from(stored.ct_eq(&hash(secret)));
        same.then_some(ApiKeyIdentity {
            tenant,
            key: id,
            expires_at,
        })
    }))
}

/// A tenant's keys, in order of creation, the revoked ones too.
pub fn list(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<Vec<ApiKey>, StoreError> {
    tx.query(
        "SELECT id, tenant_id, name, prefix, created_ms, expires_ms, revoked_ms \
         FROM api_keys WHERE tenant_id = $1 ORDER BY id",
        params![tenant],
        api_key,
    )
}

/// Ends a key at once; revoking again changes nothing.
pub fn revoke(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &ApiKeyId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let found = tx.execute(
        "UPDATE api_keys SET revoked_ms = COALESCE(revoked_ms, $3) WHERE tenant_id = $1 AND id = $2",
        params![tenant, id, now],
    )?;
    if found == 0 { Err(NOT_FOUND) } else { Ok(()) }
}

/// Gives a key a new secret; the old one ends at once.
pub fn rotate(tx: &mut Tx<'_>, tenant: &TenantId, id: &ApiKeyId) -> Result<String, StoreError> {
    let secret = new_secret(id)?;
    let found = tx.execute(
        "UPDATE api_keys SET hash = $3, prefix = $4 \
         WHERE tenant_id = $1 AND id = $2 AND revoked_ms IS NULL",
        params![tenant, id, hash(&secret), prefix_of(&secret)],
    )?;
    if found == 0 {
        Err(NOT_FOUND)
    } else {
        Ok(secret)
    }
}

fn new_secret(id: &ApiKeyId) -> Result<String, StoreError> {
    let mut random = [0; 32];
    fill_random(&mut random)?;
    let id = id.as_str().trim_start_matches(ID_PREFIX);
    Ok(format!("wg_{id}_{}", URL_SAFE_NO_PAD.encode(random)))
}

fn id_of(secret: &str) -> Option<ApiKeyId> {
    let (id, random) = secret.strip_prefix("wg_")?.split_once('_')?;
    if random.len() != 43 {
        return None;
    }
    ApiKeyId::parse(&format!("{ID_PREFIX}{id}")).ok()
}

/// Enough to tell two keys apart, and nothing of the random part.
fn prefix_of(secret: &str) -> String {
    // "wg_" and the whole id; ids made in the same minute share their first characters.
    secret.chars().take(29).collect()
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn api_key(row: Row<'_>) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.parse(0)?,
        tenant: row.parse(1)?,
        name: row.string(2)?,
        prefix: row.string(3)?,
        created_at: row.time(4)?,
        expires_at: row.opt_time(5)?,
        revoked_at: row.opt_time(6)?,
    })
}
