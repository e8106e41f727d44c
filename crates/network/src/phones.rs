//! Runs the phones' work outside the world's lock, in order per account, with a bound.

/* Signatures that hold (the rest is being written):

/// All phones and the workers that run them. Cheap to clone.
#[derive(Clone, Debug)] pub struct Phones(Arc<…>);

/// What phones need of the shell: `Network` implements it (NA), or anything with a world (tests).
pub trait Shell: Send + Sync + 'static {
    fn now(&self) -> Millis;
    /// Runs `f` on the world under its lock, then carries out the effects (which may call `Phones::deliver`; that never blocks and takes no lock of a phone).
    fn with_world(&self, f: &mut dyn FnMut(&mut World, Millis, &mut Vec<Effect>));
}

impl Phones {
    pub fn new(options: PhonesOptions { seed, decrypt, workers, backlog_max }) -> Self;
    /// Starts the workers on the tracker; they stop when the token is cancelled. `shell` is weak inside.
    pub fn start(&self, shell: Weak<dyn Shell>, tracker: &TaskTracker, stop: CancellationToken);
    /// Effect::Phone: queues a stanza for an account's phone. Never blocks, never fails.
    pub fn deliver(&self, account: AccountId, node: Node);
    /// The companion uploaded its first prekeys (world's event): queue the greeting.
    pub fn greet(&self, account: AccountId, device: u16);
    /// Waits while the backlog is above its bound. Connections call it before they read the next frame: this is the only back-pressure on phone work.
    pub async fn admit(&self);
    /// Makes a phone and its account in the world.
    pub fn create(&self, shell: &dyn Shell, spec: AccountSpec) -> Result<AccountId, WorldError>;
    /// Runs `f` on a phone now (short: linking, sending, reading).
    pub fn with_phone<R>(&self, shell, account, f: impl FnOnce(&mut Phone, Millis, &mut dyn PhonePort) -> R) -> Option<R>;
}
*/
