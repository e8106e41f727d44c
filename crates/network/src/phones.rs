//! Runs the phones' work outside the world's lock: in order per account, on a few workers, bounded.
//!
//! The shell hands over what the world has for phones ([`Phones::deliver`], [`Phones::greet`],
//! [`Phones::notice`]) while it holds the world's lock, so these only fill queues. A worker then locks
//! the phone, lets it work, and gives its stanzas back to the world under a second, short lock. Locks
//! are always taken in the order phone, world. Whoever receives stanzas from clients waits in
//! [`Phones::admit`] while the phones are behind: that is the only back-pressure.

mod port;
mod queue;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::node::Node;
use crate::phone::{Behaviour, Phone, PhoneError, PhoneOptions, PhonePort};
use crate::world::{
    AccountId, AccountSpec, DeviceId, Effect, Millis, NetworkEvent, World, WorldError,
};
use port::ShellPort;
use queue::{Alarms, Queue, Work};

/// Pieces of work between two chances for other tasks.
const BURST: usize = 16;
/// How long the alarm clock sleeps at most; a jump of the network's time wakes it sooner.
const NAP: Duration = Duration::from_secs(60);

/// Settings of the simulated phones.
#[derive(Clone, Debug)]
pub struct PhonesOptions {
    /// Decides all keys of all phones.
    pub seed: u64,
    /// Whether phones open what they receive. Without it they confirm delivery all the same, so that a
    /// load test measures the gateway.
    pub decrypt: bool,
    /// Tasks that work for the phones.
    pub workers: usize,
    /// Stanzas waiting for phones before connections stop reading.
    pub backlog_max: usize,
    /// What new phones do by themselves.
    pub behaviour: Behaviour,
    /// One-time prekeys of a new account.
    pub prekeys: u32,
}

impl Default for PhonesOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            decrypt: true,
            workers: 2,
            backlog_max: 10_000,
            behaviour: Behaviour::default(),
            prekeys: 5,
        }
    }
}

/// What the phones need of the shell.
pub trait Shell: Send + Sync + 'static {
    /// The network's time.
    fn now(&self) -> Millis;

    /// Runs `f` on the world under its lock, then carries out the effects.
    fn with_world(&self, f: &mut dyn FnMut(&mut World, Millis, &mut Vec<Effect>));
}

/// All phones and their workers. Cheap to clone.
#[derive(Clone)]
pub struct Phones(Arc<Inner>);

struct Inner {
    options: PhonesOptions,
    /// By account number.
    phones: RwLock<Vec<Option<Arc<Mutex<Phone>>>>>,
    queue: Queue,
    alarms: Alarms,
}

impl fmt::Debug for Phones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phones")
            .field("backlog", &self.backlog())
            .finish_non_exhaustive()
    }
}

impl Phones {
    pub fn new(options: PhonesOptions) -> Self {
        let queue = Queue::new(options.workers.max(1), options.backlog_max);
        let (phones, alarms) = (RwLock::default(), Alarms::default());
        Self(Arc::new(Inner {
            options,
            phones,
            queue,
            alarms,
        }))
    }

    /// Starts the workers; they end when `stop` is cancelled or the shell is gone.
    pub fn start(&self, shell: Weak<dyn Shell>, tracker: &TaskTracker, stop: CancellationToken) {
        for lane in 0..self.0.queue.lanes() {
            tracker.spawn(self.clone().work(lane, Weak::clone(&shell), stop.clone()));
        }
        tracker.spawn(self.clone().watch_alarms(shell, stop));
    }

