//! The well-known environment names that stand for one of our keys.
//!
//! One table, so that `docs/configuration.md` and the loader cannot disagree. An alias and its key
//! set to different values at once is an error: neither is the obvious winner.

/// An environment variable that stands for a key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alias {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
}

/// Names that other programs and platforms use for what we also have.
pub(crate) const ALIASES: &[Alias] = &[
    Alias {
        name: "BACKEND_AUTH_TOKEN",
        key: "security.worker_token",
    },
    Alias {
        name: "DATABASE_URL",
        key: "store.url",
    },
    Alias {
        name: "LOG_LEVEL",
        key: "log.level",
    },
    Alias {
        name: "MAX_SESSIONS",
        key: "worker.sessions_max",
    },
    Alias {
        name: "PORT",
        key: "server.port",
    },
    Alias {
        name: "WORKER_ID",
        key: "worker.id",
    },
];

/// Names that ask for something this version does not do. Starting anyway would look as if it did.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    (
        "RABBITMQ_URL",
        "this version has no RabbitMQ bus: unset RABBITMQ_URL (one process needs no broker; several \
         share a PostgreSQL database)",
    ),
    (
        "BACKEND_URL",
        "this version does not register with another backend: unset BACKEND_URL (the worker's own \
         endpoints under /api/session work without it)",
    ),
];
