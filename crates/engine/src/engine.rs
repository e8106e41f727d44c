//! What all devices of a process share.

impl Engine {
    /// `Engine` is cheap to clone.
    pub fn new(options: EngineOptions, db: Db, clock: Arc<dyn Clock>) -> Result<Engine, EngineError>;

    /// Loads a session's device state and makes its device, linked or not. `start` it afterwards.
    /// `events` must be bounded; 256 is a good size.
    pub async fn open(&self, lease: &Lease, sink: Arc<dyn InboundSink>, events: mpsc::Sender<EngineEvent>) -> Result<Device, EngineError>;

    /// Opens the socket to WhatsApp and closes it again; for `doctor`.
    pub async fn check_reachable(&self) -> Result<(), EngineError>;

    /// Waits until every device that was stopped has let go of its tasks.
    pub async fn shutdown(&self);
}
