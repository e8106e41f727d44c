//! Message path, step 5 of 7: which messages wait for the server's acknowledgement.
//!
//! The library says `Ok` when a message was written, and never waits for the server (engine rule 2). So
//! an id is registered here before it is sent, an acknowledgement can come at any time after, and one that
//! does not come is noticed. What was decided waits here, bounded, until the actor takes it: a full channel
//! delays an acknowledgement, it does not lose one (MP-5).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wagate_domain::{Jid, Timestamp, WaMessageId};

use crate::event::EngineEvent;

/// The server's answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) wa_id: WaMessageId,
    pub(crate) chat: Option<Jid>,
    pub(crate) error: Option<u32>,
    pub(crate) at: Timestamp,
}

#[derive(Debug)]
struct Waiting {
    /// Tells this registration from an earlier one of the same id.
    number: u64,
    written: bool,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<WaMessageId, Waiting>,
    /// Deadlines in order; the time-out is the same for all.
    deadlines: VecDeque<(Instant, WaMessageId, u64)>,
    decided: VecDeque<EngineEvent>,
    next_number: u64,
    timeouts: u64,
    nacks: u64,
    dropped: u64,
}

/// Tracks the messages of one device.
#[derive(Debug)]
pub(crate) struct Acks {
    state: Mutex<State>,
    timeout: Duration,
    max: usize,
}

/// Too many messages wait already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Proof of a registration, to be turned into a deadline or taken back.
#[derive(Debug)]
#[must_use = "a registration is either written or withdrawn"]
pub(crate) struct Registered {
    wa_id: WaMessageId,
    number: u64,
}

impl Acks {
    pub(crate) fn new(timeout: Duration, max: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            timeout,
            max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a message is sent, so that no acknowledgement is too early.
    pub(crate) fn register(&self, wa_id: &WaMessageId) -> Result<Registered, TooMany> {
        let mut state = self.lock();
        if state.waiting.len() + state.decided.len() >= self.max {
            return Err(TooMany);
        }
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.insert(
            wa_id.clone(),
            Waiting {
                number,
                written: false,
            },
        );
        Ok(Registered {
            wa_id: wa_id.clone(),
            number,
        })
    }

    /// The message was written: the clock runs, unless the answer is here already. Whether this is the
    /// first deadline to wait for.
    pub(crate) fn written(&self, registered: Registered) -> bool {
        let mut state = self.lock();
        let deadline = Instant::now() + self.timeout;
        match state.waiting.get_mut(&registered.wa_id) {
            Some(waiting) if waiting.number == registered.number => waiting.written = true,
            _ => return false,
        }
        state
            .deadlines
            .push_back((deadline, registered.wa_id, registered.number));
        state.deadlines.len() == 1
    }

    /// The message was not sent: nothing will be heard of it.
    pub(crate) fn withdraw(&self, registered: &Registered) {
        let mut state = self.lock();
        if state
            .waiting
            .get(&registered.wa_id)
            .is_some_and(|w| w.number == registered.number)
        {
            state.waiting.remove(&registered.wa_id);
        }
    }

    /// The server's answer came. Of a message that nobody waits for it is passed on too, while there is room.
    pub(crate) fn resolve(&self, ack: Ack) {
        let mut state = self.lock();
        let waited_for = state.waiting.remove(&ack.wa_id).is_some();
        if ack.error.is_some() {
            state.nacks += 1;
        }
        if !waited_for && state.decided.len() >= self.max {
            state.dropped += 1;
            return;
        }
        let Ack {
            wa_id,
            chat,
            error,
            at,
        } = ack;
        state.decided.push_back(EngineEvent::ServerAck {
            wa_id,
            chat,
            error,
            at,
        });
    }

    /// When the next message times out, if one waits.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.drop_answered();
        state.deadlines.front().map(|(deadline, ..)| *deadline)
    }

    /// Gives up on what is overdue.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        while state
            .deadlines
            .front()
            .is_some_and(|(deadline, ..)| *deadline <= now)
        {
            if let Some((_, wa_id, number)) = state.deadlines.pop_front() {
                state.time_out(wa_id, number);
            }
        }
    }

    /// Waits no longer for anything written: an acknowledgement does not come on another connection.
    ///
    /// Nothing is said about it. The event that tells of the lost connection says more than a time-out
    /// would: whether the session is away for a while, or for ever.
    pub(crate) fn forget_written(&self) {
        let mut state = self.lock();
        state.deadlines.clear();
        state.waiting.retain(|_, waiting| !waiting.written);
    }

    /// Takes the oldest decision.
    pub(crate) fn take_decided(&self) -> Option<EngineEvent> {
        self.lock().decided.pop_front()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Time-outs, nacks, and answers that nobody waited for and that did not fit.
    pub(crate) fn counters(&self) -> (u64, u64, u64) {
        let state = self.lock();
        (state.timeouts, state.nacks, state.dropped)
    }
}

