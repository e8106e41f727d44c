//! The operator's commands on the database: migrate, tenants, keys.

use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wagate_app::{ApiKey, App, AppError, AppOptions, Code, Operator, PageRequest};
use wagate_domain::{ApiKeyId, Clock, SystemClock, Timestamp};
use wagate_store::Db;
use wagate_store::bus::Bus;

use super::args::{KeyCommand, TenantCommand};
use super::{CliError, say};
use crate::config::Config;
use crate::serve::{self, Upgrade};

/// Brings the schema up to date.
pub(super) async fn migrate(config: &Config) -> Result<ExitCode, CliError> {
    let report = serve::migrate_database(config)
        .await
        .map_err(CliError::Database)?;
    let text = if report.from == report.to {
        format!("the schema is up to date (version {})\n", report.to)
    } else {
        format!(
            "brought the schema from version {} to {}\n",
            report.from, report.to
        )
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes or lists tenants.
pub(super) async fn tenant(config: &Config, command: TenantCommand) -> Result<ExitCode, CliError> {
    let upgrade = match command {
        TenantCommand::Create { .. } if config.store.migrate => Upgrade::OnlyEmpty,
        TenantCommand::Create { .. } | TenantCommand::List => Upgrade::Never,
    };
    let session = Session::open(config, upgrade).await?;
    match command {
        TenantCommand::Create { name } => {
            let app = &session.app;
            let refused = |error| refused(error, &name);
            let tenant = app.create_tenant(Operator, &name).await.map_err(refused)?;
            let (key, secret) = app
                .create_tenant_key(Operator, &name, "first key".to_owned(), None)
                .await
                .map_err(refused)?;
            say(&format!(
                "made tenant {} ({name}) and its API key {}; the key is shown this once, keep it:\n  \
                 {secret}\n",
                tenant.id, key.id
            ))?;
        }
        TenantCommand::List => {
            let mut page = PageRequest::first(200);
            loop {
                let listed = session.app.tenants(Operator, page).await;
                let tenants = listed.map_err(|error| refused(error, ""))?;
                for tenant in &tenants.items {
                    say(&format!(
                        "{}  {}  {}\n",
                        tenant.id, tenant.created_at, tenant.name
                    ))?;
                }
                let Some(next) = tenants.next else { break };
                page = PageRequest {
                    after: Some(next),
                    ..PageRequest::first(200)
                };
            }
        }
    }
    session.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Makes, lists or revokes keys.
pub(super) async fn key(config: &Config, command: KeyCommand) -> Result<ExitCode, CliError> {
    let session = Session::open(config, Upgrade::Never).await?;
    let app = &session.app;
    match command {
        KeyCommand::Create {
            tenant,
            name,
            expires,
        } => {
            let (key, secret) = app
                .create_tenant_key(Operator, &tenant, name, expires)
                .await
                .map_err(|error| refused(error, &tenant))?;
            say(&format!(
                "made API key {} for tenant {tenant}; it is shown this once, keep it:\n  {secret}\n",
                key.id
            ))?;
        }
        KeyCommand::List { tenant } => {
            let keys = app.tenant_keys(Operator, &tenant).await;
            for key in keys.map_err(|error| refused(error, &tenant))? {
                let standing = standing(&key, app.now());
                say(&format!(
                    "{}  {}…  made {}  {standing}  {}\n",
                    key.id, key.prefix, key.created_at, key.name
                ))?;
            }
        }
        KeyCommand::Revoke { tenant, id } => {
            let id = ApiKeyId::parse(&id).map_err(|error| CliError::Refused {
                what: format!("{id} cannot be revoked"),
                source: Some(Box::new(error)),
            })?;
            app.revoke_tenant_key(Operator, &tenant, &id)
                .await
                .map_err(|error| refused(error, &tenant))?;
            say(&format!("revoked {id}\n"))?;
        }
    }
    session.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Whether a key works, in a few words.
fn standing(key: &ApiKey, now: Timestamp) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if at <= now => format!("expired {at}"),
        (None, Some(at)) => format!("expires {at}"),
        (None, None) => "active".to_owned(),
    }
}

/// The use cases over the configured database, for one command.
struct Session {
    app: App,
    db: Db,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Session {
    async fn open(config: &Config, upgrade: Upgrade) -> Result<Session, CliError> {
        let db = Box::pin(serve::open_database(config, upgrade))
            .await
            .map_err(CliError::Database)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = AppOptions {
            worker_tenant: config.security.worker_tenant.clone(),
            ..AppOptions::default()
        };
        let app = App::start(
            db.clone(),
            Bus::local(),
            clock,
            options,
            &tasks,
            stop.clone(),
        );
        tasks.close();
        Ok(Session {
            app,
            db,
            stop,
            tasks,
        })
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        drop(self.app);
        self.db.close().await;
    }
}

/// A refusal in the words of the command line, with what helps.
fn refused(error: AppError, tenant: &str) -> CliError {
    let what = match (error.code(), field(&error)) {
        (Code::TenantNotFound, _) => {
            format!("there is no tenant {tenant}: `wagate tenant list` shows those that there are")
        }
        (Code::TenantExists, _) => format!(
            "there is a tenant {tenant} already: `wagate key create --tenant {tenant}` makes it another key"
        ),
        (Code::ApiKeyNotFound, _) => format!(
            "tenant {tenant} has no such key: `wagate key list --tenant {tenant}` shows those that it has"
        ),
        (_, Some(("expiresAt", message))) => format!("--expires {message}"),
        (_, Some((field, message))) => format!("the {field} {message}"),
        _ => {
            return CliError::Refused {
                what: "that cannot be done".to_owned(),
                source: Some(Box::new(error)),
            };
        }
    };
    CliError::Refused { what, source: None }
}

/// The field that is to blame, and what is wrong with it.
fn field(error: &AppError) -> Option<(&str, &str)> {
    match error {
        AppError::Refused { details, .. } => details
            .first()
            .map(|detail| (detail.path.as_str(), detail.message.as_str())),
        _ => None,
    }
}
