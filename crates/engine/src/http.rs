//! The HTTP client for what goes beside the socket: the version page, and media hosts.
//!
//! One for the process, with limits and time-outs. In an unsafe build every request goes to the simulated
//! network, whatever host it names: WhatsApp's hosts are out of reach of such a build.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;
use wacore::net::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::anyhow;

use crate::endpoint::Endpoint;
use crate::error::EngineError;

/// No answer is larger; WhatsApp's own bound for a document is 2 GiB, which is streamed elsewhere.
const BODY_MAX: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No single read of a body waits longer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Http {
    client: reqwest::Client,
    /// The host and port that stand in for every other.
    stand_in: Option<Url>,
}

impl Http {
    pub(crate) fn new(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, EngineError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(tls))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_max_idle_per_host(4)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()
            .map_err(|source| EngineError::Protocol {
                doing: "making the HTTP client",
                source: Box::new(source),
            })?;
        Ok(Self {
            client,
            stand_in: endpoint.0.media_host().cloned(),
        })
    }

    fn address(&self, url: &str) -> anyhow::Result<Url> {
        let mut url = Url::parse(url)?;
        if let Some(stand_in) = &self.stand_in {
            let fits =
                url.set_host(stand_in.host_str()).is_ok() && url.set_port(stand_in.port()).is_ok();
            anyhow::ensure!(fits, "the address cannot be moved to the simulated network");
        }
        Ok(url)
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
        let mut call = self.client.request(method, self.address(&request.url)?);
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let mut response = call.send().await?;
        let status_code = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            anyhow::ensure!(
                body.len() + chunk.len() <= BODY_MAX,
                "the answer is too large"
            );
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse { status_code, body })
    }
}
