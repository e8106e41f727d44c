//! A small client of wagate's own API: the sandbox's first steps, the benchmarks and the end-to-end
//! tests go through HTTP as users do, never past it.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

/// Calls one gateway with one API key. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The gateway answered with a failure: its status, machine word and sentence.
    #[error("{status} {code}: {error}")]
    Refused {
        status: u16,
        code: String,
        error: String,
        body: Box<Value>,
    },
    /// No answer came.
    #[error("the gateway did not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer was not JSON.
    #[error("the gateway's answer is not JSON (status {status})")]
    NotJson { status: u16 },
}

impl ClientError {
    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::NotJson { status } => Some(*status),
            Self::Unreachable(_) => None,
        }
    }

    /// The machine word, where there was one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Unreachable(_) | Self::NotJson { .. } => None,
        }
    }
}

/// An answer: its status and its JSON body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body's `data`.
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }
}

impl Client {
    /// `base` such as `http://127.0.0.1:8000`.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(base: impl Into<String>, key: impl Into<String>) -> Result<Self, ClientError> {
        crate::serve::install_tls_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(90))
            .build()
            .map_err(ClientError::Unreachable)?;
        Ok(Self {
            http,
            base: base.into(),
            key: key.into(),
        })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same gateway with another key.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self {
            http: self.http.clone(),
            base: self.base.clone(),
            key: key.into(),
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::DELETE, path, None, &[]).await
    }

    /// Any call, with headers of its own.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.map_err(ClientError::Unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(ClientError::Unreachable)?;
        let body: Value = serde_json::from_slice(&bytes).map_err(|_| ClientError::NotJson {
            status: status.as_u16(),
        })?;
        if status.is_success() {
            return Ok(Answer {
                status: status.as_u16(),
                body,
            });
        }
        let word = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        Err(ClientError::Refused {
            status: status.as_u16(),
            code: word("code"),
            error: word("error"),
            body: Box::new(body),
        })
    }

    /// The body of a GET as text, for what is not JSON.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        let response = request.send().await.map_err(ClientError::Unreachable)?;
        response.text().await.map_err(ClientError::Unreachable)
    }
}
