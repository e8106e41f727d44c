//! Goal: no sequence of asks, sends, signals and clock steps breaks a limit or stands still for ever.
//! Method: a model that remembers every send judges what the module allowed.

use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 3_600_000;

fn rules() -> PacingRules {
    PacingRules {
        enabled: true,
        ..PacingRules::OFF
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// WhatsApp says that it is too much.
fn limited(pacing: &mut Pacing, now: Timestamp, named: Option<Duration>) -> Option<Pause> {
    pacing.signal(now, Scope::All, Reason::RateLimited, named)
}

/// WhatsApp lets it write to nobody new.
fn shut_out(pacing: &mut Pacing, now: Timestamp, named: Option<Duration>) -> Option<Pause> {
    pacing.signal(now, Scope::NewChats, Reason::ReachOutLimited, named)
}

#[test]
fn without_rules_nothing_is_held() {
    let mut pacing = Pacing::default();
    for _ in 0..1000 {
        assert_eq!(pacing.ask(&PacingRules::OFF, START), Permit::default());
        pacing.count(START, true, 0.5);
    }
}

#[test]
fn the_gap_is_kept_and_jitter_lengthens_it_only() {
    let rules = PacingRules {
        gap: ms(1000),
        gap_jitter_percent: 50,
        ..rules()
    };
    for (random, gap) in [(0.0, 1000), (0.5, 1250), (1.0, 1500)] {
        let mut pacing = Pacing::default();
        pacing.count(START, false, random);
        let hold = pacing.ask(&rules, START).all.unwrap();
        assert_eq!(hold.until, START.plus(ms(gap)));
        assert_eq!(hold.why, Why::Gap);
        assert!(pacing.ask(&rules, hold.until).allows(true));
    }
}

#[test]
fn a_young_number_has_a_growing_share_of_the_day() {
    let rules = PacingRules {
        per_day: Some(100),
        warm_up_days: 10,
        warm_up_start_percent: 10,
        ..rules()
    };
    let shares: Vec<u32> = [0, 1, 5, 9, 10, 400]
        .map(|day| rules.share_percent(hours(24 * day)))
        .to_vec();
    assert_eq!(shares, [10, 19, 55, 91, 100, 100]);
    let mut pacing = Pacing::default();
    pacing.linked(START, "62811");
    let mut sent = 0;
    while pacing.ask(&rules, START).allows(false) {
        pacing.count(START, false, 0.0);
        sent += 1;
    }
    assert_eq!(sent, 10);
    // Linking again later does not make the number young again; another number is.
    let later = START.plus(hours(24 * 30));
    assert!(!pacing.linked(later, "62811"));
    assert_eq!(pacing.share_percent(&rules, later), 100);
    assert!(pacing.linked(later, "62822"));
    assert_eq!(pacing.share_percent(&rules, later), 10);
}

#[test]
fn strangers_have_a_budget_of_their_own() {
    let rules = PacingRules {
        strangers_per_day: Some(2),
        ..rules()
    };
    let mut pacing = Pacing::default();
    pacing.count(START, true, 0.0);
    pacing.count(START, true, 0.0);
    let permit = pacing.ask(&rules, START);
    assert!(permit.allows(false) && !permit.allows(true));
    let until = permit.strangers.unwrap().until;
    assert!(until >= START.plus(hours(24)) && until <= START.plus(hours(25)));
    assert!(pacing.ask(&rules, until).allows(true));
}

#[test]
fn known_chats_go_on_while_new_ones_are_limited() {
    let mut pacing = Pacing::default();
    let pause = shut_out(&mut pacing, START, None).unwrap();
    assert_eq!(pause.until, START.plus(hours(1)));
    let just_before = pause.until.minus(ms(1));
    let permit = pacing.clone().ask(&PacingRules::OFF, just_before);
    assert!(permit.allows(false) && !permit.allows(true));
    // What was on its way says it again, and that changes nothing.
    assert_eq!(shut_out(&mut pacing, START.plus(ms(5)), None), None);
    // A time that WhatsApp names counts.
    let named = shut_out(&mut pacing, START.plus(ms(10)), Some(hours(3))).unwrap();
    assert_eq!(
        (named.since, named.until),
        (START, START.plus(ms(10) + hours(3)))
    );
    assert!(pacing.take_over(named.until.minus(ms(1))).is_empty());
    assert_eq!(pacing.take_over(named.until).len(), 1);
    assert!(pacing.take_over(named.until).is_empty());
    assert!(pacing.ask(&PacingRules::OFF, named.until).allows(true));
}

#[test]
fn a_guess_doubles_while_it_was_too_short_and_is_bounded() {
    let mut pacing = Pacing::default();
    let mut now = START;
    let mut lengths = Vec::new();
    for _ in 0..8 {
        let pause = limited(&mut pacing, now, None).unwrap();
        lengths.push(pause.until.since(now).as_secs() / 60);
        now = pause.until.plus(ms(1));
    }
    assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
    // Long after, it is a new story.
    let later = now.plus(hours(24));
    let pause = limited(&mut pacing, later, None);
    assert_eq!(pause.unwrap().until, later.plus(ms(MINUTE_MS)));
}

#[test]
fn a_pause_that_is_over_sooner_is_lifted() {
    let mut pacing = Pacing::default();
    pacing.signal(START, Scope::All, Reason::Banned, None);
    pacing.lift(START, Reason::RateLimited);
    assert!(!pacing.ask(&PacingRules::OFF, START).allows(false));
    pacing.lift(START, Reason::Banned);
    assert!(pacing.ask(&PacingRules::OFF, START).allows(true));
    assert_eq!(pacing.take_over(START).len(), 1);
}

#[test]
fn the_longer_of_two_pauses_counts_and_a_named_one_keeps_the_guesses_before_it() {
    let mut pacing = Pacing::default();
    let guessed = limited(&mut pacing, START, None).unwrap();
    let again = limited(&mut pacing, guessed.until, None).unwrap();
    assert_eq!(again.until, guessed.until.plus(ms(2 * MINUTE_MS)));
    // Shorter than what is left, or as long: no news.
    for named in [ms(1), ms(2 * MINUTE_MS)] {
        assert_eq!(limited(&mut pacing, guessed.until, Some(named)), None);
    }
    assert_eq!(pacing.pauses(guessed.until), [again]);
    let named = limited(&mut pacing, guessed.until, Some(ms(3 * MINUTE_MS))).unwrap();
    // The guess after it goes on where the last one was.
    let third = limited(&mut pacing, named.until, None).unwrap();
    assert_eq!(third.until, named.until.plus(ms(4 * MINUTE_MS)));
}

#[test]
fn a_pause_is_remembered_four_times_as_long_as_it_lasted_whatever_is_lifted() {
    let first = |now: Timestamp| {
        let mut pacing = Pacing::default();
        let pause = limited(&mut pacing, START, None);
        let end = pause.unwrap().until;
        assert_eq!(pacing.take_over(end).len(), 1);
        // A session that is let in says so each time.
        pacing.lift(now, Reason::RateLimited);
        let next = limited(&mut pacing, now, None);
        next.unwrap().until.since(now)
    };
    let forgotten = START.plus(ms(5 * MINUTE_MS));
    assert_eq!(first(forgotten), ms(2 * MINUTE_MS));
    assert_eq!(first(forgotten.plus(ms(1))), ms(MINUTE_MS));
}

#[test]
fn another_number_begins_with_nothing_used_and_no_pause() {
    let mut pacing = Pacing::default();
    pacing.linked(START, "62811");
    pacing.count(START, true, 0.0);
    pacing.signal(START, Scope::All, Reason::Banned, None);
    assert_eq!(pacing.used(START), (1, 1, 1));
    assert!(!pacing.linked(START, "62811"));
    assert_eq!(pacing.pauses(START).len(), 1);
    assert!(pacing.linked(START, "62822"));
    assert_eq!(pacing.used(START), (0, 0, 0));
    assert_eq!(pacing.pauses(START), []);
}

#[test]
fn a_pause_has_a_bound_whatever_whatsapp_names() {
    let mut pacing = Pacing::default();
    let pause = pacing.signal(START, Scope::All, Reason::Banned, Some(Duration::MAX));
    assert_eq!(pause.unwrap().until, START.plus(limits::PAUSE_MAX));
}

#[test]
fn what_is_out_of_range_is_named() {
    assert!(PacingRules::OFF.out_of_range().is_empty());
    assert!(PacingRules::MILD.out_of_range().is_empty());
    let wrong = PacingRules {
        gap: hours(2),
        gap_jitter_percent: 101,
        per_minute: Some(0),
        per_day: Some(u32::MAX),
        strangers_per_day: Some(0),
        warm_up_days: 91,
        warm_up_start_percent: 0,
        ..rules()
    };
    let names: Vec<&str> = wrong.out_of_range().iter().map(|bad| bad.field).collect();
    assert_eq!(
        names,
        [
            "gapMs",
            "gapJitterPercent",
            "perMinute",
            "perDay",
            "strangersPerDay",
            "warmUpDays",
            "warmUpStartPercent"
        ]
    );
}

/// A change of every setting that has a range: gap and its jitter, both budgets of a day alike, warm-up.
fn ranged(
    (gap_ms, percent): (u64, u32),
    (minute, day): (u32, u32),
    (days, start): (u32, u32),
) -> PacingPatch {
    PacingPatch {
        gap_ms: Some(gap_ms),
        gap_jitter_percent: Some(percent),
        per_minute: Some(Some(minute)),
        per_day: Some(Some(day)),
        strangers_per_day: Some(Some(day)),
        warm_up_days: Some(days),
        warm_up_start_percent: Some(start),
        ..PacingPatch::default()
    }
}

/// A change of every setting; `n` tells two of them apart.
fn change(n: u32) -> PacingPatch {
    PacingPatch {
        enabled: Some(n.is_multiple_of(2)),
        typing: Some(n.is_multiple_of(2)),
        ..ranged((n.into(), n), (n, n), (n, n))
    }
}

#[test]
fn a_change_counts_for_each_setting_and_the_later_one_wins() {
    let (one, two, nothing) = (change(1), change(2), PacingPatch::default());
    assert_eq!(one.and(two), two);
    assert_eq!(one.and(nothing), one);
    assert_eq!(nothing.and(one), one);
    let rules = PacingRules::MILD.with(one).with(two);
    let wanted = PacingRules {
        enabled: true,
        gap: ms(2),
        gap_jitter_percent: 2,
        per_minute: Some(2),
        per_day: Some(2),
        strangers_per_day: Some(2),
        warm_up_days: 2,
        warm_up_start_percent: 2,
        typing: true,
    };
    assert_eq!(rules, wanted);
    assert_eq!(rules.with(nothing), wanted);
    let free = PacingPatch {
        per_day: Some(None),
        ..nothing
    };
    assert_eq!(rules.with(two.and(free)).per_day, None);
}

#[test]
fn the_ends_of_each_range_are_in_it() {
    let gap_max = u64::try_from(limits::PACING_GAP_MAX.as_millis()).unwrap();
    let (minute, day) = (limits::PACING_PER_MINUTE_MAX, limits::PACING_PER_DAY_MAX);
    let days = limits::PACING_WARM_UP_DAYS_MAX;
    let lowest = ranged((0, 0), (1, 1), (0, 1));
    let highest = ranged((gap_max, 100), (minute, day), (days, 100));
    for ends in [lowest, highest] {
        assert_eq!(rules().with(ends).out_of_range(), []);
    }
    let one_more = ranged((gap_max + 1, 101), (minute + 1, day + 1), (days + 1, 101));
    assert_eq!(rules().with(one_more).out_of_range().len(), 7);
}

#[test]
fn typing_takes_as_long_as_a_person_would_within_bounds() {
    assert_eq!(typing_time(0, 0.5), limits::TYPING_MIN);
    assert_eq!(typing_time(100_000, 0.5), limits::TYPING_MAX);
    assert_eq!(typing_time(40, 0.5), ms(1800));
    assert!(typing_time(40, 0.0) < typing_time(40, 1.0));
}

#[test]
fn words_read_back() {
    for scope in Scope::ALL {
        assert_eq!(scope.as_str().parse(), Ok(scope));
        assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
    }
    for reason in Reason::ALL {
        assert_eq!(reason.as_str().parse(), Ok(reason));
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Asks, and sends if that is allowed.
    Send {
        stranger: bool,
        random: f64,
    },
    Forward(u64),
    Back(u64),
    Signal {
        new_chats: bool,
        named: Option<u64>,
    },
    /// The process dies and comes back with what was stored.
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let step = prop_oneof![
        0u64..3_000,
        0u64..200_000,
        0u64..DAY_MS / 4,
        0u64..3 * DAY_MS
    ];
    let named = proptest::option::of(0u64..2 * DAY_MS);
    let act = prop_oneof![
        8 => (any::<bool>(), 0.0f64..1.0).prop_map(|(stranger, random)| Act::Send { stranger, random }),
        6 => step.clone().prop_map(Act::Forward),
        1 => step.prop_map(Act::Back),
        1 => (any::<bool>(), named).prop_map(|(new_chats, named)| Act::Signal { new_chats, named }),
        1 => Just(Act::Crash),
    ];
    proptest::collection::vec(act, 1..300)
}

prop_compose! {
    fn any_rules()(
        gap in 0u64..20_000,
        gap_jitter_percent in 0u32..=100,
        per_minute in proptest::option::of(1u32..10),
        per_day in proptest::option::of(1u32..40),
        strangers_per_day in proptest::option::of(1u32..10),
        warm_up_days in 0u32..10,
        warm_up_start_percent in 1u32..=100,
    ) -> PacingRules {
        PacingRules {
            enabled: true,
            gap: ms(gap),
            gap_jitter_percent,
            per_minute,
            per_day,
            strangers_per_day,
            warm_up_days,
            warm_up_start_percent,
            typing: false,
        }
    }
}

/// Remembers everything, by the time that has truly passed: a clock that is put back passes none.
#[derive(Default)]
struct Model {
    passed: u64,
    sends: Vec<(u64, bool)>,
    paused: [u64; 2],
}

impl Model {
    fn within(&self, length: u64, strangers: bool) -> usize {
        let inside =
            |(at, stranger): &&(u64, bool)| self.passed - at < length && (*stranger || !strangers);
        self.sends.iter().filter(inside).count()
    }

    fn check(&self, rules: &PacingRules, stranger: bool) -> Result<(), TestCaseError> {
        let size = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
        if let Some((last, _)) = self.sends.last() {
            prop_assert!(ms(self.passed - last) >= rules.gap);
        }
        prop_assert!(self.within(MINUTE_MS, false) < size(rules.per_minute));
        prop_assert!(self.within(DAY_MS, false) < size(rules.per_day));
        let share = rules.share_percent(ms(self.passed)) as usize;
        let warmed = |limit: Option<u32>| {
            limit.map_or(usize::MAX, |limit| (limit as usize * share / 100).max(1))
        };
        prop_assert!(self.within(DAY_MS, false) < warmed(rules.per_day));
        prop_assert!(self.passed >= self.paused[0]);
        if stranger {
            prop_assert!(self.within(DAY_MS, true) < warmed(rules.strangers_per_day));
            prop_assert!(self.passed >= self.paused[1]);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_limit_is_ever_exceeded(rules in any_rules(), acts in acts()) {
        let mut pacing = Pacing::default();
        let mut model = Model::default();
        let mut now = START;
        pacing.linked(now, "62811");
        for act in acts {
            match act {
                Act::Send { stranger, random } => {
                    if pacing.ask(&rules, now).allows(stranger) {
                        model.check(&rules, stranger)?;
                        pacing.count(now, stranger, random);
                        model.sends.push((model.passed, stranger));
                    }
                }
                Act::Forward(by) => {
                    // The clock may be put back and go on between two looks at it.
                    pacing.ask(&rules, now);
                    now = now.plus(ms(by));
                    model.passed += by;
                }
                Act::Back(by) => {
                    pacing.ask(&rules, now);
                    now = now.minus(ms(by));
                    pacing.ask(&rules, now);
                }
                Act::Signal { new_chats, named } => {
                    let (scope, reason) = if new_chats {
                        (Scope::NewChats, Reason::NewChatsCapped)
                    } else {
                        (Scope::All, Reason::RateLimited)
                    };
                    if let Some(pause) = pacing.signal(now, scope, reason, named.map(ms)) {
                        let length = u64::try_from(pause.until.since(now).as_millis()).unwrap();
                        model.paused[usize::from(new_chats)] = model.passed + length;
                    }
                }
                Act::Crash => {
                    let stored = serde_json::to_string(&pacing).unwrap();
                    let read: Pacing = serde_json::from_str(&stored).unwrap();
                    prop_assert_eq!(&read, &pacing);
                    pacing = read;
                }
            }
        }
    }

    #[test]
    fn a_hold_ends_when_it_says(rules in any_rules(), acts in acts(), stranger: bool) {
        let mut pacing = Pacing::default();
        let mut now = START;
        pacing.linked(now, "62811");
        for act in acts {
            match act {
                Act::Send { stranger, random } => {
                    if pacing.ask(&rules, now).allows(stranger) {
                        pacing.count(now, stranger, random);
                    }
                }
                Act::Forward(by) => now = now.plus(ms(by)),
                Act::Back(by) => now = now.minus(ms(by)),
                Act::Signal { named, .. } => {
                    shut_out(&mut pacing, now, named.map(ms));
                }
                Act::Crash => {}
            }
            let permit = pacing.ask(&rules, now);
            let hold = if stranger { permit.strangers } else { permit.all };
            if let Some(hold) = hold {
                prop_assert!(hold.until > now);
                prop_assert!(hold.until <= now.plus(limits::PAUSE_MAX));
                // With nothing sent meanwhile; a copy, since time does not run back.
                prop_assert!(pacing.clone().ask(&rules, hold.until).allows(stranger));
            }
        }
    }

    #[test]
    fn a_patch_changes_what_it_names(rules in any_rules(), gap in 0u64..5_000) {
        prop_assert_eq!(rules.with(PacingPatch::default()), rules);
        let patch = PacingPatch { gap_ms: Some(gap), per_day: Some(None), ..PacingPatch::default() };
        let want = PacingRules { gap: ms(gap), per_day: None, ..rules };
        prop_assert_eq!(rules.with(patch), want);
        let stored = serde_json::to_string(&patch).unwrap();
        prop_assert_eq!(serde_json::from_str::<PacingPatch>(&stored).unwrap(), patch);
        let earlier = PacingPatch { gap_ms: Some(1), typing: Some(true), ..PacingPatch::default() };
        prop_assert_eq!(rules.with(earlier.and(patch)), rules.with(earlier).with(patch));
    }
}
