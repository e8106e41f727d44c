//! The whole surface on one page.
//!
//! Every route but the interface's own documents is registered with its description, so that
//! `docs/openapi.json` cannot leave one out; the coverage tests walk that document.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use http::{HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;
use wagate_app::{App, Code};
use wagate_domain::limits::{BODY_BYTES_MAX, SEND_WAIT_DEFAULT};

use crate::error::ApiError;
use crate::middleware::{observe, panicked};
use crate::{compat, routes};

/// What an operator may set, and what only the process knows.
#[derive(Clone)]
pub struct ApiOptions {
    /// Largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// How long a send waits for WhatsApp's acknowledgement when the caller does not say.
    pub send_wait: Duration,
    /// With it, a backend may use the worker's endpoints; without one they refuse everybody.
    pub worker_token: Option<String>,
    /// With it, `/metrics` may be read; the worker token opens it too.
    pub metrics_token: Option<String>,
    /// Origins whose pages may call; `*` stands for all, also beside others. Empty: none. No page may
    /// send cookies.
    pub cors_origins: Vec<String>,
    /// The name of this worker, and where it runs, for `/info`.
    pub worker_id: String,
    pub environment: String,
    /// The process's own figures, for `/health` of the worker's dialect.
    pub figures: Arc<dyn Fn() -> ProcessFigures + Send + Sync>,
    /// What must hold beside the database before this process takes traffic.
    pub ready: Arc<dyn Fn() -> Vec<ReadyCheck> + Send + Sync>,
    /// The metrics, in Prometheus' text form.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Registers the dialects.
    pub gateway_dialect: bool,
    pub worker_dialect: bool,
    pub whatsapp_dialect: bool,
    pub instance_dialect: bool,
}

/// What the process says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Sessions that this process runs.
    pub sessions: u64,
    /// Sessions that it may run.
    pub sessions_max: u64,
    /// Share of one core in use, in percent.
    pub cpu_percent: f64,
    /// Share of the machine's memory in use by this process, in percent.
    pub memory_percent: f64,
}

/// One thing that must hold before this process takes traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyCheck {
    /// What it is, such as `worker`.
    pub name: &'static str,
    pub ready: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            send_wait: SEND_WAIT_DEFAULT,
            worker_token: None,
            metrics_token: None,
            cors_origins: Vec::new(),
            worker_id: "worker".to_owned(),
            environment: "production".to_owned(),
            figures: Arc::new(ProcessFigures::default),
            ready: Arc::new(Vec::new),
            metrics: Arc::new(String::new),
            gateway_dialect: true,
            worker_dialect: true,
            whatsapp_dialect: true,
            instance_dialect: true,
        }
    }
}

impl fmt::Debug for ApiOptions {
    /// Shows what is no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiOptions")
            .field("body_bytes_max", &self.body_bytes_max)
            .field("send_wait", &self.send_wait)
            .field("cors_origins", &self.cors_origins)
            .field("worker_id", &self.worker_id)
            .field("gateway_dialect", &self.gateway_dialect)
            .field("worker_dialect", &self.worker_dialect)
            .field("whatsapp_dialect", &self.whatsapp_dialect)
            .field("instance_dialect", &self.instance_dialect)
            .finish_non_exhaustive()
    }
}

/// What every handler can reach.
#[derive(Clone, Debug)]
pub(crate) struct ApiState {
    app: App,
    options: Arc<ApiOptions>,
    started: Instant,
}

impl ApiState {
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    pub(crate) fn options(&self) -> &ApiOptions {
        &self.options
    }

    /// How long this process has served.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Makes the routes of a dialect.
type Routes = fn() -> OpenApiRouter<ApiState>;

/// The routes, as far as the options want them.
fn surface(options: &ApiOptions) -> OpenApiRouter<ApiState> {
    let mut surface = OpenApiRouter::with_openapi(crate::openapi::description())
        .merge(routes::sessions::router())
        .merge(routes::links::router())
        .merge(routes::messages::router())
        .merge(routes::queue::router())
        .merge(routes::pacing::router())
        .merge(routes::events::router())
        .merge(routes::api_keys::router())
        .merge(routes::health::router());
    let dialects: [(bool, Routes); 4] = [
        (options.gateway_dialect, compat::gateway::router),
        (options.worker_dialect, compat::worker::router),
        (options.whatsapp_dialect, compat::whatsapp::router),
        (options.instance_dialect, compat::instance::router),
    ];
    for (wanted, dialect) in dialects {
        if wanted {
            surface = surface.merge(dialect());
        }
    }
    surface
}

/// The service.
pub fn router(app: App, options: ApiOptions) -> Router {
    let (router, document) = surface(&options).split_for_parts();
    let document = crate::openapi::with_failures(document);
    let body_bytes_max = options.body_bytes_max;
    let cors = cors(&options.cors_origins);
    let state = ApiState {
        app,
        options: Arc::new(options),
        started: Instant::now(),
    };
    router
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(state)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(cors)
        .layer(from_fn(observe))
}

/// The description of every route, as `docs/openapi.json` has it.
pub fn openapi() -> OpenApi {
    crate::openapi::with_failures(surface(&ApiOptions::default()).split_for_parts().1)
}

async fn not_found() -> impl IntoResponse {
    ApiError::new(Code::NotFound, "there is nothing at this path; see /docs")
}

async fn method_not_allowed() -> impl IntoResponse {
    ApiError::new(
        Code::MethodNotAllowed,
        "this path does not take that method; see /docs",
    )
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-replayed"),
        ])
        .max_age(Duration::from_secs(600));
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(AllowOrigin::any());
    }
    let listed = origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(listed))
}
