//! What a session has sent, and what WhatsApp has asked of it.
//!
//! Times in here run on a clock of their own, which follows the wall clock forward and stands still when
//! that is put back: so nothing is counted twice as fast, and nothing waits for a year that was a mistake.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::{DAY, MINUTE, Window};
use super::{PacingRules, Reason, Scope, Why};
use crate::limits::PAUSE_MAX;
use crate::time::Timestamp;

/// How far a session has used its limits, and its pauses. Lives in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pacing {
    /// The wall clock when it was last looked at, and our own time then, in milliseconds.
    seen: Option<Timestamp>,
    time: u64,
    /// The number, and when it was first linked.
    number: Option<String>,
    linked: u64,
    /// The newest message, and its part of the gap's jitter, in thousandths.
    last: Option<u64>,
    dice: u16,
    minute: Window,
    day: Window,
    strangers: Window,
    all: Option<Strike>,
    new_chats: Option<Strike>,
}

/// WhatsApp's newest demand for patience in one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Strike {
    reason: Reason,
    since: u64,
    until: u64,
    /// Guesses in a row, which double each time.
    guesses: u32,
    /// The end of the pause was told.
    over: bool,
}

/// Until when something is held back, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub until: Timestamp,
    pub why: Why,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Why nothing may.
    pub all: Option<Hold>,
    /// Why no first message to a stranger may; at least as long as `all`.
    pub strangers: Option<Hold>,
}

/// A pause that WhatsApp caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub scope: Scope,
    pub reason: Reason,
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Permit {
    /// Whether a message may go out.
    pub fn allows(&self, stranger: bool) -> bool {
        self.all.is_none() && !(stranger && self.strangers.is_some())
    }
}

impl Pacing {
    /// Notes which number is linked; its age counts from the first time. Another number begins anew. Says
    /// whether that was news.
    pub fn linked(&mut self, now: Timestamp, number: &str) -> bool {
        if self.number.as_deref() == Some(number) {
            return false;
        }
        if self.number.is_some() {
            *self = Self::default();
        }
        self.linked = self.follow(now);
        self.number = Some(number.to_owned());
        true
    }

    /// What may be sent now.
    pub fn ask(&mut self, rules: &PacingRules, now: Timestamp) -> Permit {
        let time = self.follow(now);
        let pause = |strike: Option<Strike>| {
            let strike = strike.filter(|strike| strike.until > time)?;
            Some((strike.until, Why::Pause(strike.reason)))
        };
        let mut all = vec![pause(self.all)];
        let mut strangers = vec![pause(self.new_chats)];
        if rules.enabled {
            let age = self.age(time);
            let warmed = |budget: u32| rules.warmed(budget, age);
            let held = |window: &Window, shape, limit: Option<u64>, why| {
                Some((window.free_at(shape, time, limit?)?, why))
            };
            all.push(self.gap_until(rules, time).map(|until| (until, Why::Gap)));
            let per_minute = rules.per_minute.map(u64::from);
            all.push(held(&self.minute, MINUTE, per_minute, Why::Minute));
            let per_day = rules.per_day.map(warmed);
            all.push(held(&self.day, DAY, per_day, Why::Day));
            let budget = rules.strangers_per_day.map(warmed);
            strangers.push(held(&self.strangers, DAY, budget, Why::Strangers));
        }
        let longest = |holds: &[Option<(u64, Why)>]| {
            let held = holds.iter().flatten().max_by_key(|(until, _)| *until)?;
            Some(Hold {
                until: self.wall(now, held.0),
                why: held.1,
            })
        };
        let whole = longest(&all);
        strangers.extend(all);
        Permit {
            all: whole,
            strangers: longest(&strangers),
        }
    }

    /// Counts a message that goes out now, given a random number in `0.0..1.0` for the next gap.
    pub fn count(&mut self, now: Timestamp, stranger: bool, random: f64) {
        let time = self.follow(now);
        self.last = Some(time);
        self.dice = thousandths(random);
        self.minute.add(MINUTE, time);
        self.day.add(DAY, time);
        if stranger {
            self.strangers.add(DAY, time);
        }
    }

