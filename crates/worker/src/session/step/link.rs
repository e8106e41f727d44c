//! The part of the core that follows the connection: linking, losing it, ending.

use wagate_domain::message::Failure;
use wagate_domain::pacing::{Reason, Scope};
use wagate_domain::session::LinkReason;
use wagate_domain::{Backoff, LinkChallenge, LinkMethod, LinkState, Timestamp, WaMessageId};
use wagate_engine::{Ended, Identity};

use super::flights::{Answer, Phase};
use super::{Core, Device, Effect, Goal};

/// An attempt to link.
#[derive(Debug)]
pub(super) struct Linking {
    pub(super) deadline: Timestamp,
    /// QR texts shown so far.
    qr_shown: u32,
    /// When the pairing code that is shown ends.
    code_expires: Option<Timestamp>,
    /// What went wrong last: the reason to give when time is up.
    hindrance: Option<String>,
}

impl Core {
    pub(super) fn begin_linking(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let deadline = now.plus(self.bounds.link_timeout);
        self.linking = Some(Linking {
            deadline,
            qr_shown: 0,
            code_expires: None,
            hindrance: None,
        });
        self.stuck_at = None;
        if let Some(LinkMethod::Code { phone }) = &self.want.method {
            out.push(Effect::RequestCode(phone.clone()));
        }
    }

    pub(super) fn challenge(&mut self, challenge: LinkChallenge, out: &mut Vec<Effect>) {
        if self.goal != Goal::Run || self.device != Device::Up {
            return;
        }
        let by_code = matches!(self.want.method, Some(LinkMethod::Code { .. }));
        let is_code = matches!(challenge, LinkChallenge::Code { .. });
        // WhatsApp offers QR texts also while a pairing code is awaited; only what was asked for is shown.
        if by_code != is_code {
            return;
        }
        let bound = self.bounds.link_qr_max;
        if let Some(linking) = &mut self.linking {
            if is_code {
                linking.code_expires = Some(challenge.expires_at());
            } else {
                linking.qr_shown += 1;
                if linking.qr_shown > bound {
                    self.link_timed_out(out);
                    return;
                }
            }
        }
        self.observe(LinkState::AwaitingScan, Some(challenge), None, out);
    }

    pub(super) fn challenge_expired(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let by_code = matches!(self.want.method, Some(LinkMethod::Code { .. }));
        let Some(linking) = &self.linking else { return };
        // QR texts run out beside a pairing code that is still good.
        let still_good = by_code && linking.code_expires.is_none_or(|expires| expires > now);
        if !still_good {
            self.link_timed_out(out);
        }
    }

    /// Something went wrong on the way to being linked; the device tries on.
    pub(super) fn linking_hindered(&mut self, reason: &str) {
        if let Some(linking) = &mut self.linking {
            linking.hindrance = Some(reason.to_owned());
        }
    }

    pub(super) fn link_timed_out(&mut self, out: &mut Vec<Effect>) {
        let hindrance = self
            .linking
            .as_mut()
            .and_then(|linking| linking.hindrance.take());
        match hindrance {
            Some(hindrance) => self.link_failed("pairing_failed", &hindrance, out),
            None => self.link_failed("link_timeout", "nobody linked the session in time", out),
        }
    }

    pub(super) fn paired(&mut self, identity: Identity, out: &mut Vec<Effect>) {
        self.linked = true;
        self.linking = None;
        if self.goal == Goal::Run {
            self.observe(LinkState::Connecting, None, Some(identity), out);
        }
    }

    pub(super) fn connected(&mut self, identity: Identity, out: &mut Vec<Effect>) {
        if self.device != Device::Up {
            return;
        }
        // Should the end of an earlier connection not have been told.
        self.ground(false, out);
        self.linked = true;
        self.online = true;
        self.connections += 1;
        self.hungry = true;
        self.linking = None;
        self.stuck_at = None;
        self.reopens = 0;
        if self.goal == Goal::Run {
            self.observe(LinkState::Connected, None, Some(identity), out);
        }
    }

    pub(super) fn disconnected(
        &mut self,
        now: Timestamp,
        reason: &str,
        retry_at: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        self.ground(false, out);
        self.linking_hindered(reason);
        if self.device != Device::Up || self.goal != Goal::Run || self.linking.is_some() {
            return;
        }
        self.stuck_at = Some(retry_at.max(now).plus(self.bounds.stuck_after));
        let reason = LinkReason::new("connection_lost", reason);
        self.observe(
            LinkState::Backoff {
                until: retry_at,
                reason,
            },
            None,
            None,
            out,
        );
    }

