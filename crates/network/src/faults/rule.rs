//! What a rule says: which stanza or login it is about, and when it fires; and the check of both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::faults::{Action, Party};
use crate::node::Node;

/// One fault: for what, when, and what happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// A name for the reader of the list; it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which stanzas or logins.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Which of those; every one when left out.
    #[serde(default)]
    pub when: When,
    /// What happens to them.
    pub action: Action,
}

/// Where a rule listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A stanza that a device sent.
    FromDevice,
    /// A stanza that is about to go to a device.
    ToDevice,
    /// A login.
    Connect,
}

/// Which stanzas or logins a rule is about. All that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    pub direction: Direction,
    /// The account's number; any account when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The device's number, 0 for the phone; any device but phones when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u16>,
    /// What the stanza must look like; any stanza when left out.
    #[serde(default, skip_serializing_if = "StanzaMatch::is_empty")]
    pub stanza: StanzaMatch,
}

/// What a stanza must look like. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StanzaMatch {
    /// `message`, `receipt`, `ack`, `iq`, `notification`, `presence`, `chatstate`, `ib` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The attribute `type`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The attribute `class`, which says what an `ack` acknowledges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The attribute `xmlns` of an `iq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xmlns: Option<String>,
    /// The tag of a direct child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// How the attribute `id` begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_prefix: Option<String>,
    /// Further attributes by name and value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// Which of the matching stanzas or logins go wrong. Every one, if nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Only the n-th match, counted from 1 since the rule was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u32>,
    /// Each with this probability, between 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Only the first that is due; the same as `times: 1`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// From the first that `nth` or `probability` chose, all further ones too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}

/// A rule that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FaultError {
    /// The path of the offending field, such as `when.probability`.
    pub field: &'static str,
    pub reason: String,
}

impl FaultError {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}

impl FaultRule {
    /// A rule that always fires for what it matches.
    pub fn new(matches: Match, action: Action) -> Self {
        Self {
            name: None,
            matches,
            when: When::default(),
            action,
        }
    }

    /// Sets when it fires.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Makes it fire for the first match only.
    #[must_use]
    pub fn once(self) -> Self {
        self.when(When {
            once: true,
            ..When::default()
        })
    }

    /// The rule in its normal form, or what is wrong with it.
    pub fn checked(mut self) -> Result<Self, FaultError> {
        self.matches.check()?;
        self.when.check()?;
        self.action.check(&self.matches)?;
        if let Some(account) = &mut self.matches.account {
            account.retain(|c| c.is_ascii_digit());
        }
        Ok(self)
    }
}

impl Match {
    /// Any login.
    pub fn connect() -> Self {
        Self::of(Direction::Connect, StanzaMatch::default())
    }

    /// Stanzas with this tag that devices send.
    pub fn from_device(tag: &str) -> Self {
        Self::of(Direction::FromDevice, StanzaMatch::tag(tag))
    }

    /// Stanzas with this tag that go to devices.
    pub fn to_device(tag: &str) -> Self {
        Self::of(Direction::ToDevice, StanzaMatch::tag(tag))
    }

    fn of(direction: Direction, stanza: StanzaMatch) -> Self {
        Self {
            direction,
            account: None,
            device: None,
            stanza,
        }
    }

    /// Narrows it to one account.
    #[must_use]
    pub fn account(mut self, phone: impl Into<String>) -> Self {
        self.account = Some(phone.into());
        self
    }

    /// Narrows it to one device.
    #[must_use]
    pub fn device(mut self, device: u16) -> Self {
        self.device = Some(device);
        self
    }

    /// Narrows it by what the stanza must look like.
    #[must_use]
    pub fn stanza(mut self, stanza: StanzaMatch) -> Self {
        self.stanza = stanza;
        self
    }

