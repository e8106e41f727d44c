//! Tenants: the paying accounts to which every other row belongs (TN-1).

use wagate_domain::{TenantId, Timestamp};

use crate::db::{Row, Tx, params};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// A paying account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub created_at: Timestamp,
}

/// Creates a tenant; [`StoreError::Conflict`] when the name is taken.
pub fn create(tx: &mut Tx<'_>, name: &str, now: Timestamp) -> Result<Tenant, StoreError> {
    let tenant = Tenant {
        id: TenantId::generate(),
        name: name.to_owned(),
        created_at: now,
    };
    let added = tx.execute(
        "INSERT INTO tenants (id, name, created_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO NOTHING",
        params![&tenant.id, name, now],
    )?;
    match added {
        0 => Err(StoreError::Conflict {
            what: format!("there is a tenant named {name}"),
        }),
        _ => Ok(tenant),
    }
}

pub fn get(tx: &mut Tx<'_>, id: &TenantId) -> Result<Tenant, StoreError> {
    let sql = "SELECT id, name, created_ms FROM tenants WHERE id = $1";
    tx.query_opt(sql, params![id], tenant)?
        .ok_or(StoreError::NotFound { what: "tenant" })
}

pub fn get_by_name(tx: &mut Tx<'_>, name: &str) -> Result<Option<Tenant>, StoreError> {
    let sql = "SELECT id, name, created_ms FROM tenants WHERE name = $1";
    tx.query_opt(sql, params![name], tenant)
}

/// All tenants in order of creation: for operators.
pub fn list(tx: &mut Tx<'_>, page: &PageRequest) -> Result<Page<Tenant>, StoreError> {
    let rows = tx.query(
        "SELECT id, name, created_ms FROM tenants WHERE id > $1 ORDER BY id LIMIT $2 OFFSET $3",
        params![
            page.after.as_deref().unwrap_or(""),
            page.sql_limit(),
            page.offset
        ],
        tenant,
    )?;
    Ok(Page::of(rows, page, |tenant| tenant.id.to_string()))
}

pub fn count(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    tx.query_one("SELECT COUNT(*) FROM tenants", params![], |row| {
        row.count(0)
    })
}

fn tenant(row: Row<'_>) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.parse(0)?,
        name: row.string(1)?,
        created_at: row.time(2)?,
    })
}
