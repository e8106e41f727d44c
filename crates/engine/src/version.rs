//! Which version of WhatsApp Web all devices say they are, found out once for the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use wacore::net::HttpClient;

use crate::error::EngineError;
use crate::options::WaVersion;

pub(crate) type Version = (u32, u32, u32);

/// After a failure, and between two forced looks, nobody asks again for this long.
const PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Versions {
    wanted: WaVersion,
    http: Arc<dyn HttpClient>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    version: Option<(Version, Instant)>,
    asked: Option<Instant>,
}

impl Versions {
    pub(crate) fn new(wanted: WaVersion, http: Arc<dyn HttpClient>) -> Self {
        Self {
            wanted,
            http,
            known: Mutex::new(Known::default()),
        }
    }

    /// The version to say now. A refresh that fails leaves the one that was known.
    pub(crate) async fn current(&self) -> Result<Version, EngineError> {
        let refresh_after = match self.wanted {
            WaVersion::Fixed(primary, secondary, tertiary) => {
                return Ok((primary, secondary, tertiary));
            }
            WaVersion::Current { refresh_after } => refresh_after,
        };
        // Held while asking: a thousand devices that start together ask once.
        let mut known = self.known.lock().await;
        match known.version {
            Some((version, at)) if at.elapsed() < refresh_after => return Ok(version),
            Some((version, _)) if known.asked_lately() => return Ok(version),
            _ => {}
        }
        self.ask(&mut known).await
    }

    /// WhatsApp refused the version: whether there is a newer one by now.
    pub(crate) async fn is_there_newer(&self) -> bool {
        if matches!(self.wanted, WaVersion::Fixed(..)) {
            return false;
        }
        let mut known = self.known.lock().await;
        if known.asked_lately() {
            return false;
        }
        let before = known.version.map(|(version, _)| version);
        self.ask(&mut known)
            .await
            .is_ok_and(|now| before.is_some_and(|before| before != now))
    }

    async fn ask(&self, known: &mut Known) -> Result<Version, EngineError> {
        known.asked = Some(Instant::now());
        match whatsapp_rust::version::fetch_latest_app_version(&self.http).await {
            Ok(version) => {
                known.version = Some((version, Instant::now()));
                Ok(version)
            }
            Err(error) => match known.version {
                Some((version, _)) => {
                    tracing::warn!(%error, "the version of WhatsApp was not refreshed");
                    Ok(version)
                }
                None => Err(EngineError::Version(error.into())),
            },
        }
    }
}

impl Known {
    fn asked_lately(&self) -> bool {
        self.asked.is_some_and(|at| at.elapsed() < PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use wacore::net::{HttpRequest, HttpResponse};
    use whatsapp_rust::anyhow;

    use super::*;

    /// Answers with revision 1, 2, 3…; zero stands for "unreachable".
    struct Page(Arc<AtomicU32>);

    #[async_trait::async_trait]
    impl HttpClient for Page {
        async fn execute(&self, _request: HttpRequest) -> anyhow::Result<HttpResponse> {
            let revision = self.0.load(Ordering::SeqCst);
            anyhow::ensure!(revision != 0, "unreachable");
            let body = format!(r#"self.x = "\"client_revision\":{revision},";"#);
            Ok(HttpResponse {
                status_code: 200,
                body: body.into_bytes(),
            })
        }
    }

    fn versions(revision: u32) -> (Versions, Arc<AtomicU32>) {
        let page = Arc::new(AtomicU32::new(revision));
        let wanted = WaVersion::Current {
            refresh_after: Duration::from_secs(3600),
        };
        (
            Versions::new(wanted, Arc::new(Page(Arc::clone(&page)))),
            page,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn is_asked_once_and_again_when_old() {
        let (versions, page) = versions(1);
        assert_eq!(versions.current().await.unwrap(), (2, 3000, 1));
        page.store(2, Ordering::SeqCst);
        assert_eq!(versions.current().await.unwrap(), (2, 3000, 1));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(versions.current().await.unwrap(), (2, 3000, 2));
        page.store(0, Ordering::SeqCst);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(versions.current().await.unwrap(), (2, 3000, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_failure_is_an_error() {
        let (versions, _) = versions(0);
        assert!(matches!(
            versions.current().await,
            Err(EngineError::Version(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_version_is_looked_up_again_once_a_minute() {
        let (versions, page) = versions(1);
        versions.current().await.unwrap();
        page.store(2, Ordering::SeqCst);
        assert!(!versions.is_there_newer().await);
        tokio::time::advance(PAUSE).await;
        assert!(versions.is_there_newer().await);
        tokio::time::advance(PAUSE).await;
        assert!(!versions.is_there_newer().await);
    }
}
