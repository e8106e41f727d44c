//! One session's actor as the rest of the worker sees it: a handle with a mailbox of two lanes.
//!
//! The control lane carries what must not be missed and has priority; the work lane is a single
//! "there may be messages" flag, so that a flood of wake-ups costs one look at the queue. Both are
//! bounded (BD-1). The actor itself is `actor`, its rules are `step`.

mod actor;
mod batch;
mod inbound;
mod outbound;
mod paced;
mod step;
mod unsaved;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use wagate_domain::LinkState;
use wagate_store::Lease;

pub(crate) use actor::{Actor, Outcome, longest_resend_wait};
pub(crate) use step::Bounds;
pub(crate) use unsaved::LeftBehind;

/// Control messages that may wait; a full lane means that the actor will look at everything anyway.
const CONTROL_LANE: usize = 8;

/// Something that an actor must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The session's row may want something else.
    DesiredChanged,
    /// The network seems to be back: do not wait for the end of a back-off.
    Nudge,
    /// Devices that asked for a message again may still be without it.
    Resend,
    /// The process stops.
    Shutdown,
}

/// How the supervisor and the dispatcher reach an actor.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) lease: Lease,
    control: mpsc::Sender<Control>,
    work: Arc<Notify>,
    lost: CancellationToken,
    standing: Arc<AtomicU8>,
}

/// The actor's side of its mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) work: Arc<Notify>,
    /// Fires when the lease is lost: the actor drops everything without another word (SL-1).
    pub(crate) lost: CancellationToken,
    standing: Arc<AtomicU8>,
}

impl Handle {
    /// A handle and the mailbox that belongs to it.
    pub(crate) fn new(lease: Lease) -> (Handle, Mailbox) {
        let (control, inbox) = mpsc::channel(CONTROL_LANE);
        let work = Arc::new(Notify::new());
        let lost = CancellationToken::new();
        let standing = Arc::new(AtomicU8::new(0));
        let mailbox = Mailbox {
            control: inbox,
            work: Arc::clone(&work),
            lost: lost.clone(),
            standing: Arc::clone(&standing),
        };
        (
            Handle {
                lease,
                control,
                work,
                lost,
                standing,
            },
            mailbox,
        )
    }

    /// Puts a message in the control lane; false when it is full or the actor is gone.
    pub(crate) fn tell(&self, control: Control) -> bool {
        self.control.try_send(control).is_ok()
    }

    /// Says that there may be messages to send.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// Takes the session away from the actor at once.
    pub(crate) fn lose(&self) {
        self.lost.cancel();
    }

    /// Where the session stands, for counting.
    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            1 => Standing::Connected,
            2 => Standing::AwaitingScan,
            _ => Standing::Other,
        }
    }
}

impl Mailbox {
    /// Notes where the session stands, for those who count.
    pub(crate) fn stand(&self, link: &LinkState) {
        let standing = match link {
            LinkState::Connected => 1,
            LinkState::AwaitingScan => 2,
            _ => 0,
        };
        self.standing.store(standing, Ordering::Relaxed);
    }
}

/// Where a session stands, as coarsely as a heartbeat wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Connected,
    AwaitingScan,
    Other,
}
