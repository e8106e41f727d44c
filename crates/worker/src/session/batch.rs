//! Everything that one turn of an actor changes, in one transaction (around step 6 of the path).
//!
//! A turn may hold hundreds of acknowledgements and receipts; together with the next claim they cost one
//! fenced transaction (MP-3, MP-5, SL-1), and the writer groups those of many sessions into one commit.

use wagate_domain::message::{Failure, MessageInput, Step};
use wagate_domain::pacing::Pacing;
use wagate_domain::{Jid, LinkState, MessageId, Timestamp, failpoint};
use wagate_store::messages::{self, Update};
use wagate_store::queue::{self, Claimed, Retry};
use wagate_store::sessions::{self, Identity, Observation, Patch};
use wagate_store::{Lease, StoreError, Tx, When, device_state, pacing};

use super::paced::{Gate, News};
use super::step::Observed;

/// How a claim ends without the server's acknowledgement.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Retry(Retry),
    Fail(Failure),
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) updates: Vec<Update>,
    pub(crate) endings: Vec<(Claimed, Ending)>,
    pub(crate) clear_keys: bool,
    pub(crate) observed: Vec<Observed>,
    pub(crate) active_at: Option<Timestamp>,
    pub(crate) claim: Option<usize>,
    pub(crate) gate: Gate,
    pub(crate) pacing: News,
    /// Chats that got their first message.
    pub(crate) known: Vec<Jid>,
    /// The connection said nothing.
    pub(crate) silent: bool,
    /// Messages on their way at once, where no tenant says otherwise.
    pub(crate) concurrency: usize,
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The state of outbound messages moved.
    pub(crate) moved: bool,
    /// Those of them of which no attempt will follow.
    pub(crate) settled: Vec<MessageId>,
    pub(crate) claimed: Vec<Claimed>,
    /// How far the session has used its limits, after a claim that heeded them.
    pub(crate) pacing: Option<Pacing>,
    /// The claim may be repeated at once.
    pub(crate) more: bool,
    /// Messages that may be on their way at once, as the claim found it.
    pub(crate) concurrency: Option<u32>,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) retried: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.updates.is_empty()
            && self.endings.is_empty()
            && !self.clear_keys
            && self.observed.is_empty()
            && self.claim.is_none()
            && self.pacing.is_empty()
            && self.known.is_empty()
            && !self.silent
    }

    /// How soon it is to be committed, and how firmly.
    pub(crate) fn when(&self) -> When {
        let receipts = self
            .updates
            .iter()
            .all(|update| matches!(update.input, MessageInput::Receipt(_)));
        let else_nothing = self.endings.is_empty()
            && !self.clear_keys
            && self.observed.is_empty()
            && self.pacing.is_empty()
            && !self.silent;
        match &self.gate {
            // Nobody waits for what comes after `sent`.
            _ if else_nothing && receipts && self.claim.is_none() => When::Soon,
            // Undone, it is done again, under the same WhatsApp id (MP-2).
            Gate::Open if else_nothing && self.updates.is_empty() && self.known.is_empty() => {
                When::Unsynced
            }
            _ => When::Now,
        }
    }

    /// Passes the failpoint between the server's word and its commit.
    pub(crate) fn before_commit(&self) {
        if self
            .updates
            .iter()
            .any(|update| update.input == MessageInput::ServerAck)
        {
            failpoint::hit("acked_not_committed");
        }
    }

    /// Writes everything. May run again after a transaction that failed: each part is repeatable.
    pub(crate) fn write(
        &self,
        tx: &mut Tx<'_>,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<Done, StoreError> {
        let mut done = Done::default();
        let applied = messages::apply_many(tx, lease, &self.updates, now)?;
        for (update, applied) in self.updates.iter().zip(applied) {
            if let Some(applied) = applied
                && let Step::Moved(to) = applied.step
            {
                done.sent += u64::from(update.input == MessageInput::ServerAck);
                done.moved = true;
                if to.is_final() {
                    done.settled.push(applied.message);
                }
            }
        }
        for (claimed, ending) in &self.endings {
            done.moved |= match ending {
                Ending::Retry(retry) => {
                    done.retried += u64::from(retry.counts);
                    queue::retry(tx, lease, claimed.clone(), *retry, now)?
                }
                Ending::Fail(failure) => {
                    done.failed += 1;
                    done.settled.push(claimed.message.clone());
                    queue::fail(tx, lease, claimed.clone(), failure, now)?
                }
            };
        }
        if self.clear_keys {
            device_state::delete_session(tx, lease)?;
        }
        for (index, observed) in self.observed.iter().enumerate() {
            let last = index + 1 == self.observed.len();
            let mut observation = observation(observed, now);
            if !last {
                observation.last_activity = None;
            }
            sessions::observe(tx, lease, &observation, now)?;
        }
        if self.observed.is_empty()
            && let Some(at) = self.active_at
        {
            let active = Observation {
                last_activity: Some(at),
                ..Observation::default()
            };
            sessions::observe(tx, lease, &active, now)?;
        }
        self.tell(tx, lease, now)?;
        self.claim(tx, lease, now, &mut done)?;
        Ok(done)
    }

    /// What there is to say about pacing and the connection.
    fn tell(&self, tx: &mut Tx<'_>, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        if let Some(state) = &self.pacing.state {
            pacing::save(tx, lease, state)?;
        }
        for pause in &self.pacing.paused {
            pacing::paused(tx, lease, pause, now)?;
        }
        for pause in &self.pacing.resumed {
            pacing::resumed(tx, lease, pause, now)?;
        }
        if !self.known.is_empty() {
            pacing::note_known(tx, lease, &self.known)?;
        }
        if self.silent {
            sessions::note_silence(tx, lease, now)?;
        }
        Ok(())
    }

    fn claim(
        &self,
        tx: &mut Tx<'_>,
        lease: &Lease,
        now: Timestamp,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let Some(asked) = self.claim else {
            return Ok(());
        };
        let asked = u32::try_from(asked).unwrap_or(u32::MAX);
        let usual = u32::try_from(self.concurrency).unwrap_or(u32::MAX);
        let claims = match &self.gate {
            Gate::Open => queue::claim_within(tx, lease, asked, usual, now)?,
            Gate::Narrow(narrow) => {
                let narrowed = narrow.claim(tx, lease, asked, usual, now)?;
                done.pacing = Some(narrowed.state);
                done.more = narrowed.more;
                narrowed.claims
            }
        };
        done.claimed = claims.claimed;
        done.concurrency = claims.concurrency;
        Ok(())
    }
}

