//! Faults on demand: rules that say which stanza or login is to go wrong, when, and how.
//!
//! The world asks the plan at its choke points (a login, a stanza from a device, a stanza to a device)
//! and carries out the answer. Pure and seeded: the same rules and the same stanzas give the same
//! faults. A rule is checked when it is added, so an accepted rule can always be carried out.

mod action;
mod held;
mod rule;

pub use action::{Action, NodeSpec, StreamErrorDetail};
pub use held::{Held, Released};
pub use rule::{Direction, FaultError, FaultRule, Match, StanzaMatch, When};

use serde::Serialize;
use utoipa::ToSchema;

use crate::node::Node;
use crate::world::{AccountId, ConnId, Millis};

/// A rule's number, given when it is added and never used again.
pub type RuleId = u64;

/// How many of its last victims a rule remembers by name.
const REMEMBERED_HITS: usize = 16;

/// Whose stanza or login it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// `None` for a connection that is not linked to an account yet.
    pub account: Option<AccountId>,
    /// The account's number in digits, empty where there is no account.
    pub phone: String,
    /// 0 is the phone (or a connection that is not linked yet).
    pub device: u16,
    /// The connection, `None` for a phone.
    pub conn: Option<ConnId>,
}

impl Party {
    /// The primary phone of an account.
    pub fn phone(account: AccountId, phone: impl Into<String>) -> Self {
        Self {
            account: Some(account),
            phone: phone.into(),
            device: 0,
            conn: None,
        }
    }

    /// A linked device on its connection.
    pub fn device(
        account: AccountId,
        phone: impl Into<String>,
        device: u16,
        conn: Option<ConnId>,
    ) -> Self {
        Self {
            account: Some(account),
            phone: phone.into(),
            device,
            conn,
        }
    }

    /// A connection that waits to be linked.
    pub fn unlinked(conn: ConnId) -> Self {
        Self {
            account: None,
            phone: String::new(),
            device: 0,
            conn: Some(conn),
        }
    }
}

/// One stanza or login that a rule changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hit {
    /// Milliseconds since the Unix epoch by the network's clock.
    pub at: i64,
    /// The account's number, empty where there is none.
    pub phone: String,
    pub device: u16,
    /// The stanza's tag, or `connect`.
    pub tag: String,
    /// The stanza's id, where it has one.
    pub id: Option<String>,
}

/// A rule together with what it did.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RuleReport {
    pub id: RuleId,
    pub rule: FaultRule,
    /// How many stanzas or logins it looked at and found to match.
    pub matched: u64,
    /// How many of them it changed.
    pub hits: u64,
    /// The newest of those, at most 16, oldest first.
    pub last: Vec<Hit>,
    /// It has done all that it may do.
    pub exhausted: bool,
}

/// The rules in force, in the order in which they were added. The first that fires wins.
#[derive(Debug)]
pub struct FaultPlan {
    seed: u64,
    next_id: RuleId,
    last_fired: RuleId,
    rules: Vec<Armed>,
}

/// A rule in force.
#[derive(Debug)]
struct Armed {
    id: RuleId,
    rule: FaultRule,
    matched: u64,
    hits: u64,
    stuck: bool,
    dice: u64,
    last: Vec<Hit>,
}

impl FaultPlan {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            next_id: 1,
            last_fired: 0,
            rules: Vec::new(),
        }
    }

    /// Puts a rule in force.
    pub fn add(&mut self, rule: FaultRule) -> Result<RuleId, FaultError> {
        let rule = rule.checked()?;
        let id = self.next_id;
        self.next_id += 1;
        // Dice of its own: adding or removing one rule does not change what another one does.
        let dice = self.seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.rules.push(Armed {
            id,
            rule,
            matched: 0,
            hits: 0,
            stuck: false,
            dice,
            last: Vec::new(),
        });
        Ok(id)
    }

    /// Takes a rule out of force and tells what it did.
    pub fn remove(&mut self, id: RuleId) -> Option<RuleReport> {
        let at = self.rules.iter().position(|armed| armed.id == id)?;
        Some(self.rules.remove(at).report())
    }

    /// Takes all rules out of force.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// The rules in force with what each has hit.
    pub fn list(&self) -> Vec<RuleReport> {
        self.rules.iter().map(Armed::report).collect()
    }

    pub fn get(&self, id: RuleId) -> Option<RuleReport> {
        self.rules
            .iter()
            .find(|armed| armed.id == id)
            .map(Armed::report)
    }

    /// What to do instead of answering a login with success.
    pub fn on_connect(&mut self, now: Millis, who: &Party) -> Option<Action> {
        self.decide(now, Direction::Connect, who, None)
    }

    /// What to do with a stanza that came from a device.
    pub fn inbound(&mut self, now: Millis, who: &Party, node: &Node) -> Option<Action> {
        self.decide(now, Direction::FromDevice, who, Some(node))
    }

    /// What to do with a stanza that is about to go to a device.
    pub fn outbound(&mut self, now: Millis, who: &Party, node: &Node) -> Option<Action> {
        self.decide(now, Direction::ToDevice, who, Some(node))
    }

    /// The rule that gave the newest action, 0 if none did yet.
    pub fn last_fired(&self) -> RuleId {
        self.last_fired
    }

    fn decide(
        &mut self,
        now: Millis,
        direction: Direction,
        who: &Party,
        node: Option<&Node>,
    ) -> Option<Action> {
        let mut chosen = None;
        for armed in &mut self.rules {
            if !armed.rule.matches.covers(direction, who, node) {
                continue;
            }
            // Every rule counts every match, so that "the third message" means the third message even
            // where another rule took the first two.
            armed.matched += 1;
            if chosen.is_none() && armed.fires() {
                armed.remember(now, who, node);
                self.last_fired = armed.id;
                chosen = Some(armed.rule.action.clone());
            }
        }
        chosen
    }
}

impl Armed {
    fn fires(&mut self) -> bool {
        let when = &self.rule.when;
        if self.exhausted() {
            return false;
        }
        if self.stuck {
            return true;
        }
        if when.nth.is_some_and(|nth| self.matched != u64::from(nth)) {
            return false;
        }
        if let Some(probability) = when.probability {
            // The upper 53 bits as a number in [0, 1).
            #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
            let drawn = (next_random(&mut self.dice) >> 11) as f64 / (1_u64 << 53) as f64;
            if drawn >= probability {
                return false;
            }
        }
        self.stuck = when.sticky;
        true
    }

    fn exhausted(&self) -> bool {
        let when = &self.rule.when;
        let spent = when
            .limit()
            .is_some_and(|limit| self.hits >= u64::from(limit));
        let past = !self.stuck && when.nth.is_some_and(|nth| self.matched > u64::from(nth));
        spent || past
    }

    fn remember(&mut self, now: Millis, who: &Party, node: Option<&Node>) {
        self.hits += 1;
        if self.last.len() == REMEMBERED_HITS {
            self.last.remove(0);
        }
        self.last.push(Hit {
            at: now,
            phone: who.phone.clone(),
            device: who.device,
            tag: node.map_or_else(|| "connect".to_owned(), |node| node.tag.to_string()),
            id: node.and_then(|node| node.get("id").map(std::borrow::Cow::into_owned)),
        });
    }

    fn report(&self) -> RuleReport {
        RuleReport {
            id: self.id,
            rule: self.rule.clone(),
            matched: self.matched,
            hits: self.hits,
            last: self.last.clone(),
            exhausted: self.exhausted(),
        }
    }
}

/// `SplitMix64`: small, seeded, and the same on every machine and in every version.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