    /// Makes a phone and its account.
    ///
    /// # Errors
    /// When the number is malformed or taken.
    pub fn create(&self, shell: &dyn Shell, spec: AccountSpec) -> Result<AccountId, WorldError> {
        let options = &self.0.options;
        let mut phone = Phone::new(PhoneOptions {
            seed: options.seed,
            phone: spec.phone.trim_start_matches('+').to_owned(),
            push_name: spec.push_name.clone(),
            behaviour: options.behaviour.clone(),
            prekeys: options.prekeys,
            decrypt: options.decrypt,
        })
        .map_err(|error: PhoneError| WorldError::BadPhone(error.to_string()))?;
        let keys = phone.keys();
        // Held until the phone stands in its place, so that no worker looks for it before.
        let mut phones = self
            .0
            .phones
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut spec, mut created) = (Some(spec), None);
        shell.with_world(&mut |world, now, _| {
            let Some(spec) = spec.take() else { return };
            created = Some(world.create_account(now, spec, &keys).map(|id| {
                let lid = world.account(id).map(crate::world::Account::lid_jid);
                (id, lid)
            }));
        });
        let (id, lid) = created.unwrap_or(Err(WorldError::UnknownAccount(AccountId(u32::MAX))))?;
        phone.register(id, lid);
        let at = id.0 as usize;
        if phones.len() <= at {
            phones.resize(at + 1, None);
        }
        phones[at] = Some(Arc::new(Mutex::new(phone)));
        Ok(id)
    }

    /// Runs `f` on a phone at once, then what follows from it. `None` when the account has no phone.
    pub fn with_phone<R>(
        &self,
        shell: &dyn Shell,
        account: AccountId,
        f: impl FnOnce(&mut Phone, Millis, &mut dyn PhonePort) -> R,
    ) -> Option<R> {
        let phone = self.phone(account)?;
        let mut phone = lock(&phone);
        let mut port = ShellPort::new(shell, account);
        let result = f(&mut phone, shell.now(), &mut port);
        // Under the phone's lock, so that its stanzas reach the world in the order of their making.
        port.flush();
        if let Some(due) = phone.next_deadline() {
            self.0.alarms.set(account, due);
        }
        Some(result)
    }

    /// Queues a stanza for an account's phone.
    pub fn deliver(&self, account: AccountId, node: Node) {
        self.0.queue.push(account, Work::Stanza(node));
    }

    /// Queues the greeting of a companion that uploaded its first prekeys.
    pub fn greet(&self, account: AccountId, device: DeviceId) {
        self.0.queue.push(account, Work::Greet(device));
    }

    /// Looks at what happened in the network for what concerns phones.
    pub fn notice(&self, event: &NetworkEvent) {
        if let NetworkEvent::Unlinked {
            account, device, ..
        } = event
        {
            self.0.queue.push(*account, Work::Forget(*device));
        }
    }

    /// The network's time jumped.
    pub fn time_moved(&self) {
        self.0.alarms.wake();
    }

    /// Work that waits.
    pub fn backlog(&self) -> usize {
        self.0.queue.len()
    }

    /// Waits while the phones are too far behind.
    pub async fn admit(&self) {
        self.0.queue.admit().await;
    }

    /// Waits until nothing is left to do for phones at this moment.
    pub async fn idle(&self) {
        self.0.queue.idle().await;
    }

    /// Switches decryption for all phones whose behaviour does not say otherwise.
    pub fn set_decrypt(&self, decrypt: bool) {
        let phones = self.0.phones.read().unwrap_or_else(PoisonError::into_inner);
        for phone in phones.iter().flatten() {
            lock(phone).set_decrypt(decrypt);
        }
    }

    fn phone(&self, account: AccountId) -> Option<Arc<Mutex<Phone>>> {
        let phones = self.0.phones.read().unwrap_or_else(PoisonError::into_inner);
        phones.get(account.0 as usize)?.clone()
    }

    async fn work(self, lane: usize, shell: Weak<dyn Shell>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.queue.ready(lane) => {}
            }
            for _ in 0..BURST {
                let Some((account, work)) = self.0.queue.pop(lane) else {
                    break;
                };
                let Some(shell) = shell.upgrade() else { return };
                self.carry_out(shell.as_ref(), account, work);
                self.0.queue.done();
            }
            tokio::task::yield_now().await;
        }
    }

    fn carry_out(&self, shell: &dyn Shell, account: AccountId, work: Work) {
        let known = match work {
            Work::Stanza(node) => self.with_phone(shell, account, |phone, now, port| {
                phone.handle(now, &node, port);
            }),
            Work::Greet(device) => self.with_phone(shell, account, |phone, now, port| {
                phone.greet(now, device, port);
            }),
            Work::Tick => self.with_phone(shell, account, |phone, now, port| phone.tick(now, port)),
            Work::Forget(device) => self.forget(shell, account, device),
        };
        if known.is_none() {
            tracing::debug!(
                account = account.0,
                "an account without a phone has work for it"
            );
        }
    }

    /// A companion left: the phone signs a new list of those that remain.
    fn forget(&self, shell: &dyn Shell, account: AccountId, device: DeviceId) -> Option<()> {
        let list = self.with_phone(shell, account, |phone, now, _| phone.forget(now, device))?;
        match list {
            Ok(list) => shell.with_world(&mut |world, _, _| {
                world.set_key_index_list(account, list.timestamp, list.bytes.clone());
            }),
            Err(error) => tracing::error!(%error, "a phone cannot sign its list of companions"),
        }
        Some(())
    }

    async fn watch_alarms(self, shell: Weak<dyn Shell>, stop: CancellationToken) {
        loop {
            let Some(now) = shell.upgrade().map(|shell| shell.now()) else {
                return;
            };
            for account in self.0.alarms.due(now) {
                self.0.queue.push(account, Work::Tick);
            }
            let nap = self.0.alarms.next().map_or(NAP, |due| {
                let left = u64::try_from(due.saturating_sub(now)).unwrap_or(0);
                Duration::from_millis(left.max(1)).min(NAP)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.alarms.changed() => {}
                () = sleep(nap) => {}
            }
        }
    }
}

fn lock(phone: &Mutex<Phone>) -> MutexGuard<'_, Phone> {
    phone.lock().unwrap_or_else(PoisonError::into_inner)
}