impl State {
    fn time_out(&mut self, wa_id: WaMessageId, number: u64) {
        if self
            .waiting
            .get(&wa_id)
            .is_some_and(|waiting| waiting.number == number)
        {
            self.waiting.remove(&wa_id);
            self.timeouts += 1;
            self.decided.push_back(EngineEvent::AckTimeout { wa_id });
        }
    }

    /// Deadlines of messages that were answered go when they reach the front.
    fn drop_answered(&mut self) {
        while let Some((_, wa_id, number)) = self.deadlines.front() {
            let live = self
                .waiting
                .get(wa_id)
                .is_some_and(|w| w.number == *number && w.written);
            if live {
                return;
            }
            self.deadlines.pop_front();
        }
        if self.deadlines.is_empty() && self.deadlines.capacity() > 64 {
            self.deadlines.shrink_to_fit();
            self.waiting.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(wa_id: &WaMessageId, error: Option<u32>) -> Ack {
        Ack {
            wa_id: wa_id.clone(),
            chat: None,
            error,
            at: Timestamp::EPOCH,
        }
    }

    fn acked(wa_id: &WaMessageId, error: Option<u32>) -> EngineEvent {
        let at = Timestamp::EPOCH;
        EngineEvent::ServerAck {
            wa_id: wa_id.clone(),
            chat: None,
            error,
            at,
        }
    }

    fn acks() -> Acks {
        Acks::new(Duration::from_secs(20), 3)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_before_the_send_returned_is_not_lost() {
        let acks = acks();
        let id = WaMessageId::generate();
        let registered = acks.register(&id).unwrap();
        acks.resolve(ack(&id, None));
        acks.written(registered);
        assert_eq!(acks.take_decided(), Some(acked(&id, None)));
        assert_eq!(acks.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_becomes_a_timeout_once() {
        let acks = acks();
        let id = WaMessageId::generate();
        acks.written(acks.register(&id).unwrap());
        let deadline = acks.next_deadline().unwrap();
        tokio::time::sleep_until(deadline - Duration::from_millis(1)).await;
        acks.expire();
        assert_eq!(acks.take_decided(), None);
        tokio::time::sleep_until(deadline).await;
        acks.expire();
        acks.expire();
        assert_eq!(
            acks.take_decided(),
            Some(EngineEvent::AckTimeout { wa_id: id.clone() })
        );
        assert_eq!(acks.take_decided(), None);
        // The answer was only late, and is passed on all the same.
        acks.resolve(ack(&id, None));
        assert_eq!(acks.take_decided(), Some(acked(&id, None)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_attempt_has_a_deadline_of_its_own() {
        let acks = acks();
        let id = WaMessageId::generate();
        acks.written(acks.register(&id).unwrap());
        tokio::time::advance(Duration::from_secs(15)).await;
        acks.written(acks.register(&id).unwrap());
        tokio::time::advance(Duration::from_secs(10)).await;
        acks.expire();
        assert_eq!(acks.take_decided(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        acks.expire();
        assert_eq!(
            acks.take_decided(),
            Some(EngineEvent::AckTimeout { wa_id: id })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_sent_is_forgotten() {
        let acks = acks();
        let id = WaMessageId::generate();
        let registered = acks.register(&id).unwrap();
        acks.withdraw(&registered);
        assert_eq!(acks.waiting(), 0);
        acks.expire();
        assert_eq!(acks.take_decided(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_waiting_messages_is_bounded() {
        let acks = acks();
        let ids: Vec<_> = (0..3).map(|_| WaMessageId::generate()).collect();
        for id in &ids {
            acks.written(acks.register(id).unwrap());
        }
        let other = WaMessageId::generate();
        assert_eq!(acks.register(&other).unwrap_err(), TooMany);
        // An answer that nobody took yet still counts.
        acks.resolve(ack(&ids[0], Some(479)));
        assert_eq!(acks.register(&other).unwrap_err(), TooMany);
        assert_eq!(acks.take_decided(), Some(acked(&ids[0], Some(479))));
        assert!(acks.register(&other).is_ok());
        assert_eq!(acks.counters(), (0, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_ends_the_waiting_of_what_was_written() {
        let acks = acks();
        let written = WaMessageId::generate();
        acks.written(acks.register(&written).unwrap());
        let later = WaMessageId::generate();
        let registered = acks.register(&later).unwrap();
        acks.forget_written();
        assert_eq!(acks.waiting(), 1);
        assert_eq!(acks.next_deadline(), None);
        // Its write may have gone to the next connection.
        acks.written(registered);
        tokio::time::sleep_until(acks.next_deadline().unwrap()).await;
        acks.expire();
        assert_eq!(
            acks.take_decided(),
            Some(EngineEvent::AckTimeout { wa_id: later })
        );
        assert_eq!(acks.take_decided(), None);
    }
}
