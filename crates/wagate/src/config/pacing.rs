//! `[pacing]`: how fast sessions send where their tenants set nothing.

use std::time::Duration;

use wagate_domain::PacingRules;
use wagate_domain::limits::{
    PACING_GAP_MAX, PACING_PER_DAY_MAX, PACING_PER_MINUTE_MAX, PACING_WARM_UP_DAYS_MAX,
};

use super::Reader;

/// When sessions are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacingMode {
    /// When messages go to WhatsApp itself.
    Auto,
    On,
    Off,
}

/// `[pacing]`.
#[derive(Clone, Copy, Debug)]
pub struct PacingConfig {
    pub mode: PacingMode,
    /// The limits, whatever the mode is.
    limits: PacingRules,
}

impl PacingConfig {
    /// What counts where no tenant set anything, for sessions that go to this address; empty is WhatsApp's.
    pub fn rules(&self, whatsapp_url: &str) -> PacingRules {
        let enabled = match self.mode {
            PacingMode::Auto => whatsapp_url.is_empty(),
            PacingMode::On => true,
            PacingMode::Off => false,
        };
        PacingRules {
            enabled,
            ..self.limits
        }
    }
}

pub(super) fn read(r: &mut Reader) -> PacingConfig {
    // 0 stands for no limit in a file, where nothing cannot be written.
    let limit = |number: u32| (number > 0).then_some(number);
    PacingConfig {
        mode: read_mode(r),
        limits: PacingRules {
            enabled: false,
            gap: r.duration("pacing.gap", Duration::ZERO..=PACING_GAP_MAX),
            gap_jitter_percent: r.number("pacing.gap_jitter_percent", 0..=100),
            per_minute: limit(r.number("pacing.per_minute", 0..=PACING_PER_MINUTE_MAX)),
            per_day: limit(r.number("pacing.per_day", 0..=PACING_PER_DAY_MAX)),
            strangers_per_day: limit(r.number("pacing.strangers_per_day", 0..=PACING_PER_DAY_MAX)),
            warm_up_days: r.number("pacing.warm_up_days", 0..=PACING_WARM_UP_DAYS_MAX),
            warm_up_start_percent: r.number("pacing.warm_up_start_percent", 1..=100),
            typing: r.switch("pacing.typing"),
        },
    }
}

fn read_mode(r: &mut Reader) -> PacingMode {
    const KEY: &str = "pacing.mode";
    let mode = r.text(KEY);
    match mode.as_str() {
        "auto" => PacingMode::Auto,
        "on" => PacingMode::On,
        "off" => PacingMode::Off,
        other => {
            let source = r.source(KEY);
            r.refuse(KEY, other, &source, "auto, on or off");
            PacingMode::Off
        }
    }
}
