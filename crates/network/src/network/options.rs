//! The shell's settings, and why it may not start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::certificates::CertificateError;
use crate::noise::NoiseError;
use crate::phones::PhonesOptions;
use crate::transcript::TranscriptOptions;
use crate::world::{Millis, WorldOptions};

/// Settings of a network; the defaults suit tests.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the Noise keys and certificates are kept; `None` makes new ones that are forgotten.
    pub folder: Option<PathBuf>,
    /// The time at the start, in place of the machine's.
    pub start_at: Option<Millis>,
    /// The wait before the first frame to a client of dictionary 2, which would crash on a quicker
    /// one.
    pub dictionary2_delay: Duration,
    /// Latency before the answer to a client's greeting. Clients in the same machine see a server
    /// that is quicker than any real one; some of their races show only then.
    pub connect_delay: Duration,
    /// How long a socket may take from the first byte to the end of the Noise handshake.
    pub handshake_limit: Duration,
    /// Stanzas over so many bytes are sent compressed.
    pub compress_above: Option<usize>,
    /// Stanzas that may wait for a client that does not read; one more and it is cut off.
    pub outgoing_max: usize,
    /// Settings of the pure world.
    pub world: WorldOptions,
    /// Settings of the simulated phones.
    pub phones: PhonesOptions,
    /// How much is remembered of what crossed, for the checkers and for readers.
    pub transcript: TranscriptOptions,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            folder: None,
            start_at: None,
            dictionary2_delay: Duration::from_millis(250),
            connect_delay: Duration::ZERO,
            handshake_limit: Duration::from_secs(20),
            compress_above: None,
            outgoing_max: 20_000,
            world: WorldOptions::default(),
            phones: PhonesOptions::default(),
            transcript: TranscriptOptions::default(),
        }
    }
}

/// Why a network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the folder for keys cannot be made")]
    Folder(#[source] io::Error),
    #[error("the Noise keys are not usable")]
    Noise(#[from] NoiseError),
    #[error("the certificates are not usable")]
    Certificates(#[from] CertificateError),
}
