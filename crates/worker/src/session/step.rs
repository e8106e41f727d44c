//! The pure core of one session: what happened goes in, what must be done comes out.
//!
//! No I/O, no clock, no randomness: the actor brings the time and carries out the effects in order. So
//! the rules that matter most can be tested by the thousand:
//!
//! * one claim gives at most one send and exactly one outcome (MP-2): a repeat goes through the queue,
//!   under the same WhatsApp id;
//! * `sent` comes from the server's acknowledgement alone (MP-5), also from a late one;
//! * a session that is away takes no messages, and what it had goes back without a lost attempt;
//! * a permanent state ends the actor: nothing connects again by itself.

mod flights;
mod link;

use std::collections::BTreeMap;
use std::time::Duration;

use wagate_domain::message::Failure;
use wagate_domain::pacing::{Reason, Scope};
use wagate_domain::retry::Verdict;
use wagate_domain::session::LinkReason;
use wagate_domain::{
    Desired, LinkChallenge, LinkMethod, LinkState, PhoneNumber, RetryClass, Timestamp, WaMessageId,
};
use wagate_engine::{EngineEvent, Identity};

use flights::{Answer, Flight};

/// The bounds that a core keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Messages on their way at once.
    pub(crate) concurrency: usize,
    /// Attempts after the first that a message gets.
    pub(crate) retries_max: u32,
    /// How long linking may take.
    pub(crate) link_timeout: Duration,
    /// QR texts shown before linking is given up.
    pub(crate) link_qr_max: u32,
    /// How long a stop waits for messages that are on their way.
    pub(crate) drain_within: Duration,
    /// A session that has been connecting for so long without a sign gets a new device.
    pub(crate) stuck_after: Duration,
}

/// What somebody wants of the session, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) desired: Desired,
    pub(crate) generation: i64,
    pub(crate) method: Option<LinkMethod>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The row was read.
    Wanted(Want),
    /// The device was opened; `linked` says whether it has an account.
    Opened { linked: bool },
    /// The device could not be opened.
    OpenFailed { reason: String },
    /// The device said something.
    Device(EngineEvent),
    /// Asking for a pairing code failed.
    CodeFailed { reason: String },
    /// There may be messages to send.
    Wake,
    /// Messages that may be on their way at once, from now on.
    Concurrency(usize),
    /// Messages were claimed, with the number of this attempt; fewer than asked for means no more now.
    Claimed {
        claimed: Vec<(WaMessageId, u32)>,
        asked: usize,
    },
    /// A send was written to the socket.
    Written { wa_id: WaMessageId, flight: u64 },
    /// A send did not reach the socket, or may have.
    NotWritten {
        wa_id: WaMessageId,
        flight: u64,
        verdict: Verdict,
        failure: Failure,
    },
    /// The network seems to be back.
    Nudge,
    /// Time has passed.
    Tick,
    /// The process stops.
    Shutdown,
}

/// Something to do. Effects of one step are carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Opens the device; answers with [`Input::Opened`] or [`Input::OpenFailed`].
    Open,
    /// Lets the opened device connect.
    Start,
    /// Asks for a pairing code.
    RequestCode(PhoneNumber),
    /// Connects now rather than later.
    ReconnectNow,
    /// Stops the device; its last event follows.
    Stop,
    /// Unlinks the device at WhatsApp; its last event follows.
    Logout,
    /// Deletes the device's keys: they are worthless.
    ClearKeys,
    /// Removes the session.
    DeleteSession,
    /// Writes down where the session stands, and tells the tenant.
    Observe(Box<Observed>),
    /// Claims messages; answers with [`Input::Claimed`].
    Claim { asked: usize },
    /// Sends a claimed message; answers with [`Input::Written`] or [`Input::NotWritten`].
    Send { wa_id: WaMessageId, flight: u64 },
    /// WhatsApp's server took the message: the claim is done. The actor commits the news itself.
    Acked { wa_id: WaMessageId },
    /// The claim ends; the message is due again after its wait. Counts as an attempt.
    Retry {
        wa_id: WaMessageId,
        class: RetryClass,
        attempt: u32,
        failure: Failure,
    },
    /// The claim ends; the message waits for the session. Counts as no attempt.
    PutBack { wa_id: WaMessageId },
    /// The claim ends; the message waits for the end of a pause. Counts as no attempt.
    Hold { wa_id: WaMessageId, scope: Scope },
    /// WhatsApp wants the session to send nothing of this scope, for the time that it named or for a guess.
    Pause {
        scope: Scope,
        reason: Reason,
        named: Option<Duration>,
    },
    /// Tells the tenant that the connection was up and said nothing.
    TellSilent,
    /// The claim ends; the message has failed for good.
    Fail {
        wa_id: WaMessageId,
        failure: Failure,
    },
    /// The actor is done.
    End,
}

