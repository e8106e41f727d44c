//! Gives a request its id, writes the body of a failure, counts and logs.
//!
//! The log line names the route's template, never the path: a path may hold a phone number.

use std::any::Any;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::error::ApiError;

/// The header that carries the id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: what the client sent where it is plain and short, else a new one.
#[derive(Clone, Debug)]
struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).filter(|value| {
            let bytes = value.as_bytes();
            (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        });
        if let Some(value) = given {
            return Self(value.clone());
        }
        let id = format!(
            "req_{}",
            ulid::Ulid::generate().to_string().to_ascii_lowercase()
        );
        Self(HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("req_none")))
    }

    fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The middleware.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let method = method_word(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());

    let span = tracing::info_span!("request", request.id = id.as_str());
    let mut response = next.run(request).instrument(span.clone()).await;

    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &error {
        let body = error.body(id.as_str());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    response.headers_mut().insert(REQUEST_ID, id.0.clone());

    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    let labels = [
        ("method", method.to_owned()),
        ("route", route.clone()),
        ("status", status.to_string()),
    ];
    metrics::counter!("wagate_http_requests_total", &labels).increment(1);
    metrics::histogram!("wagate_http_request_duration_seconds", &labels)
        .record(elapsed.as_secs_f64());
    span.in_scope(|| {
        tracing::info!(
            http.method = method,
            http.route = route,
            http.status = status,
            error.code = error.as_ref().map(|error| error.code().as_str()),
            duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    });
    response
}

/// The method, from a bounded set: what a client makes up must not make up time series.
fn method_word(method: &Method) -> &'static str {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    let words = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known
        .iter()
        .position(|candidate| candidate == method)
        .map_or("other", |at| words[at])
}

/// The answer after a panic in a handler.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands over the panic's payload"
)]
pub(crate) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let cause = cause
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| cause.downcast_ref::<String>().cloned());
    tracing::error!(panic = cause.unwrap_or_default(), "a handler panicked");
    ApiError::internal().into_response()
}
