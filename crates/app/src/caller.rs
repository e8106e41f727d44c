//! Who asks. Every use case takes a [`Caller`] first, so that none can forget whose rows it may see
//! (TN-1).

use wagate_domain::{ApiKeyId, TenantId};

/// An authenticated caller, acting for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    tenant: TenantId,
    kind: CallerKind,
}

/// How the caller proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// With a key of the tenant.
    Key(ApiKeyId),
    /// With the worker token, as a backend that drives this process over HTTP.
    Worker,
}

impl Caller {
    pub(crate) fn key(tenant: TenantId, key: ApiKeyId) -> Self {
        Self {
            tenant,
            kind: CallerKind::Key(key),
        }
    }

    pub(crate) fn worker(tenant: TenantId) -> Self {
        Self {
            tenant,
            kind: CallerKind::Worker,
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn kind(&self) -> &CallerKind {
        &self.kind
    }
}

/// The one who operates this installation: the command line, never a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operator;