    /// WhatsApp asked for patience: for a time that it named, or else for a guess, which doubles while it
    /// goes on asking. Gives the pause when there was none, or when it has become longer.
    pub fn signal(
        &mut self,
        now: Timestamp,
        scope: Scope,
        reason: Reason,
        named: Option<Duration>,
    ) -> Option<Pause> {
        let time = self.follow(now);
        let before = match scope {
            Scope::All => self.all,
            Scope::NewChats => self.new_chats,
        };
        let active = before.filter(|strike| strike.until > time);
        // Messages that were on their way already say the same again.
        if active.is_some() && named.is_none() {
            return None;
        }
        let remembered = before.filter(|strike| strike.is_remembered(time));
        let guesses = match named {
            Some(_) => remembered.map_or(0, |strike| strike.guesses),
            None => remembered.map_or(0, |strike| strike.guesses.saturating_add(1)),
        };
        let wait = named.unwrap_or_else(|| guess(reason, guesses));
        let until = time.saturating_add(millis(wait.min(PAUSE_MAX)));
        if active.is_some_and(|strike| strike.until >= until) || until <= time {
            return None;
        }
        let strike = Strike {
            reason,
            since: active.map_or(time, |strike| strike.since),
            until,
            guesses,
            over: false,
        };
        match scope {
            Scope::All => self.all = Some(strike),
            Scope::NewChats => self.new_chats = Some(strike),
        }
        Some(self.pause(now, scope, strike))
    }

    /// The pauses that are in force.
    pub fn pauses(&mut self, now: Timestamp) -> Vec<Pause> {
        let time = self.follow(now);
        let strikes = [(Scope::All, self.all), (Scope::NewChats, self.new_chats)];
        let active = strikes.into_iter().filter_map(|(scope, strike)| {
            let strike = strike.filter(|strike| strike.until > time)?;
            Some(self.pause(now, scope, strike))
        });
        active.collect()
    }

    /// Takes the pauses whose end was not told yet.
    pub fn take_over(&mut self, now: Timestamp) -> Vec<Pause> {
        let time = self.follow(now);
        let mut over = Vec::new();
        for scope in Scope::ALL {
            let strike = match scope {
                Scope::All => &mut self.all,
                Scope::NewChats => &mut self.new_chats,
            };
            let Some(ended) = strike.as_mut().filter(|s| s.until <= time && !s.over) else {
                continue;
            };
            ended.over = true;
            let ended = *ended;
            over.push(self.pause(now, scope, ended));
        }
        over
    }

    /// Ends the pauses for that reason, which turned out to be over; the next guess still doubles.
    pub fn lift(&mut self, now: Timestamp, reason: Reason) {
        let time = self.follow(now);
        let strikes = [&mut self.all, &mut self.new_chats].into_iter().flatten();
        for strike in strikes.filter(|strike| strike.reason == reason) {
            strike.until = strike.until.min(time);
        }
    }

    /// Messages counted in the last minute, and in the last day, and of these first ones to strangers.
    pub fn used(&mut self, now: Timestamp) -> (u64, u64, u64) {
        let time = self.follow(now);
        (
            self.minute.count(MINUTE, time),
            self.day.count(DAY, time),
            self.strangers.count(DAY, time),
        )
    }

    /// The share of a day's budgets that the number's age gives it, in percent.
    pub fn share_percent(&mut self, rules: &PacingRules, now: Timestamp) -> u32 {
        let time = self.follow(now);
        rules.share_percent(self.age(time))
    }

    fn age(&self, time: u64) -> Duration {
        let linked = self.number.as_ref().map(|_| self.linked);
        Duration::from_millis(linked.map_or(0, |linked| time.saturating_sub(linked)))
    }

    fn gap_until(&self, rules: &PacingRules, time: u64) -> Option<u64> {
        let gap = millis(rules.gap);
        let more = gap * u64::from(rules.gap_jitter_percent) * u64::from(self.dice) / 100_000;
        let until = self.last?.saturating_add(gap).saturating_add(more);
        (until > time).then_some(until)
    }

    /// Lets our time follow the wall clock.
    fn follow(&mut self, now: Timestamp) -> u64 {
        if let Some(seen) = self.seen {
            self.time = self.time.saturating_add(millis(now.since(seen)));
        }
        self.seen = Some(now);
        self.time
    }

    /// A moment of ours by the wall clock.
    fn wall(&self, now: Timestamp, at: u64) -> Timestamp {
        if at >= self.time {
            now.plus(Duration::from_millis(at - self.time))
        } else {
            now.minus(Duration::from_millis(self.time - at))
        }
    }

    fn pause(&self, now: Timestamp, scope: Scope, strike: Strike) -> Pause {
        Pause {
            scope,
            reason: strike.reason,
            since: self.wall(now, strike.since),
            until: self.wall(now, strike.until),
        }
    }
}

impl Strike {
    /// Whether another one now would be the next in a row: a pause is remembered four times as long as it
    /// lasted.
    fn is_remembered(&self, time: u64) -> bool {
        let lasted = self.until.saturating_sub(self.since);
        time <= self.until.saturating_add(lasted.saturating_mul(4))
    }
}

fn guess(reason: Reason, before: u32) -> Duration {
    let (first, longest) = reason.guess();
    first.saturating_mul(1 << before.min(16)).min(longest)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number was clamped to 0 to 1000"
)]
fn thousandths(random: f64) -> u16 {
    (random.clamp(0.0, 1.0) * 1000.0) as u16
}
