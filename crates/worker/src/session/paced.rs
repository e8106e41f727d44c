//! A session's pacing, between the pure rules of [`wagate_domain::pacing`] and the actor.
//!
//! Asked before each claim, so that a message which must wait stays `queued`: in sight, and to be
//! withdrawn. What a claim uses up is written in the claim's own transaction, before anything is sent.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;
use wagate_domain::pacing::{Pacing, PacingPatch, PacingRules, Pause, Permit, Reason, Scope};
use wagate_domain::{LinkState, Timestamp, pacing};
use wagate_store::pacing::Stored;
use wagate_store::queue::{self, Claims, Retry};
use wagate_store::{Lease, StoreError, Tx};

/// Strangers that must wait are looked at again after so long: their rules may have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(15 * 60);
/// Recipients that are made ready in one go: at full speed, and where a person's pace is wanted.
const AHEAD: u32 = 50;
const AHEAD_PACED: u32 = 5;

/// What the actor knows of its session's pacing.
#[derive(Debug)]
pub(crate) struct Paced {
    /// The operator's.
    defaults: PacingRules,
    rules: PacingRules,
    state: Pacing,
    /// What was not written yet.
    news: News,
    /// When a message may go out again.
    open_at: Option<Instant>,
    /// When the first of the pauses ends: by the clock that never jumps, for waking, and by the other.
    ends_at: Option<(Instant, Timestamp)>,
}

/// What is to be written about pacing, beside a claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    /// The state, when it changed.
    pub(crate) state: Option<Pacing>,
    pub(crate) paused: Vec<Pause>,
    pub(crate) resumed: Vec<Pause>,
}

/// How a claim may be made.
#[derive(Clone, Debug, Default)]
pub(crate) enum Gate {
    /// As usual.
    #[default]
    Open,
    /// Only as far as limits and pauses allow.
    Narrow(Box<Narrow>),
}

/// What a claim must heed.
#[derive(Clone, Debug)]
pub(crate) struct Narrow {
    rules: PacingRules,
    state: Pacing,
    permit: Permit,
    random: f64,
}

/// What a narrow claim took.
#[derive(Debug)]
pub(crate) struct Narrowed {
    pub(crate) claims: Claims,
    /// As it is now, and was written.
    pub(crate) state: Pacing,
    /// There may be more to claim at once.
    pub(crate) more: bool,
}

impl News {
    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_none() && self.paused.is_empty() && self.resumed.is_empty()
    }
}

impl Paced {
    pub(crate) fn new(defaults: PacingRules, stored: Stored) -> Self {
        Self {
            defaults,
            rules: defaults.with(stored.rules),
            state: stored.state,
            news: News::default(),
            open_at: None,
            // Pauses may have ended while nobody ran the session.
            ends_at: Some((Instant::now(), Timestamp::EPOCH)),
        }
    }

    /// The tenant changed something.
    pub(crate) fn configure(&mut self, rules: PacingPatch) {
        self.rules = self.defaults.with(rules);
        self.open_at = self.open_at.map(|_| Instant::now());
    }

