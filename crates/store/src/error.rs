//! The one error of this crate. A caller decides by variant, never by text.

/// Why a store function did nothing. Nothing of a failed `write` is kept, except for [`Self::InDoubt`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such row for this tenant. The caller answers 404.
    #[error("{what} not found")]
    NotFound { what: &'static str },
    /// The row exists already, or its state forbids the change. The caller answers 409.
    #[error("conflict: {what}")]
    Conflict { what: String },
    /// A bound is reached ([`wagate_domain::limits`]); the caller answers 429.
    #[error("limit reached: {what}")]
    Limit { what: &'static str },
    /// Another worker holds the session now: expected; it ends the actor (SL-1).
    #[error("the lease is held by another worker")]
    LeaseLost,
    /// The disk is full; nothing was accepted. An operator must make room.
    #[error("the database has no room left")]
    Full,
    /// Too much at once, or two transactions in each other's way; try again.
    #[error("the database is busy")]
    Busy,
    /// The database is away, nothing was changed; try again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Source),
    /// The connection broke while committing: the change may have happened or not. Try again only
    /// what may be repeated.
    #[error("the database went away while committing")]
    InDoubt(#[source] Source),
    /// The database was made by a newer version; an operator must upgrade this binary.
    #[error("the database has schema {found}, this version knows {known} at most")]
    NewerSchema { found: i64, known: i64 },
    /// A sealed value cannot be opened: other master key, or the row was tampered with.
    #[error("a sealed value cannot be opened")]
    Sealed,
    /// A stored value cannot be read back. A bug or a damaged file; an operator must look.
    #[error("stored data is damaged: {what}")]
    Corrupt { what: String },
    /// The options name no usable database. The operator corrects the configuration.
    #[error("{0}")]
    Options(String),
    /// The closure panicked; the transaction was rolled back. A bug.
    #[error("a database closure panicked: {0}")]
    Panicked(String),
    /// A statement failed for a reason not above. A bug.
    #[error("a statement failed")]
    Sql(#[source] Source),
}

/// A driver's own error.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// Trying the same again later may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Unavailable(_) | Self::InDoubt(_) | Self::Full
        )
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

impl From<wagate_domain::message::UnknownPriority> for StoreError {
    fn from(_: wagate_domain::message::UnknownPriority) -> Self {
        Self::corrupt("a priority")
    }
}
