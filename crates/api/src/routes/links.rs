//! Linking a session: by QR code or pairing code, and the QR code in every form.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wagate_app::{App, AppError, Caller, Code, Session, Settled, Status, qr};
use wagate_domain::{LinkChallenge, LinkMethod, SessionName};

use crate::envelope::{Data, with_status};
use crate::error::ApiError;
use crate::extract::{OptionalBody, Params, SessionPath, Tenant};
use crate::router::ApiState;
use crate::send::read_wait;
use crate::shapes::{ChallengeOut, StatusWord, phone_number};

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(connect))
        .routes(routes!(read_qr))
}

/// How a session is to be linked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum MethodWord {
    /// Scan a QR code with the phone.
    #[default]
    Qr,
    /// Enter eight characters on the phone.
    Code,
}

/// A request to link.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConnectIn {
    method: MethodWord,
    /// The number of the phone that is to be linked; for `code`.
    #[serde(alias = "phoneNumber")]
    #[schema(example = "6281234567890")]
    phone_number: Option<String>,
    /// Seconds to wait for the QR code, the pairing code, or the connection.
    #[schema(maximum = 60)]
    wait: Option<u64>,
}

/// The query of a request to link.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConnectParams {
    /// Seconds to wait, as in the body.
    #[param(maximum = 60, required = false)]
    wait: Option<u64>,
}

/// What to scan or to enter, or that the session is connected.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkOut {
    #[schema(example = "user123-personal")]
    session_id: String,
    status: StatusWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    #[serde(flatten)]
    challenge: ChallengeOut,
}

impl LinkOut {
    fn new(app: &App, session: &Session) -> Self {
        Self {
            session_id: session.name.to_string(),
            status: Status::of(session).into(),
            phone_number: phone_number(session),
            challenge: app.challenge_of(session).into(),
        }
    }
}

/// Links a session, or connects it again when it is linked.
#[utoipa::path(
    post, path = "/api/v1/sessions/{session}/connect", tag = "sessions", operation_id = "session_connect",
    params(("session" = String, Path, description = "the session's id"), ConnectParams),
    request_body = Option<ConnectIn>,
    responses(
        (status = 200, description = "what to scan or enter, or connected", body = Data<LinkOut>),
        (status = 202, description = "on its way; read the status", body = Data<LinkOut>),
    ),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn connect(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<ConnectParams>,
    OptionalBody(body): OptionalBody<ConnectIn>,
) -> Result<Response, ApiError> {
    link(state.app(), &caller, &name, body, &params).await
}

/// What both the canonical route and the dialect do.
pub(crate) async fn link(
    app: &App,
    caller: &Caller,
    name: &SessionName,
    body: ConnectIn,
    params: &ConnectParams,
) -> Result<Response, ApiError> {
    let method = match (body.method, body.phone_number) {
        (MethodWord::Qr, None) => LinkMethod::Qr,
        (MethodWord::Code, Some(text)) => LinkMethod::Code {
            phone: app.phone("phone_number", &text)?,
        },
        (MethodWord::Code, None) => {
            let message = "is missing; a pairing code is made for a number";
            return Err(ApiError::field(Code::InvalidField, "phone_number", message));
        }
        (MethodWord::Qr, Some(_)) => {
            let message = "goes with the method `code` only";
            return Err(ApiError::field(Code::InvalidField, "phone_number", message));
        }
    };
    let by_code = matches!(method, LinkMethod::Code { .. });
    let wait = read_wait(body.wait.or(params.wait))?;
    let Settled { session, done } = app.connect(caller, name, method, wait).await?;
    if by_code && !done && wait.is_none_or(|wait| !wait.is_zero()) {
        // Whoever asks for a code needs the code; 202 would look like success.
        return Err(AppError::Unavailable {
            code: Code::LinkTimeout,
            message: "no pairing code came in time; ask again".to_owned(),
            retry_after_secs: 5,
            source: None,
        }
        .into());
    }
    let status = if done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok(with_status(status, LinkOut::new(app, &session)))
}

/// In which form the QR code is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FormatWord {
    #[default]
    Json,
    Png,
    Svg,
    /// Characters for a terminal with a dark background.
    Text,
}

/// The query of a QR code.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QrParams {
    #[param(inline, required = false)]
    format: FormatWord,
    /// Seconds to wait until there is a QR code.
    #[param(maximum = 60, required = false)]
    wait: Option<u64>,
}

/// A QR code that waits to be scanned.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QrOut {
    session_id: String,
    /// The text that the code shows.
    qr_string: String,
    /// The code as a PNG in a `data:` URL.
    #[schema(example = "data:image/png;base64,iVBORw0KGgo…")]
    qr_code: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Shows the QR code. It rotates: read it again when it expires.
#[utoipa::path(
    get, path = "/api/v1/sessions/{session}/qr", tag = "sessions", operation_id = "session_qr",
    params(("session" = String, Path, description = "the session's id"), QrParams),
    responses((status = 200, description = "the QR code", content(
        (Data<QrOut> = "application/json"),
        (String = "image/png"),
        (String = "image/svg+xml"),
        (String = "text/plain"),
    ))),
    security(("apiKey" = []), ("bearer" = [])),
)]
async fn read_qr(
    State(state): State<ApiState>,
    Tenant(caller): Tenant,
    SessionPath(name): SessionPath,
    Params(params): Params<QrParams>,
) -> Result<Response, ApiError> {
    show_qr(state.app(), &caller, &name, &params).await
}

/// What both the canonical route and the dialect show.
pub(crate) async fn show_qr(
    app: &App,
    caller: &Caller,
    name: &SessionName,
    params: &QrParams,
) -> Result<Response, ApiError> {
    let wait = read_wait(params.wait)?.unwrap_or_default();
    let session = app.await_challenge(caller, name, wait).await?;
    let Some(LinkChallenge::Qr {
        qr: text,
        expires_at,
    }) = app.challenge_of(&session)
    else {
        return Err(no_qr(&session));
    };
    let shown = match params.format {
        FormatWord::Json => {
            let qr_code = qr::data_url(text).map_err(undrawable)?;
            Data::new(QrOut {
                session_id: session.name.to_string(),
                qr_string: text.clone(),
                qr_code,
                expires_at: expires_at.to_string(),
            })
            .into_response()
        }
        FormatWord::Png => image("image/png", qr::png(text).map_err(undrawable)?),
        FormatWord::Svg => image("image/svg+xml", qr::svg(text).map_err(undrawable)?),
        FormatWord::Text => {
            let mut drawn = qr::terminal(text).map_err(undrawable)?;
            drawn.push('\n');
            image("text/plain; charset=utf-8", drawn)
        }
    };
    Ok(shown)
}

fn image(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn undrawable(error: qr::QrError) -> ApiError {
    AppError::Internal(Box::new(error)).into()
}

fn no_qr(session: &Session) -> ApiError {
    let message = match Status::of(session) {
        Status::Connected | Status::Connecting => "the session is linked, so it shows no QR code",
        Status::Pairing => "the session shows a pairing code, not a QR code",
        Status::Initializing | Status::QrRequired => {
            "there is no QR code yet; ask again in a moment"
        }
        Status::Disconnected | Status::LoggedOut | Status::Error => {
            "the session shows no QR code; connect it first"
        }
    };
    ApiError::new(Code::QrNotAvailable, message)
}