    /// When the actor must look again by itself.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let ends_at = self.ends_at.map(|(at, _)| at);
        [self.open_at, ends_at].into_iter().flatten().min()
    }

    /// How a claim may be made now; nothing while none may.
    pub(crate) fn gate(&mut self, now: Timestamp) -> Option<Gate> {
        self.open_at = None;
        let permit = self.state.ask(&self.rules, now);
        if let Some(hold) = permit.all {
            tracing::debug!(why = hold.why.as_str(), until = %hold.until, "messages wait");
            self.open_at = Some(Instant::now() + hold.until.since(now));
            return None;
        }
        if !self.rules.enabled && permit.strangers.is_none() {
            return Some(Gate::Open);
        }
        Some(Gate::Narrow(Box::new(Narrow {
            rules: self.rules,
            state: self.state.clone(),
            permit,
            random: rand::rng().random(),
        })))
    }

    /// A narrow claim was committed.
    pub(crate) fn claimed(&mut self, state: Pacing) {
        self.state = state;
    }

    /// WhatsApp asked for patience.
    pub(crate) fn signal(
        &mut self,
        now: Timestamp,
        scope: Scope,
        reason: Reason,
        named: Option<Duration>,
    ) -> Option<Pause> {
        let pause = self.state.signal(now, scope, reason, named)?;
        self.news.state = Some(self.state.clone());
        self.news.paused.push(pause);
        self.watch_pauses(now);
        Some(pause)
    }

    /// Until when messages of this scope wait.
    pub(crate) fn held_until(&mut self, now: Timestamp, scope: Scope) -> Timestamp {
        let pauses = self.state.pauses(now).into_iter();
        let until = pauses
            .filter(|pause| pause.scope == scope)
            .map(|pause| pause.until)
            .max();
        until.unwrap_or(now)
    }

    /// The session's state changed: a number that is linked has an age, and one that is let in no ban.
    pub(crate) fn observed(&mut self, now: Timestamp, link: &LinkState, number: Option<&str>) {
        if !matches!(link, LinkState::Connected) {
            return;
        }
        let news = number.is_some_and(|number| self.state.linked(now, number));
        self.state.lift(now, Reason::Banned);
        if news {
            self.news.state = Some(self.state.clone());
        }
        self.ends_at = Some((Instant::now(), now));
    }

    /// What is to be written besides; pauses whose end has come are among it.
    pub(crate) fn take_news(&mut self, now: Timestamp) -> News {
        let is_over = |(at, by): (Instant, Timestamp)| by <= now || at <= Instant::now();
        if self.ends_at.is_some_and(is_over) {
            let over = self.state.take_over(now);
            if !over.is_empty() {
                self.news.state = Some(self.state.clone());
                self.news.resumed.extend(over);
            }
            self.watch_pauses(now);
        }
        std::mem::take(&mut self.news)
    }

    /// How long to show "typing" before this text, where that is wanted.
    pub(crate) fn typing(&self, text: Option<&str>) -> Option<Duration> {
        let text = text.filter(|_| self.rules.enabled && self.rules.typing)?;
        let random = rand::rng().random();
        Some(pacing::typing_time(text.chars().count(), random))
    }

    /// How many recipients to make ready in one go.
    pub(crate) fn ahead(&self) -> u32 {
        if self.rules.enabled {
            AHEAD_PACED
        } else {
            AHEAD
        }
    }

    fn watch_pauses(&mut self, now: Timestamp) {
        let first = self.state.pauses(now).iter().map(|pause| pause.until).min();
        self.ends_at = first.map(|until| (Instant::now() + until.since(now), until));
    }
}

impl Narrow {
    /// Claims what limits and pauses allow, and writes what that uses up. May run again after a
    /// transaction that failed.
    pub(crate) fn claim(
        &self,
        tx: &mut Tx<'_>,
        lease: &Lease,
        asked: u32,
        concurrency: u32,
        now: Timestamp,
    ) -> Result<Narrowed, StoreError> {
        let mut state = self.state.clone();
        let until = self
            .permit
            .strangers
            .map(|hold| hold.until.min(now.plus(LOOK_AGAIN)));
        if let Some(until) = until
            && !queue::put_off_strangers(tx, lease, until, now)?
        {
            let claims = Claims {
                claimed: Vec::new(),
                concurrency: None,
            };
            return Ok(Narrowed {
                claims,
                state,
                more: true,
            });
        }
        // One at a time where messages are counted: each is asked for anew.
        let asked = if self.rules.enabled { 1 } else { asked };
        let mut claims = queue::claim_within(tx, lease, asked, concurrency, now)?;
        if claims.claimed.is_empty() {
            return Ok(Narrowed {
                claims,
                state,
                more: false,
            });
        }
        let strangers = queue::to_strangers(tx, &lease.session, &claims.claimed)?;
        let mut taken = Vec::with_capacity(claims.claimed.len());
        for claimed in claims.claimed {
            let stranger = strangers.contains(&claimed.message);
            if let (true, Some(due)) = (stranger, until) {
                // It became due in the claim itself.
                let again = Retry { due, counts: false };
                queue::retry(tx, lease, claimed, again, now)?;
                continue;
            }
            state.count(now, stranger, self.random);
            taken.push(claimed);
        }
        if self.rules.enabled && !taken.is_empty() {
            wagate_store::pacing::save(tx, lease, &state)?;
        }
        claims.claimed = taken;
        Ok(Narrowed {
            claims,
            state,
            more: true,
        })
    }
}
