//! How a session is paced: what is in force, how far it is used, and what WhatsApp asked for.

use wagate_domain::pacing::{PacingPatch, PacingRules, Pause, Permit};
use wagate_domain::{SessionName, Timestamp};
use wagate_store::bus::BusMessage;
use wagate_store::pacing::{self, Stored};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{AppError, Code, Detail};
use crate::sessions::{named, not_found};

/// A session's pacing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPacing {
    /// In force: the operator's defaults, and what the tenant changed of them.
    pub rules: PacingRules,
    /// What the tenant changed.
    pub changed: PacingPatch,
    /// Messages of the last 60 seconds, of the last 24 hours, and of these first ones to strangers.
    pub used: (u64, u64, u64),
    /// The share of a day's budgets that the number's age gives it.
    pub share_percent: u32,
    /// What may be sent now.
    pub permit: Permit,
    pub pauses: Vec<Pause>,
}

impl SessionPacing {
    fn of(defaults: PacingRules, stored: Stored, now: Timestamp) -> Self {
        let Stored { rules, mut state } = stored;
        let changed = rules;
        let rules = defaults.with(changed);
        Self {
            rules,
            changed,
            used: state.used(now),
            share_percent: state.share_percent(&rules, now),
            permit: state.ask(&rules, now),
            pauses: state.pauses(now),
        }
    }
}

impl App {
    /// How a session is paced, and how far it has used its limits.
    pub async fn pacing(
        &self,
        caller: &Caller,
        name: &SessionName,
    ) -> Result<SessionPacing, AppError> {
        let (caller, name) = (caller.clone(), name.clone());
        let (defaults, now) = (self.options().pacing, self.now());
        self.db()
            .read(move |tx| {
                let id = named(tx, &caller, &name)?.id;
                let stored = pacing::get(tx, caller.tenant(), &id)?;
                Ok(SessionPacing::of(defaults, stored, now))
            })
            .await
            .map_err(not_found)
    }

    /// Changes how a session is paced; with `reset`, what was changed before is dropped first. Counts from
    /// the next message on.
    pub async fn configure_pacing(
        &self,
        caller: &Caller,
        name: &SessionName,
        reset: bool,
        change: PacingPatch,
    ) -> Result<SessionPacing, AppError> {
        let (by, name) = (caller.clone(), name.clone());
        let (defaults, now) = (self.options().pacing, self.now());
        let (outcome, session) = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                let id = named(tx, &by, &name)?.id;
                let stored = pacing::get_to_change(tx, by.tenant(), &id)?;
                let before = if reset {
                    PacingPatch::default()
                } else {
                    stored.rules
                };
                let rules = before.and(change);
                let wrong = defaults.with(rules).out_of_range();
                if !wrong.is_empty() {
                    return Ok((Err(wrong), id));
                }
                pacing::configure(tx, by.tenant(), &id, &rules, now)?;
                let stored = Stored { rules, ..stored };
                Ok((Ok(SessionPacing::of(defaults, stored, now)), id))
            })
            .await
            .map_err(not_found)?;
        let configured = outcome.map_err(|wrong| {
            let details: Vec<Detail> = wrong
                .into_iter()
                .map(|wrong| Detail {
                    path: wrong.field.to_owned(),
                    message: wrong.to_string(),
                })
                .collect();
            let sentences: Vec<String> = details
                .iter()
                .map(|detail| format!("{} {}", detail.path, detail.message))
                .collect();
            AppError::Refused {
                code: Code::InvalidField,
                message: sentences.join("; "),
                details,
            }
        })?;
        self.publish(BusMessage::DesiredChanged {
            session: session.clone(),
        });
        self.publish(BusMessage::QueueReady { session });
        self.tell_events(caller);
        Ok(configured)
    }
}
