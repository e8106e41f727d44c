//! The harness's PostgreSQL server, failing as tests do.

/// A running server; killed when dropped, its data removed.
pub(crate) struct Cluster(wagate_e2e::cluster::Cluster);

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self(wagate_e2e::cluster::Cluster::start().await.unwrap())
    }

    /// The address of its only database.
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// Ends all its processes at once, as a crash would, and starts it again.
    pub(crate) async fn crash_and_restart(&self) {
        self.0.crash_and_restart().await.unwrap();
    }
}
