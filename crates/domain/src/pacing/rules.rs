//! What a session's pacing is set to, and the ranges.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// How a session is paced. Whatever is nothing is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacingRules {
    /// Without it, nothing here counts; WhatsApp's own pauses do.
    pub enabled: bool,
    /// Between two messages at least so long.
    pub gap: Duration,
    /// Up to this share of the gap more, by chance, in percent.
    pub gap_jitter_percent: u32,
    /// Messages in any 60 seconds.
    pub per_minute: Option<u32>,
    /// Messages in any 24 hours.
    pub per_day: Option<u32>,
    /// First messages to strangers in any 24 hours.
    pub strangers_per_day: Option<u32>,
    /// The days after its first link in which a number's share of both budgets of a day grows. 0: at once.
    pub warm_up_days: u32,
    /// The share on the first of these days, in percent.
    pub warm_up_start_percent: u32,
    /// Shows "typing" before a text, for as long as a person would need.
    pub typing: bool,
}

/// What to change; the rest stays. `Some(None)` takes a limit away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PacingPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_jitter_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub per_minute: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub per_day: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub strangers_per_day: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up_start_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typing: Option<bool>,
}

/// Tells a limit that is `null` from one that is not named.
fn there<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(input).map(Some)
}

impl PacingPatch {
    /// Both changes, the later over this one.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            enabled: later.enabled.or(self.enabled),
            gap_ms: later.gap_ms.or(self.gap_ms),
            gap_jitter_percent: later.gap_jitter_percent.or(self.gap_jitter_percent),
            per_minute: later.per_minute.or(self.per_minute),
            per_day: later.per_day.or(self.per_day),
            strangers_per_day: later.strangers_per_day.or(self.strangers_per_day),
            warm_up_days: later.warm_up_days.or(self.warm_up_days),
            warm_up_start_percent: later.warm_up_start_percent.or(self.warm_up_start_percent),
            typing: later.typing.or(self.typing),
        }
    }
}

/// A setting outside of its range, by the name that the API has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be between {min} and {max}")]
pub struct OutOfRange {
    pub field: &'static str,
    pub min: u64,
    pub max: u64,
}

impl PacingRules {
    /// Nothing is limited.
    pub const OFF: Self = Self {
        enabled: false,
        gap: Duration::ZERO,
        gap_jitter_percent: 0,
        per_minute: None,
        per_day: None,
        strangers_per_day: None,
        warm_up_days: 0,
        warm_up_start_percent: 100,
        typing: false,
    };

    /// What a number gets that nobody set anything for: slower than a bulk sender, quicker than a person.
    pub const MILD: Self = Self {
        enabled: true,
        gap: Duration::from_secs(1),
        gap_jitter_percent: 100,
        per_minute: Some(30),
        per_day: Some(2_000),
        strangers_per_day: Some(200),
        warm_up_days: 14,
        warm_up_start_percent: 10,
        typing: false,
    };

    /// These rules with some changed.
    #[must_use]
    pub fn with(mut self, patch: PacingPatch) -> Self {
        self.enabled = patch.enabled.unwrap_or(self.enabled);
        self.gap = patch.gap_ms.map_or(self.gap, Duration::from_millis);
        self.gap_jitter_percent = patch.gap_jitter_percent.unwrap_or(self.gap_jitter_percent);
        self.per_minute = patch.per_minute.unwrap_or(self.per_minute);
        self.per_day = patch.per_day.unwrap_or(self.per_day);
        self.strangers_per_day = patch.strangers_per_day.unwrap_or(self.strangers_per_day);
        self.warm_up_days = patch.warm_up_days.unwrap_or(self.warm_up_days);
        self.warm_up_start_percent = patch
            .warm_up_start_percent
            .unwrap_or(self.warm_up_start_percent);
        self.typing = patch.typing.unwrap_or(self.typing);
        self
    }

    /// Every setting that is out of its range. A limit of 0 would hold messages for ever, and is refused.
    pub fn out_of_range(&self) -> Vec<OutOfRange> {
        let gap_ms = u64::try_from(self.gap.as_millis()).unwrap_or(u64::MAX);
        let gap_max = u64::try_from(limits::PACING_GAP_MAX.as_millis()).unwrap_or(u64::MAX);
        let wide = |set: Option<u32>| set.map_or(1, u64::from);
        let checks = [
            ("gapMs", gap_ms, 0, gap_max),
            ("gapJitterPercent", self.gap_jitter_percent.into(), 0, 100),
            (
                "perMinute",
                wide(self.per_minute),
                1,
                limits::PACING_PER_MINUTE_MAX.into(),
            ),
            (
                "perDay",
                wide(self.per_day),
                1,
                limits::PACING_PER_DAY_MAX.into(),
            ),
            (
                "strangersPerDay",
                wide(self.strangers_per_day),
                1,
                limits::PACING_PER_DAY_MAX.into(),
            ),
            (
                "warmUpDays",
                self.warm_up_days.into(),
                0,
                limits::PACING_WARM_UP_DAYS_MAX.into(),
            ),
            (
                "warmUpStartPercent",
                self.warm_up_start_percent.into(),
                1,
                100,
            ),
        ];
        let outside = checks
            .into_iter()
            .filter(|(_, value, min, max)| !(min..=max).contains(&value));
        outside
            .map(|(field, _, min, max)| OutOfRange { field, min, max })
            .collect()
    }

    /// The share of a day's budget that a number has this long after its first link, in percent: a straight
    /// line from the first day's share to all of it.
    pub fn share_percent(&self, age: Duration) -> u32 {
        let days = u32::try_from(age.as_secs() / DAY_SECS).unwrap_or(u32::MAX);
        if days >= self.warm_up_days {
            return 100;
        }
        let start = self.warm_up_start_percent.min(100);
        start + (100 - start) * days / self.warm_up_days
    }

    /// How much of a budget there is at that age: at least one, so that a number can warm up at all.
    pub(super) fn warmed(&self, budget: u32, age: Duration) -> u64 {
        (u64::from(budget) * u64::from(self.share_percent(age)) / 100).max(1)
    }
}

const DAY_SECS: u64 = 24 * 60 * 60;
