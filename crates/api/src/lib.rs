//! The HTTP surface: canonical routes under `/api/v1`, dialects beside them, health and documents.
//!
//! | module | what it holds |
//! |---|---|
//! | [`router`](mod@router) | the whole surface on one page; [`router()`], [`openapi()`], [`ApiOptions`] |
//! | `routes` | canonical routes, one noun a file |
//! | `compat` | the dialects `gateway` (`/api/sessions/…`), `worker` (`/api/session/…`), `whatsapp` (`/api/whatsapp/…`) and `instance`: shapes only |
//! | `shapes`, `envelope`, `error` | what answers look like |
//! | `openapi` | what the description has beside the routes |
//! | `extract`, `middleware` | what happens before and around a handler |
//!
//! A handler is a few lines: extractors check the form of a request and who calls, `wagate-app` decides.

mod compat;
mod envelope;
pub mod error;
mod extract;
mod middleware;
mod openapi;
pub mod router;
mod routes;
mod send;
mod shapes;

pub use error::{ApiError, status_of};
pub use router::{ApiOptions, ProcessFigures, ReadyCheck, openapi, router};
