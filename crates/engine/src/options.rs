//! What the engine is told at its start. Every figure has a reason in its own line.

use std::time::Duration;

use wagate_domain::Backoff;

use crate::endpoint::Endpoint;

/// Settings of an [`crate::Engine`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where devices connect to.
    pub endpoint: Endpoint,
    /// The name shown in the phone's list of linked devices. WhatsApp wants an operating system here when
    /// a pairing code is used; anything else is shown as "Linux" then.
    pub device_name: String,
    /// Which version of WhatsApp Web we say we are.
    pub version: WaVersion,
    /// How fast devices of this process may connect.
    pub pace: Pace,
    /// One attempt to open the socket takes no longer.
    pub connect_timeout: Duration,
    /// A message without the server's answer for that long gets [`crate::EngineEvent::AckTimeout`].
    pub ack_timeout: Duration,
    /// So long after a device of the recipient asked for a message again, [`wagate_store::messages`] is to
    /// look whether it has it.
    pub resend_after: Duration,
    /// Writing one message to the socket, with whatever has to be asked before, takes no longer, or the
    /// connection is replaced, and after as long again the device ends.
    pub send_timeout: Duration,
    /// So many messages of one device may wait for their acknowledgement.
    pub acks_max: usize,
    /// So many one-time prekeys are made and uploaded when WhatsApp runs low. Each costs 70 bytes in the
    /// database and 17 µs to make; a device uses one for each new contact device that writes first.
    pub prekeys: usize,
    /// So many chats of one device keep a receive lane (17 KiB each) until the next connection.
    pub chat_lanes: u64,
    /// When a connection that says nothing is replaced.
    pub liveness: Liveness,
    /// The waits between attempts to connect.
    pub reconnect: Backoff,
}

impl EngineOptions {
    /// The usual settings.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            device_name: "Linux".to_owned(),
            version: WaVersion::default(),
            pace: Pace::default(),
            connect_timeout: Duration::from_secs(15),
            ack_timeout: Duration::from_secs(20),
            resend_after: Duration::from_secs(10),
            send_timeout: Duration::from_secs(90),
            acks_max: 4096,
            prekeys: 200,
            chat_lanes: 128,
            liveness: Liveness::default(),
            reconnect: Backoff::RECONNECT,
        }
    }
}

/// Which version of WhatsApp Web a device says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaVersion {
    /// Always this one: for a simulated network, which does not care.
    Fixed(u32, u32, u32),
    /// The one that WhatsApp Web itself has, asked once for the process and again after this long.
    Current { refresh_after: Duration },
}

impl Default for WaVersion {
    #[cfg(not(feature = "unsafe-sandbox"))]
    fn default() -> Self {
        Self::Current {
            refresh_after: Duration::from_secs(6 * 3600),
        }
    }

    #[cfg(feature = "unsafe-sandbox")]
    fn default() -> Self {
        Self::Fixed(2, 3000, 1_030_000_000)
    }
}

/// The pace of connecting, across all devices of the process (engine rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Attempts begun in a second, on average.
    pub per_sec: u32,
    /// Attempts that may be between "begun" and "logged in or failed" at one time.
    pub at_once: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            per_sec: 150,
            at_once: 64,
        }
    }
}

/// When a connection that says nothing counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// After so long without a byte from WhatsApp it is asked for a sign of life.
    pub probe_after: Duration,
    /// A sign of life, and the answer to a login, come within this time.
    pub answer_within: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            probe_after: Duration::from_secs(40),
            answer_within: Duration::from_secs(20),
        }
    }
}
