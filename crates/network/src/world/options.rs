//! The world's settings. The defaults are what the clients expect of the real service, as far as known.

use bytes::Bytes;

use super::Millis;

/// Settings of a [`super::World`]; they hold for its life.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// The same seed and the same calls give the same effects.
    pub seed: u64,
    /// How long the first QR reference can be scanned.
    pub qr_first_ttl_ms: Millis,
    /// How long each further one can.
    pub qr_next_ttl_ms: Millis,
    pub qr_references: usize,
    /// How long a pairing code can be entered, and how often.
    pub code_ttl_ms: Millis,
    pub code_attempts_max: u32,
    /// Companions per account.
    pub companions_max: usize,
    /// Queued stanzas sent after login before the client asks for a batch. `None` sends everything.
    pub offline_primer: Option<usize>,
    /// The next batch goes out after this time although nobody asked for it.
    pub offline_batch_wait_ms: Millis,
    /// Whether a forwarded receipt names the receiver's device or only its user.
    pub receipt_from_device: bool,
    /// One-time prekeys left at which the device is told to upload more.
    pub low_prekeys: usize,
    /// How long a typing state waits for a device that is away.
    pub chatstate_ttl_ms: Millis,
    /// How long a stanza held by a `reorder` fault waits for the one that overtakes it.
    pub reorder_hold_ms: Millis,
    /// The oldest client version that may log in (failure 405 otherwise).
    pub minimum_version: [u32; 3],
    /// AB properties told to clients: `(code, value)`.
    pub ab_props: Vec<(u32, String)>,
    /// Told to clients at login; those that support it send it before their next handshake.
    pub edge_routing: Option<Bytes>,
    /// See [`super::World::set_media_host`].
    pub media_host: String,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            qr_first_ttl_ms: 60_000,
            qr_next_ttl_ms: 20_000,
            qr_references: 6,
            code_ttl_ms: 180_000,
            code_attempts_max: 3,
            companions_max: 4,
            offline_primer: Some(200),
            offline_batch_wait_ms: 1_000,
            receipt_from_device: true,
            low_prekeys: 4,
            chatstate_ttl_ms: 3_000,
            reorder_hold_ms: 2_000,
            minimum_version: [0, 0, 0],
            ab_props: Vec::new(),
            edge_routing: None,
            media_host: "localhost".to_owned(),
        }
    }
}