/// What an observation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) link: LinkState,
    pub(crate) challenge: Option<LinkChallenge>,
    pub(crate) identity: Option<Identity>,
    /// The generation that is carried out herewith.
    pub(crate) done: Option<i64>,
}

/// Where the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    None,
    Opening,
    /// Opened; connecting or connected.
    Up,
    /// Told to stop or to log out; its last event is awaited.
    Ending,
}

/// What the actor works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Connected.
    Run,
    /// Stopped, then the same again with a new device.
    Restart,
    /// Stopped, keys kept.
    Stop,
    /// Unlinked, keys deleted.
    Unlink,
    /// Unlinked, everything deleted.
    Delete,
    /// Stopped since the process ends: nothing is observed, somebody goes on with it.
    Leave,
    /// Nothing any more.
    Over,
}

/// The state of one session's actor.
#[derive(Debug)]
pub(crate) struct Core {
    bounds: Bounds,
    want: Want,
    goal: Goal,
    device: Device,
    linked: bool,
    online: bool,
    link: LinkState,
    flights: BTreeMap<WaMessageId, Flight>,
    flights_begun: u64,
    /// Connections so far: an acknowledgement comes on the one that carried the message, or never.
    connections: u64,
    hungry: bool,
    claiming: bool,
    linking: Option<link::Linking>,
    /// When to go on with stopping although messages are on their way, or to log out unheard.
    drain_until: Option<Timestamp>,
    reopen_at: Option<Timestamp>,
    reopens: u32,
    stuck_at: Option<Timestamp>,
}

impl Core {
    pub(crate) fn new(bounds: Bounds, want: Want, link: LinkState) -> Core {
        Core {
            bounds,
            want,
            goal: Goal::Over,
            device: Device::None,
            linked: false,
            online: false,
            link,
            flights: BTreeMap::new(),
            flights_begun: 0,
            connections: 0,
            hungry: true,
            claiming: false,
            linking: None,
            drain_until: None,
            reopen_at: None,
            reopens: 0,
            stuck_at: None,
        }
    }

    /// What to do first.
    pub(crate) fn begin(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut out = Vec::new();
        self.pursue(now, &mut out);
        out
    }

