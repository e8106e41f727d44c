//! What goes wrong in a use case, and the stable word for it.
//!
//! [`Code`] is the one list of machine words that any surface answers with; its words are held by a
//! snapshot test and listed in `docs/api.md`. Messages are for people and may change, words may not.

use wagate_store::StoreError;
use wagate_store::messages::Message;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal;)*) => {
        /// The stable machine word of a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in alphabetical order of its word.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as it stands in an answer.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

codes! {
    /// The key is not there, or is another tenant's.
    ApiKeyNotFound = "api_key_not_found";
    /// The body is larger than this route takes.
    BodyTooLarge = "body_too_large";
    /// WhatsApp refuses this client's version; the operator must update.
    ClientOutdated = "client_outdated";
    /// The database is away; what was accepted before stays accepted.
    DatabaseUnavailable = "database_unavailable";
    /// The same idempotency key came with another request.
    IdempotencyConflict = "idempotency_conflict";
    /// Our fault; the log has the reason under the request id.
    InternalError = "internal_error";
    /// A field is missing, unknown, or has a value that it cannot have.
    InvalidField = "invalid_field";
    /// The recipient is not an address, or a number that cannot exist.
    InvalidRecipient = "invalid_recipient";
    /// The tenant has as much of something as it may have.
    LimitReached = "limit_reached";
    /// WhatsApp refused the link, or nobody scanned or entered the challenge in time.
    LinkFailed = "link_failed";
    /// No worker produced a pairing code in time; the request for one stands.
    LinkTimeout = "link_timeout";
    /// The body is not JSON.
    MalformedJson = "malformed_json";
    /// The message's validity ended before it could be sent.
    MessageExpired = "message_expired";
    /// The message left the queue already, so it cannot be canceled.
    MessageNotCancelable = "message_not_cancelable";
    /// The message is not there, or is another tenant's.
    MessageNotFound = "message_not_found";
    /// The message neither failed nor expired, so it is not tried again.
    MessageNotRetryable = "message_not_retryable";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed";
    /// There is no such path.
    NotFound = "not_found";
    /// More work waits than this process takes on.
    Overloaded = "overloaded";
    /// The session does not wait for a scan.
    QrNotAvailable = "qr_not_available";
    /// As many messages wait in the session as may wait.
    QueueFull = "queue_full";
    /// WhatsApp does not let this account write to the recipient.
    RecipientBlocked = "recipient_blocked";
    /// The number is not on WhatsApp.
    RecipientNotRegistered = "recipient_not_registered";
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout";
    /// WhatsApp refused the message, or it could not be sent in the attempts it had.
    SendFailed = "send_failed";
    /// WhatsApp never said whether it took the message, in all the attempts it had.
    SendUnconfirmed = "send_unconfirmed";
    /// The account cannot be linked, since it is linked.
    SessionAlreadyLinked = "session_already_linked";
    /// The tenant has several sessions, and the request does not say which.
    SessionAmbiguous = "session_ambiguous";
    /// WhatsApp has banned the account.
    SessionBanned = "session_banned";
    /// The tenant has a session of that name.
    SessionExists = "session_exists";
    /// The session is not there, or is another tenant's.
    SessionNotFound = "session_not_found";
    /// The session was never linked, or was logged out.
    SessionNotLinked = "session_not_linked";
    /// Another client took over the session's link.
    SessionReplaced = "session_replaced";
    /// The session was disconnected on request.
    SessionStopped = "session_stopped";
    /// The disk is full; nothing new is accepted.
    StorageFull = "storage_full";
    /// There is a tenant of that name.
    TenantExists = "tenant_exists";
    /// There is no tenant of that name.
    TenantNotFound = "tenant_not_found";
    /// No key, or not one that is valid.
    Unauthorized = "unauthorized";
    /// The body is of a type that this route does not read.
    UnsupportedMediaType = "unsupported_media_type";
    /// Messages cannot go to this kind of address.
    UnsupportedRecipient = "unsupported_recipient";
    /// Messages of this type cannot be sent.
    UnsupportedType = "unsupported_type";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a request, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The field, such as `to` or `media.url`.
    pub path: String,
    pub message: String,
}

/// A failure of a use case.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The caller must change its request, or wait for the state that it needs.
    #[error("{message}")]
    Refused {
        code: Code,
        message: String,
        details: Vec<Detail>,
    },
    /// The message was accepted, and ended failed while its sender waited: the caller reads why.
    #[error("{message}")]
    SendFailed {
        code: Code,
        message: String,
        sent: Box<Message>,
    },
    /// The caller tries again later; the operator looks at the database or at the load.
    #[error("{message}")]
    Unavailable {
        code: Code,
        message: String,
        retry_after_secs: u32,
        #[source]
        source: Option<StoreError>,
    },
    /// The operator must make room.
    #[error("the storage is full, so nothing new can be accepted")]
    StorageFull(#[source] StoreError),
    /// We must look: the cause is in the source.
    #[error("something went wrong on our side")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AppError {
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// Refuses one field of the request.
    pub fn field(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        let detail = Detail {
            path: path.into(),
            message: message.into(),
        };
        let message = format!("{} {}", detail.path, detail.message);
        Self::Refused {
            code,
            message,
            details: vec![detail],
        }
    }

    /// A cursor that the list never gave.
    pub fn bad_cursor() -> Self {
        Self::field(Code::InvalidField, "cursor", "is not a cursor of this list")
    }

    pub fn session_not_found() -> Self {
        Self::refused(Code::SessionNotFound, "there is no such session")
    }

    pub fn message_not_found() -> Self {
        Self::refused(Code::MessageNotFound, "there is no such message")
    }

    /// The word of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. }
            | Self::SendFailed { code, .. }
            | Self::Unavailable { code, .. } => *code,
            Self::StorageFull(_) => Code::StorageFull,
            Self::Internal(_) => Code::InternalError,
        }
    }
}
