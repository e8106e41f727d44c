//! Where a device connects to.
//!
//! A production build connects to WhatsApp, or to a relay in front of it; the certificate chain is
//! verified up to WhatsApp's key in either case. A build with the feature `unsafe-sandbox` accepts any
//! chain; it can only be given a simulated network's address, and the type that names WhatsApp does not
//! exist in it. So no binary can do both.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::{Host, Url};

#[cfg(not(feature = "unsafe-sandbox"))]
pub use ProductionEndpoint as Endpoint;
#[cfg(feature = "unsafe-sandbox")]
pub use SandboxEndpoint as Endpoint;

/// An address cannot be used as an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("the address must begin with ws:// or wss:// and name a host")]
    NotAWebSocket,
    #[error("an unencrypted ws:// address is accepted for this machine only")]
    NotLocal,
    #[error("a build for the simulated network never connects to WhatsApp")]
    UnsafeBuild,
    #[error("the certificates to trust are not valid PEM")]
    BadCertificates,
}

/// The socket's address and the authorities trusted beside the usual ones.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) url: Url,
    /// Requests for media go there too, whatever host they name: in an unsafe build only.
    simulated: bool,
    pub(crate) extra_roots: Vec<CertificateDer<'static>>,
}

impl Address {
    fn parse(url: &str, extra_roots_pem: Option<&[u8]>) -> Result<Self, EndpointError> {
        let url = Url::parse(url).map_err(|_| EndpointError::NotAWebSocket)?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() {
            return Err(EndpointError::NotAWebSocket);
        }
        if url.scheme() == "ws" && !is_local(&url) {
            return Err(EndpointError::NotLocal);
        }
        let extra_roots = match extra_roots_pem {
            None => Vec::new(),
            Some(pem) => CertificateDer::pem_slice_iter(pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| EndpointError::BadCertificates)?,
        };
        if extra_roots_pem.is_some() && extra_roots.is_empty() {
            return Err(EndpointError::BadCertificates);
        }
        Ok(Self {
            url,
            simulated: cfg!(feature = "unsafe-sandbox"),
            extra_roots,
        })
    }

    /// The host that stands in for every media host, if one does.
    pub(crate) fn media_host(&self) -> Option<&Url> {
        self.simulated.then_some(&self.url)
    }
}

/// WhatsApp itself, or a relay that passes the bytes on to it.
#[cfg(not(feature = "unsafe-sandbox"))]
#[derive(Clone, Debug)]
pub struct ProductionEndpoint(pub(crate) Address);

#[cfg(not(feature = "unsafe-sandbox"))]
impl ProductionEndpoint {
    /// WhatsApp's own address.
    ///
    /// # Errors
    /// None in practice: the address is a constant.
    pub fn whatsapp() -> Result<Self, EndpointError> {
        Self::at(wacore::net::WHATSAPP_WEB_WS_URL, None)
    }

    /// A relay at `url`, trusting the authorities of `extra_roots_pem` for its TLS too.
    ///
    /// The Noise handshake inside is verified against WhatsApp's key, so that only a relay of WhatsApp
    /// itself can be linked through.
    pub fn at(url: &str, extra_roots_pem: Option<&[u8]>) -> Result<Self, EndpointError> {
        Address::parse(url, extra_roots_pem).map(Self)
    }
}

/// A simulated network. Nothing verifies who it is.
#[cfg(feature = "unsafe-sandbox")]
#[derive(Clone, Debug)]
pub struct SandboxEndpoint(pub(crate) Address);

#[cfg(feature = "unsafe-sandbox")]
impl SandboxEndpoint {
    /// The network at `url`, trusting the authorities of `extra_roots_pem` for its TLS.
    pub fn at(url: &str, extra_roots_pem: Option<&[u8]>) -> Result<Self, EndpointError> {
        let address = Address::parse(url, extra_roots_pem)?;
        let host = address
            .url
            .host_str()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let real = ["whatsapp.com", "whatsapp.net", "facebook.com", "fbcdn.net"];
        if real
            .iter()
            .any(|name| host == *name || host.ends_with(&format!(".{name}")))
        {
            return Err(EndpointError::UnsafeBuild);
        }
        Ok(Self(address))
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_socket_addresses_are_taken() {
        for url in ["", "https://web.whatsapp.com", "ws:", "web.whatsapp.com"] {
            assert_eq!(
                Endpoint::at(url, None).unwrap_err(),
                EndpointError::NotAWebSocket,
                "{url}"
            );
        }
    }

    #[test]
    fn plain_sockets_stay_on_this_machine() {
        for url in [
            "ws://127.0.0.1:9/ws/chat",
            "ws://localhost/ws/chat",
            "ws://[::1]:9/",
        ] {
            assert!(Endpoint::at(url, None).is_ok(), "{url}");
        }
        for url in ["ws://10.0.0.1/ws/chat", "ws://relay.example/ws/chat"] {
            assert_eq!(
                Endpoint::at(url, None).unwrap_err(),
                EndpointError::NotLocal,
                "{url}"
            );
        }
    }

    #[test]
    fn roots_that_are_no_certificates_are_refused() {
        let roots = Some(b"not a certificate".as_slice());
        assert_eq!(
            Endpoint::at("wss://localhost/ws/chat", roots).unwrap_err(),
            EndpointError::BadCertificates
        );
    }

    #[cfg(feature = "unsafe-sandbox")]
    #[test]
    fn an_unsafe_build_refuses_whatsapp() {
        for url in [
            "wss://web.whatsapp.com/ws/chat",
            "wss://WEB.WhatsApp.net./ws/chat",
        ] {
            assert_eq!(
                Endpoint::at(url, None).unwrap_err(),
                EndpointError::UnsafeBuild,
                "{url}"
            );
        }
    }

    #[cfg(not(feature = "unsafe-sandbox"))]
    #[test]
    fn production_is_whatsapp() {
        let endpoint = Endpoint::whatsapp().unwrap();
        assert_eq!(endpoint.0.url.host_str(), Some("web.whatsapp.com"));
        assert!(endpoint.0.media_host().is_none());
    }
}
