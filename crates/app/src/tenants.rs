//! What the operator does: tenants and their first keys.

use wagate_domain::Timestamp;
use wagate_store::api_keys::{self, ApiKey, NewApiKey};
use wagate_store::tenants::{self, Tenant};
use wagate_store::{Page, PageRequest, StoreError};

use crate::api_keys::check_key;
use crate::app::App;
use crate::caller::Operator;
use crate::error::{AppError, Code};

/// Longest name of a tenant, in bytes.
const NAME_BYTES_MAX: usize = 100;

impl App {
    /// Makes the first tenant of an empty database, with a key whose secret is returned; does nothing
    /// where there is a tenant. Two processes that start at once make one.
    pub async fn first_start(&self, _: Operator) -> Result<Option<(Tenant, String)>, AppError> {
        let (name, now) = (self.options().worker_tenant.clone(), self.now());
        let made = self
            .db()
            .write(move |tx| {
                if tenants::count(tx)? > 0 {
                    return Ok(None);
                }
                let tenant = tenants::create(tx, &name, now)?;
                let key = NewApiKey {
                    name: "first key".to_owned(),
                    expires_at: None,
                };
                let (_, secret) = api_keys::create(tx, &tenant.id, &key, now)?;
                Ok(Some((tenant, secret)))
            })
            .await;
        match made {
            // The other process was first.
            Err(StoreError::Conflict { .. }) => Ok(None),
            other => Ok(other?),
        }
    }

    /// Makes the tenant for which the holder of the worker token acts, unless it is there; true when it
    /// was made. An operator's tenants may have come first, and the setting may have changed since.
    pub async fn make_worker_tenant(&self, _: Operator) -> Result<bool, AppError> {
        let (name, now) = (self.options().worker_tenant.clone(), self.now());
        let made = self
            .db()
            .write(move |tx| match tenants::get_by_name(tx, &name)? {
                Some(_) => Ok(false),
                None => tenants::create(tx, &name, now).map(|_| true),
            })
            .await;
        match made {
            // The other process was first.
            Err(StoreError::Conflict { .. }) => Ok(false),
            other => Ok(other?),
        }
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, _: Operator, name: &str) -> Result<Tenant, AppError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.contains('\0') {
            let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no NUL");
            return Err(AppError::field(Code::InvalidField, "name", message));
        }
        let (name, now) = (name.to_owned(), self.now());
        self.db()
            .write(move |tx| tenants::create(tx, &name, now))
            .await
            .map_err(|error| match error {
                StoreError::Conflict { .. } => {
                    AppError::refused(Code::TenantExists, "a tenant of this name exists already")
                }
                other => other.into(),
            })
    }

    /// All tenants.
    pub async fn tenants(&self, _: Operator, page: PageRequest) -> Result<Page<Tenant>, AppError> {
        Ok(self.db().read(move |tx| tenants::list(tx, &page)).await?)
    }

    /// Makes a key for a tenant, named by its name; the secret is in the answer and never shown again.
    pub async fn create_tenant_key(
        &self,
        _: Operator,
        tenant: &str,
        name: String,
        expires_at: Option<Timestamp>,
    ) -> Result<(ApiKey, String), AppError> {
        let now = self.now();
        let (tenant, new) = (tenant.to_owned(), check_key(name, expires_at, now)?);
        let made = self
            .db()
            .write(move |tx| match tenants::get_by_name(tx, &tenant)? {
                Some(tenant) => api_keys::create(tx, &tenant.id, &new, now).map(Some),
                None => Ok(None),
            })
            .await?;
        made.ok_or_else(no_tenant)
    }

    /// A tenant's keys, without their secrets.
    pub async fn tenant_keys(&self, _: Operator, tenant: &str) -> Result<Vec<ApiKey>, AppError> {
        let tenant = tenant.to_owned();
        let listed = self
            .db()
            .read(move |tx| match tenants::get_by_name(tx, &tenant)? {
                Some(tenant) => api_keys::list(tx, &tenant.id).map(Some),
                None => Ok(None),
            })
            .await?;
        listed.ok_or_else(no_tenant)
    }

    /// Revokes a key of a tenant.
    pub async fn revoke_tenant_key(
        &self,
        _: Operator,
        tenant: &str,
        key: &wagate_domain::ApiKeyId,
    ) -> Result<(), AppError> {
        let (tenant, id, now) = (tenant.to_owned(), key.clone(), self.now());
        let revoked = self
            .db()
            .write(move |tx| match tenants::get_by_name(tx, &tenant)? {
                Some(tenant) => api_keys::revoke(tx, &tenant.id, &id, now).map(Some),
                None => Ok(None),
            })
            .await
            .map_err(|error| match error {
                StoreError::NotFound { .. } => {
                    AppError::refused(Code::ApiKeyNotFound, "there is no such API key")
                }
                other => other.into(),
            })?;
        self.keys().forget(key);
        revoked.ok_or_else(no_tenant)
    }
}

fn no_tenant() -> AppError {
    AppError::refused(Code::TenantNotFound, "there is no such tenant")
}
