//! API keys: who a secret belongs to, and a tenant's own keys.

use tokio::time::Instant;
use wagate_domain::{ApiKeyId, Timestamp};
use wagate_store::StoreError;
use wagate_store::api_keys::{self, ApiKey, NewApiKey};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::key_cache::{KeyDigest, KnownKey};

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Whether the text can be a key at all, so that junk costs no query.
fn looks_like_a_key(secret: &str) -> bool {
    secret.len() <= 128 && secret.starts_with("wg_")
}

impl App {
    /// The caller whose key this is; none when it is unknown, revoked or expired.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Caller>, AppError> {
        if !looks_like_a_key(secret) {
            return Ok(None);
        }
        let (digest, now) = (KeyDigest::of(secret), self.now());
        if let Some(known) = self.keys().get(&digest, now, Instant::now()) {
            return Ok(Some(Caller::key(known.tenant, known.key)));
        }
        let secret = secret.to_owned();
        let found = self
            .db()
            .read(move |tx| api_keys::find_by_secret(tx, &secret, now))
            .await?;
        let Some(identity) = found else {
            return Ok(None);
        };
        let known = KnownKey {
            tenant: identity.tenant,
            key: identity.key,
            expires_at: identity.expires_at,
        };
        self.keys().put(digest, known.clone(), Instant::now());
        Ok(Some(Caller::key(known.tenant, known.key)))
    }

    /// The tenant's keys, without their secrets.
    pub async fn api_keys(&self, caller: &Caller) -> Result<Vec<ApiKey>, AppError> {
        let tenant = caller.tenant().clone();
        Ok(self
            .db()
            .read(move |tx| api_keys::list(tx, &tenant))
            .await?)
    }

    /// Makes a key; its secret is in the answer and never shown again.
    pub async fn create_api_key(
        &self,
        caller: &Caller,
        name: String,
        expires_at: Option<Timestamp>,
    ) -> Result<(ApiKey, String), AppError> {
        let (tenant, now) = (caller.tenant().clone(), self.now());
        let new = check_key(name, expires_at, now)?;
        Ok(self
            .db()
            .write_for(caller.tenant(), move |tx| {
                api_keys::create(tx, &tenant, &new, now)
            })
            .await?)
    }

    /// Revokes a key: it works no longer, here at once, in other processes within seconds.
    pub async fn revoke_api_key(&self, caller: &Caller, key: &ApiKeyId) -> Result<(), AppError> {
        let (tenant, id, now) = (caller.tenant().clone(), key.clone(), self.now());
        let revoked = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                api_keys::revoke(tx, &tenant, &id, now)
            })
            .await;
        self.keys().forget(key);
        revoked.map_err(|error| match error {
            StoreError::NotFound { .. } => {
                AppError::refused(Code::ApiKeyNotFound, "there is no such API key")
            }
            other => other.into(),
        })
    }
}

pub(crate) fn check_key(
    name: String,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<NewApiKey, AppError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0');
    if !fits {
        let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no NUL");
        return Err(AppError::field(Code::InvalidField, "name", message));
    }
    if expires_at.is_some_and(|end| end <= now) {
        return Err(AppError::field(
            Code::InvalidField,
            "expiresAt",
            "is in the past",
        ));
    }
    Ok(NewApiKey { name, expires_at })
}
