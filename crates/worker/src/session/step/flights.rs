//! The part of the core that follows claimed messages: sent once each, and ended in exactly one way.

use std::collections::BTreeSet;

use wagate_domain::message::Failure;
use wagate_domain::retry::{Fault, SessionMove, Trouble, Verdict};
use wagate_domain::{RetryClass, WaMessageId};

use super::{Core, Effect};

/// A claimed message on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Tells this flight from an earlier one of the same message, whose call may return late.
    number: u64,
    attempt: u32,
    /// The connection on which it began.
    connection: u64,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The engine is at work on it.
    Sending(Answer),
    /// Written; the server has not answered.
    Written,
}

/// What the server said while the engine was still at work on the same id: the news of a write may
/// overtake the return of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    None,
    Ack,
    Nack(u32),
}

impl Core {
    pub(super) fn claimed(
        &mut self,
        claimed: Vec<(WaMessageId, u32)>,
        asked: usize,
        out: &mut Vec<Effect>,
    ) {
        self.claiming = false;
        self.hungry = claimed.len() >= asked;
        let mut seen = BTreeSet::new();
        for (wa_id, attempt) in claimed {
            // The store gives a message to one claim at a time; a second would mean two sends.
            let fresh = seen.insert(wa_id.clone()) && !self.flights.contains_key(&wa_id);
            debug_assert!(fresh, "one message was claimed twice");
            if !fresh {
                continue;
            }
            if self.may_send() {
                self.flights_begun += 1;
                let number = self.flights_begun;
                let flight = Flight {
                    number,
                    attempt,
                    connection: self.connections,
                    phase: Phase::Sending(Answer::None),
                };
                self.flights.insert(wa_id.clone(), flight);
                out.push(Effect::Send {
                    wa_id,
                    flight: number,
                });
            } else {
                out.push(Effect::PutBack { wa_id });
            }
        }
    }

    pub(super) fn written(&mut self, wa_id: &WaMessageId, number: u64, out: &mut Vec<Effect>) {
        let here = |flight: &Flight| self.online && flight.connection == self.connections;
        let here = self.flights.get(wa_id).is_some_and(here);
        let Some(flight) = self.flights.get_mut(wa_id).filter(|f| f.number == number) else {
            return;
        };
        let Phase::Sending(answer) = flight.phase else {
            return;
        };
        flight.phase = Phase::Written;
        match answer {
            // The connection that carried it is gone, and its answer with it.
            Answer::None if !here => self.put_back(wa_id, out),
            Answer::None => {}
            Answer::Ack => self.land(wa_id),
            Answer::Nack(code) => self.nacked(wa_id, code, out),
        }
    }

    pub(super) fn not_written(
        &mut self,
        wa_id: &WaMessageId,
        number: u64,
        verdict: Verdict,
        failure: Failure,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.get(wa_id).filter(|f| f.number == number) else {
            return;
        };
        match flight.phase {
            // An earlier attempt has arrived meanwhile.
            Phase::Sending(Answer::Ack) => self.land(wa_id),
            Phase::Sending(_) | Phase::Written => self.give_up(wa_id, verdict, failure, out),
        }
    }

    pub(super) fn acked(&mut self, wa_id: &WaMessageId, answer: Answer, out: &mut Vec<Effect>) {
        let Some(flight) = self.flights.get_mut(wa_id) else {
            return;
        };
        match (flight.phase, answer) {
            // An acknowledgement is worth more than whatever else was said about the same id.
            (Phase::Sending(Answer::Ack), _) => {}
            (Phase::Sending(_), answer) => flight.phase = Phase::Sending(answer),
            (Phase::Written, Answer::Nack(code)) => self.nacked(wa_id, code, out),
            (Phase::Written, Answer::Ack | Answer::None) => self.land(wa_id),
        }
    }

    fn nacked(&mut self, wa_id: &WaMessageId, code: u32, out: &mut Vec<Effect>) {
        let failure = Failure {
            code: format!("whatsapp_{code}"),
            reason: format!("WhatsApp refused the message with code {code}"),
        };
        self.give_up(wa_id, Trouble::Message(code).verdict(), failure, out);
    }

    pub(super) fn ack_timeout(&mut self, wa_id: &WaMessageId, out: &mut Vec<Effect>) {
        let written = self
            .flights
            .get(wa_id)
            .is_some_and(|f| f.phase == Phase::Written);
        if written {
            let failure = Failure {
                code: "unconfirmed".to_owned(),
                reason: "WhatsApp did not acknowledge the message".to_owned(),
            };
            let verdict = Trouble::Ours(Fault::NoAck).verdict();
            self.give_up(wa_id, verdict, failure, out);
        }
    }

    /// Ends a claim whose message did not make it.
    fn give_up(
        &mut self,
        wa_id: &WaMessageId,
        Verdict { class, session }: Verdict,
        failure: Failure,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.remove(wa_id) else {
            return;
        };
        let wa_id = wa_id.clone();
        if let SessionMove::Pauses {
            scope,
            reason,
            named,
        } = session
        {
            out.push(Effect::Pause {
                scope,
                reason,
                named,
            });
            out.push(Effect::Hold { wa_id, scope });
            self.hungry = true;
            return;
        }
        match class {
            RetryClass::SessionDown => {
                // Not before the next wake-up, tick or connection: else this would spin.
                self.hungry = false;
                out.push(Effect::PutBack { wa_id });
                return;
            }
            RetryClass::Never => out.push(Effect::Fail { wa_id, failure }),
            _ if flight.attempt > self.bounds.retries_max => {
                out.push(Effect::Fail { wa_id, failure });
            }
            class @ (RetryClass::Now | RetryClass::After(_) | RetryClass::Backoff) => {
                out.push(Effect::Retry {
                    wa_id,
                    class,
                    attempt: flight.attempt,
                    failure,
                });
            }
        }
        self.hungry = true;
    }

    pub(super) fn land(&mut self, wa_id: &WaMessageId) {
        if self.flights.remove(wa_id).is_some() {
            self.hungry = true;
        }
    }

    pub(super) fn put_back(&mut self, wa_id: &WaMessageId, out: &mut Vec<Effect>) {
        if self.flights.remove(wa_id).is_some() {
            self.hungry = true;
            out.push(Effect::PutBack {
                wa_id: wa_id.clone(),
            });
        }
    }
}