    /// Takes what happened, in order, and says what follows from all of it.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        for input in inputs {
            if self.goal == Goal::Over {
                break;
            }
            self.take(now, input, &mut out);
        }
        self.go_on(now, &mut out);
        out
    }

    fn take(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wanted(want) => self.wanted(now, want, out),
            Input::Opened { linked } => self.opened(now, linked, out),
            Input::OpenFailed { reason } => {
                self.device = Device::None;
                self.fault(now, &reason, out);
            }
            Input::Device(event) => self.device_event(now, event, out),
            Input::CodeFailed { reason } => {
                self.link_failed("pairing_code_refused", &reason, out);
            }
            Input::Wake => self.hungry = true,
            Input::Concurrency(most) => self.bounds.concurrency = most,
            Input::Claimed { claimed, asked } => self.claimed(claimed, asked, out),
            Input::Written { wa_id, flight } => self.written(&wa_id, flight, out),
            Input::NotWritten {
                wa_id,
                flight,
                verdict,
                failure,
            } => {
                self.not_written(&wa_id, flight, verdict, failure, out);
            }
            Input::Nudge => self.nudge(now, out),
            Input::Tick => {}
            Input::Shutdown => self.shut_down(now),
        }
    }

    /// When [`Input::Tick`] is needed next, if nothing else happens.
    pub(crate) fn next_tick(&self) -> Option<Timestamp> {
        let up = self.device == Device::Up;
        if self.goal != Goal::Run {
            // A time that can change nothing must not be waited for: it would pass again and again.
            return self.drain_until.filter(|_| up);
        }
        let linking = self.linking.as_ref().map(|linking| linking.deadline);
        let stuck = self.stuck_at.filter(|_| up);
        [self.reopen_at, stuck, linking].into_iter().flatten().min()
    }

    /// Whether the actor has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.goal == Goal::Over
    }

    fn wanted(&mut self, now: Timestamp, want: Want, out: &mut Vec<Effect>) {
        if want.generation <= self.want.generation {
            return;
        }
        self.want = want;
        if self.goal != Goal::Leave {
            self.pursue(now, out);
        }
    }

    fn nudge(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if !matches!(self.link, LinkState::Backoff { .. }) || self.goal != Goal::Run {
            return;
        }
        if self.device == Device::Up {
            out.push(Effect::ReconnectNow);
        } else if self.reopen_at.is_some() {
            self.reopen_at = Some(now);
        }
    }

    fn shut_down(&mut self, now: Timestamp) {
        // The word goes round again and again: only the first time sets the end of the wait.
        if !matches!(self.goal, Goal::Leave | Goal::Unlink | Goal::Delete) {
            self.goal = Goal::Leave;
            self.drain_until = Some(now.plus(self.bounds.drain_within));
        }
    }

    /// Turns what is wanted into a goal.
    fn pursue(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let idle = self.device == Device::None;
        self.reopen_at = None;
        self.reopens = 0;
        match self.want.desired {
            // On its way already; the new method is used once it is open.
            Desired::Running if self.device == Device::Opening && self.goal == Goal::Run => return,
            Desired::Running => {
                self.goal = if idle { Goal::Run } else { Goal::Restart };
                if idle {
                    self.open(out);
                }
            }
            Desired::Stopped => self.goal = Goal::Stop,
            Desired::LoggedOut => self.goal = Goal::Unlink,
            Desired::Deleted => self.goal = Goal::Delete,
        }
        if self.goal != Goal::Run {
            self.drain_until = Some(now.plus(self.bounds.drain_within));
        }
        // Unlinking needs a device, which a stopped session does not have.
        if matches!(self.goal, Goal::Unlink | Goal::Delete) && idle {
            self.device = Device::Opening;
            out.push(Effect::Open);
        }
        self.linking = None;
        self.go_on(now, out);
    }

    fn open(&mut self, out: &mut Vec<Effect>) {
        self.device = Device::Opening;
        self.reopen_at = None;
        self.observe(LinkState::Connecting, None, None, out);
        out.push(Effect::Open);
    }

    fn opened(&mut self, now: Timestamp, linked: bool, out: &mut Vec<Effect>) {
        if self.device != Device::Opening {
            return;
        }
        self.device = Device::Up;
        self.linked = linked;
        self.stuck_at = Some(now.plus(self.bounds.stuck_after));
        // Any other goal ends the device at once; logging out connects by itself.
        if self.goal == Goal::Run {
            out.push(Effect::Start);
            if !linked {
                self.begin_linking(now, out);
            }
        }
    }

    fn device_event(&mut self, now: Timestamp, event: EngineEvent, out: &mut Vec<Effect>) {
        match event {
            // Attempts during an outage change nothing that a tenant would want to be told.
            EngineEvent::Connecting => {
                if self.linking.is_none() {
                    self.stuck_at = Some(now.plus(self.bounds.stuck_after));
                }
            }
            EngineEvent::Challenge(challenge) => self.challenge(challenge, out),
            EngineEvent::ChallengeExpired => self.challenge_expired(now, out),
            EngineEvent::Paired(identity) => self.paired(identity, out),
            EngineEvent::PairingFailed { reason } => self.linking_hindered(&reason),
            EngineEvent::Connected(identity) => self.connected(identity, out),
            EngineEvent::Disconnected { reason, retry_at } => {
                self.disconnected(now, &reason, retry_at, out);
            }
            EngineEvent::ServerAck {
                wa_id, error: None, ..
            } => {
                self.acked(&wa_id, Answer::Ack, out);
                out.push(Effect::Acked { wa_id });
            }
            EngineEvent::ServerAck {
                wa_id,
                error: Some(code),
                ..
            } => {
                self.acked(&wa_id, Answer::Nack(code), out);
            }
            EngineEvent::AckTimeout { wa_id } => self.ack_timeout(&wa_id, out),
            EngineEvent::RateLimited => out.push(Effect::Pause {
                scope: Scope::All,
                reason: Reason::RateLimited,
                named: None,
            }),
            EngineEvent::Silent => out.push(Effect::TellSilent),
            EngineEvent::Ended(ended) => self.ended(now, ended, out),
            // The actor commits receipts, the engine counts and logs the others; nothing in the
            // session's state follows from them.
            EngineEvent::Receipt { .. }
            | EngineEvent::Undecryptable { .. }
            | EngineEvent::Missed { .. } => {}
        }
    }

    /// Connected, and meant to be.
    pub(crate) fn may_send(&self) -> bool {
        self.online && self.goal == Goal::Run
    }

    /// What follows from the state as it is now, whatever led there.
    fn go_on(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if due(self.linking.as_ref().map(|linking| linking.deadline)) && self.goal == Goal::Run {
            self.link_timed_out(out);
        }
        match self.goal {
            Goal::Run => {
                if due(self.reopen_at) {
                    self.open(out);
                } else if due(self.stuck_at) && self.device == Device::Up {
                    self.stuck_at = None;
                    self.goal = Goal::Restart;
                    self.end_device(Effect::Stop, out);
                }
            }
            Goal::Restart | Goal::Stop | Goal::Leave | Goal::Unlink | Goal::Delete => {
                let drained = self.flights.is_empty() || due(self.drain_until) || !self.online;
                if self.device == Device::Up && drained {
                    let unlink = self.linked && matches!(self.goal, Goal::Unlink | Goal::Delete);
                    let how = if unlink { Effect::Logout } else { Effect::Stop };
                    self.end_device(how, out);
                }
            }
            Goal::Over => return,
        }
        if self.device == Device::None && self.goal != Goal::Run {
            self.settle(out);
        }
        let free = self.bounds.concurrency.saturating_sub(self.flights.len());
        if self.may_send() && self.hungry && !self.claiming && free > 0 {
            self.claiming = true;
            out.push(Effect::Claim { asked: free });
        }
    }

    fn end_device(&mut self, how: Effect, out: &mut Vec<Effect>) {
        self.device = Device::Ending;
        self.drain_until = None;
        out.push(how);
    }

    /// There is no device any more: the goal is reached.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        let done = Some(self.want.generation);
        match self.goal {
            Goal::Restart => {
                self.goal = Goal::Run;
                self.open(out);
                return;
            }
            Goal::Stop => self.observe_done(LinkState::Stopped, done, out),
            Goal::Unlink => {
                out.push(Effect::ClearKeys);
                let reason = LinkReason::new("logged_out", "logged out as asked");
                self.observe_done(LinkState::LoggedOut { reason }, done, out);
            }
            Goal::Delete => out.push(Effect::DeleteSession),
            Goal::Run | Goal::Leave | Goal::Over => {}
        }
        self.over(out);
    }

    fn over(&mut self, out: &mut Vec<Effect>) {
        self.goal = Goal::Over;
        out.push(Effect::End);
    }

    fn observe(
        &mut self,
        link: LinkState,
        challenge: Option<LinkChallenge>,
        identity: Option<Identity>,
        out: &mut Vec<Effect>,
    ) {
        self.link = link.clone();
        // The first sign of a generation means that it is being carried out; from here on the state
        // itself says whether somebody must go on with it.
        let done = (self.goal == Goal::Run).then_some(self.want.generation);
        out.push(Effect::Observe(Box::new(Observed {
            link,
            challenge,
            identity,
            done,
        })));
    }

    fn observe_done(&mut self, link: LinkState, done: Option<i64>, out: &mut Vec<Effect>) {
        self.link = link.clone();
        let observed = Observed {
            link,
            challenge: None,
            identity: None,
            done,
        };
        out.push(Effect::Observe(Box::new(observed)));
    }
}

#[cfg(test)]
mod tests;
