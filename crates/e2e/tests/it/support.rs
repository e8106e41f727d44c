//! What several files need.

use wagate_e2e::{Harness, Setup};

/// The test gateway.
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_e2e-gateway");

pub(crate) const OWNER: &str = "+6281100000001";
pub(crate) const FRIEND: &str = "+6281200000002";
pub(crate) const OTHER: &str = "+6281300000003";

/// A network and a gateway with the defaults.
pub(crate) async fn harness() -> Harness {
    Harness::start(GATEWAY, Setup::default()).await.unwrap()
}

/// The same with settings of the gateway.
pub(crate) async fn harness_with(settings: &[(&str, &str)]) -> Harness {
    let settings = settings
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Harness::start(
        GATEWAY,
        Setup {
            settings,
            ..Setup::default()
        },
    )
    .await
    .unwrap()
}