    fn check(&self) -> Result<(), FaultError> {
        if let Some(account) = &self.account {
            let digits = account.chars().filter(char::is_ascii_digit).count();
            let strange = account
                .chars()
                .any(|c| !c.is_ascii_digit() && !"+ -()".contains(c));
            if strange || !(5..=17).contains(&digits) {
                let reason = format!("`{account}` is not a phone number");
                return Err(FaultError::new("match.account", reason));
            }
        }
        if self.direction == Direction::Connect && !self.stanza.is_empty() {
            let reason = "a login is no stanza; leave it out or choose another direction";
            return Err(FaultError::new("match.stanza", reason));
        }
        if self.direction == Direction::Connect && self.device == Some(0) {
            return Err(FaultError::new(
                "match.device",
                "phones do not log in, only devices from 1",
            ));
        }
        self.stanza.check()
    }

    pub(super) fn covers(&self, direction: Direction, who: &Party, node: Option<&Node>) -> bool {
        let device = match self.device {
            Some(device) => who.account.is_some() && device == who.device,
            None => who.device != 0 || who.account.is_none(),
        };
        self.direction == direction
            && device
            && self
                .account
                .as_ref()
                .is_none_or(|account| *account == who.phone)
            && node.is_none_or(|node| self.stanza.covers(node))
    }
}

impl StanzaMatch {
    /// Stanzas with this tag.
    pub fn tag(tag: &str) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            ..Self::default()
        }
    }

    /// Requests by namespace and first child.
    pub fn iq(xmlns: &str, child: Option<&str>) -> Self {
        Self {
            tag: Some("iq".to_owned()),
            xmlns: Some(xmlns.to_owned()),
            child: child.map(str::to_owned),
            ..Self::default()
        }
    }

    /// True if it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), FaultError> {
        let named = [
            ("match.stanza.tag", &self.tag),
            ("match.stanza.type", &self.kind),
            ("match.stanza.class", &self.class),
            ("match.stanza.xmlns", &self.xmlns),
            ("match.stanza.child", &self.child),
            ("match.stanza.id_prefix", &self.id_prefix),
        ];
        for (field, value) in named {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(FaultError::new(
                    field,
                    "is empty; leave it out to match anything",
                ));
            }
        }
        Ok(())
    }

    fn covers(&self, node: &Node) -> bool {
        let attr = |key: &str, wanted: &Option<String>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| node.get(key).is_some_and(|has| has == *wanted))
        };
        self.tag.as_ref().is_none_or(|tag| node.is(tag))
            && attr("type", &self.kind)
            && attr("class", &self.class)
            && attr("xmlns", &self.xmlns)
            && self
                .child
                .as_ref()
                .is_none_or(|child| node.find(child).is_some())
            && self.id_prefix.as_ref().is_none_or(|prefix| {
                node.get("id")
                    .is_some_and(|id| id.starts_with(prefix.as_str()))
            })
            && self
                .attrs
                .iter()
                .all(|(key, wanted)| node.get(key).is_some_and(|has| has == *wanted))
    }
}

impl When {
    fn check(&self) -> Result<(), FaultError> {
        if self.nth == Some(0) {
            return Err(FaultError::new("when.nth", "counts from 1"));
        }
        if self.times == Some(0) {
            return Err(FaultError::new(
                "when.times",
                "0 would never fire; remove the rule instead",
            ));
        }
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err(FaultError::new(
                "when.probability",
                "must lie between 0 and 1",
            ));
        }
        if self.once && self.times.is_some_and(|times| times != 1) {
            return Err(FaultError::new(
                "when.once",
                "contradicts `times`; give one of them",
            ));
        }
        if self.sticky && self.once {
            return Err(FaultError::new(
                "when.sticky",
                "contradicts `once`; give one of them",
            ));
        }
        if self.sticky && self.nth.is_none() && self.probability.is_none() {
            let reason = "needs `nth` or `probability`, which choose where it begins";
            return Err(FaultError::new("when.sticky", reason));
        }
        Ok(())
    }

    pub(super) fn limit(&self) -> Option<u32> {
        if self.once { Some(1) } else { self.times }
    }
}
