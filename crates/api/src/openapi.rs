//! What the description of the interface has beside its routes: title, credentials, failures.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::error::ErrorBody;

/// The description before any route is in it.
pub(crate) fn description() -> OpenApi {
    let mut document = OpenApi::default();
    document.info.title = "wagate".to_owned();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.description = Some(
        "A self-hosted WhatsApp gateway. Send an API key as `x-api-key` or as \
         `Authorization: Bearer`. Failures have the body \
         `{success, error, code, details, requestId}`; `code` is a stable word."
            .to_owned(),
    );
    let components = document.components.get_or_insert_default();
    let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(header));
    for scheme in ["bearer", "workerToken"] {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme(scheme, bearer);
    }
    let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    document
}

/// Says of every operation what its failures look like: one shape for all.
pub(crate) fn with_failures(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let failure = RefOr::T(failure());
            operation
                .responses
                .responses
                .entry("default".to_owned())
                .or_insert(failure);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

fn failure() -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name(ErrorBody::name()));
    ResponseBuilder::new()
        .description("a failure; `code` says which")
        .content("application/json", Content::new(Some(schema)))
        .build()
}