fn observation(observed: &Observed, now: Timestamp) -> Observation {
    let unlinked = matches!(observed.link, LinkState::LoggedOut { .. });
    Observation {
        link: Some(observed.link.clone()),
        challenge: observed.challenge.clone().map_or(Patch::Clear, Patch::Set),
        identity: match &observed.identity {
            Some(identity) => Patch::Set(Identity {
                jid: identity.jid.clone(),
                lid: identity.lid.clone(),
                push_name: identity.push_name.clone(),
                platform: identity.platform.clone(),
            }),
            None if unlinked => Patch::Clear,
            None => Patch::Keep,
        },
        last_activity: Some(now),
        generation_done: observed.done,
    }
}

#[cfg(test)]
mod tests {
    use wagate_domain::{ReceiptKind, WaMessageId};

    use super::*;

    fn news(input: MessageInput) -> Batch {
        Batch {
            updates: vec![Update {
                wa_id: WaMessageId::generate(),
                input,
                at: Timestamp::EPOCH,
                failure: None,
            }],
            ..Batch::default()
        }
    }

    #[test]
    fn only_a_claim_alone_may_be_undone() {
        let claim = Batch {
            claim: Some(3),
            ..Batch::default()
        };
        assert_eq!(claim.when(), When::Unsynced);
        for firm in [
            Batch {
                claim: Some(3),
                ..news(MessageInput::ServerAck)
            },
            Batch {
                claim: Some(3),
                ..news(MessageInput::Receipt(ReceiptKind::Delivered))
            },
            Batch {
                known: vec!["15550001111@s.whatsapp.net".parse().unwrap()],
                ..claim.clone()
            },
            Batch {
                clear_keys: true,
                ..claim.clone()
            },
            Batch {
                silent: true,
                ..claim
            },
        ] {
            assert_eq!(firm.when(), When::Now, "{firm:?}");
        }
    }

    #[test]
    fn only_receipts_alone_wait_for_company() {
        let receipt = news(MessageInput::Receipt(ReceiptKind::Read));
        assert_eq!(receipt.when(), When::Soon);
        assert_eq!(news(MessageInput::ServerAck).when(), When::Now);
        assert_eq!(news(MessageInput::Failed).when(), When::Now);
        let silent = Batch {
            silent: true,
            ..receipt
        };
        assert_eq!(silent.when(), When::Now);
    }
}