    /// The connection is gone: what was written and not answered is in doubt, and goes out again with
    /// the same id when there is a connection (MP-2), unless there will be none with these keys. Then
    /// what the engine was still at work on is in doubt as well: the end may overtake the word of a
    /// write.
    fn ground(&mut self, for_ever: bool, out: &mut Vec<Effect>) {
        self.online = false;
        let doubtful: Vec<WaMessageId> = self
            .flights
            .iter()
            .filter(|(_, flight)| match flight.phase {
                Phase::Written => true,
                Phase::Sending(Answer::Ack) => false,
                Phase::Sending(Answer::None | Answer::Nack(_)) => for_ever,
            })
            .map(|(wa_id, _)| wa_id.clone())
            .collect();
        for wa_id in doubtful {
            if for_ever {
                self.flights.remove(&wa_id);
                let failure = Failure {
                    code: "unconfirmed".to_owned(),
                    reason: "the session was logged out before WhatsApp acknowledged the message"
                        .to_owned(),
                };
                out.push(Effect::Fail { wa_id, failure });
            } else {
                self.put_back(&wa_id, out);
            }
        }
    }

    /// The device is spent. Whatever it was still at work on returns to the queue.
    pub(super) fn ended(&mut self, now: Timestamp, ended: Ended, out: &mut Vec<Effect>) {
        if ended == Ended::LeaseLost {
            // SL-1: somebody else holds the session; not a word from here on.
            self.over(out);
            return;
        }
        let unlinked = matches!(ended, Ended::LoggedOut { .. });
        self.device = Device::None;
        self.ground(unlinked, out);
        let left: Vec<(WaMessageId, Phase)> = self
            .flights
            .iter()
            .map(|(wa_id, flight)| (wa_id.clone(), flight.phase))
            .collect();
        for (wa_id, phase) in left {
            if phase == Phase::Sending(Answer::Ack) {
                self.land(&wa_id);
            } else {
                self.put_back(&wa_id, out);
            }
        }
        self.linking = None;
        self.stuck_at = None;
        if self.goal != Goal::Run {
            // Asked for; `settle` finishes. A logout that comes from the phone while we stop counts.
            if unlinked && matches!(self.goal, Goal::Stop | Goal::Restart | Goal::Leave) {
                self.permanent(now, ended, out);
            }
            return;
        }
        match ended {
            Ended::Fault { reason } => self.fault(now, &reason, out),
            Ended::Stopped => self.fault(now, "the device stopped unasked", out),
            ended => self.permanent(now, ended, out),
        }
    }

    /// A fault of ours: a new device after a while.
    pub(super) fn fault(&mut self, now: Timestamp, reason: &str, out: &mut Vec<Effect>) {
        self.online = false;
        if self.goal != Goal::Run {
            return;
        }
        self.reopens = self.reopens.saturating_add(1);
        let until = now.plus(Backoff::RECONNECT.wait(self.reopens, 0.5));
        self.reopen_at = Some(until);
        self.stuck_at = None;
        let reason = LinkReason::new("internal_fault", reason);
        self.observe(LinkState::Backoff { until, reason }, None, None, out);
    }

    /// Linking is given up: the device goes, the state stays until somebody asks again.
    pub(super) fn link_failed(&mut self, code: &str, text: &str, out: &mut Vec<Effect>) {
        if self.goal != Goal::Run || self.linked {
            return;
        }
        self.linking = None;
        let reason = LinkReason::new(code, text);
        self.observe(LinkState::LinkFailed { reason }, None, None, out);
        // The actor stops the device on its way out.
        self.over(out);
    }

    /// The device ended for a reason that trying again does not cure.
    fn permanent(&mut self, now: Timestamp, ended: Ended, out: &mut Vec<Effect>) {
        let link = match ended {
            Ended::LoggedOut { reason } => {
                // The keys are worthless, and linking again must begin without them.
                out.push(Effect::ClearKeys);
                LinkState::LoggedOut {
                    reason: LinkReason::new("logged_out", reason),
                }
            }
            Ended::Locked { reason } => {
                let reason = LinkReason::new("account_locked", reason);
                LinkState::Banned {
                    until: None,
                    reason,
                }
            }
            Ended::Replaced => LinkState::Replaced,
            Ended::Banned { until, code } => {
                out.push(Effect::Pause {
                    scope: Scope::All,
                    reason: Reason::Banned,
                    named: until.map(|until| until.since(now)),
                });
                let text = format!("WhatsApp banned the number for a time (code {code})");
                LinkState::Banned {
                    until,
                    reason: LinkReason::new("temporarily_banned", text),
                }
            }
            Ended::Outdated => LinkState::Outdated,
            Ended::Refused { code, reason } => {
                let text = format!("WhatsApp refused the connection with code {code}: {reason}");
                LinkState::LinkFailed {
                    reason: LinkReason::new("connection_refused", text),
                }
            }
            Ended::RefusedCertificate { reason } => {
                let text = format!("the other side is not WhatsApp: {reason}");
                LinkState::LinkFailed {
                    reason: LinkReason::new("certificate_refused", text),
                }
            }
            Ended::ChallengeExpired | Ended::Stopped | Ended::LeaseLost | Ended::Fault { .. } => {
                let text = "nobody linked the session in time";
                LinkState::LinkFailed {
                    reason: LinkReason::new("link_timeout", text),
                }
            }
        };
        let done = Some(self.want.generation);
        self.observe_done(link, done, out);
        self.over(out);
    }
}
