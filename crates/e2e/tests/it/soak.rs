//! Goal: the soak's checkers find what they look for, and nothing else.
//! Method: a small run with no bug is clean; the same run with a planted bug breaks the promise that the
//! bug breaks. A seed that once showed a bug of ours is kept here as a test.

use std::path::Path;
use std::time::Duration;

use wagate_e2e::soak::plan::Kind;
use wagate_e2e::soak::{Soak, Summary};

use crate::support::GATEWAY;

/// The first seed of planted bugs: its small round has every kind of fault that they need.
const SEED: u64 = 163;
/// So many seeds are tried at most; most bugs show with the first.
const SEEDS: u64 = 12;

async fn run(seed: u64, database: Kind, plant: Option<&str>, settle: u64) -> Summary {
    let mut soak = Soak::small(Path::new(GATEWAY), seed, database);
    soak.plant = plant.map(str::to_owned);
    if plant == Some("receipt_dropped") {
        // Only receipts that came while nothing was broken count: there must be some.
        soak.pause_ms = 12_000;
    }
    if plant == Some("new_id_on_retry") {
        // It shows when neither acknowledgement nor receipt of the first copy comes before the next claim.
        soak.pause_ms /= 2;
    }
    soak.settle = Duration::from_secs(settle);
    soak.run(drop).await.unwrap()
}

/// The promises that a run with this bug must be seen to break: one of them at least.
async fn is_found(plant: &str, database: Kind, rules: &[&str]) {
    // Only what hangs for ever needs to be waited for as long as what takes long.
    let settle = if rules.contains(&"R11") { 25 } else { 8 };
    let (mut is_found, mut missed) = (false, Vec::new());
    // A bug shows when a fault meets the right moment; a small run has few of each.
    for seed in SEED..SEED + SEEDS {
        let summary = run(seed, database, Some(plant), settle).await;
        is_found = summary.rules().iter().any(|rule| rules.contains(rule));
        if is_found {
            break;
        }
        missed.extend(summary.breaches);
    }
    assert!(
        is_found,
        "{plant} should break {rules:?}, and broke: {missed:#?}"
    );
}

async fn is_clean(seed: u64, database: Kind) {
    let summary = run(seed, database, None, 40).await;
    assert!(
        summary.breaches.is_empty(),
        "seed {seed}: {:#?}",
        summary.breaches
    );
    assert!(summary.kills >= 3, "only {} kills", summary.kills);
    assert!(summary.sent >= 90, "only {} messages", summary.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_run_breaks_no_promise() {
    is_clean(SEED, Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_small_run_on_postgresql_with_two_gateways_breaks_no_promise() {
    is_clean(SEED, Kind::Postgres).await;
}

macro_rules! planted {
    ($($plant:ident => $rules:expr;)*) => {
        /// Every bug that is planted below.
        const PLANTED: &[&str] = &[$(stringify!($plant),)* "no_fencing"];

        mod planted {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $plant() {
                    is_found(stringify!($plant), Kind::Sqlite, $rules).await;
                }
            )*
        }
    };
}

planted! {
    answer_before_commit => &["R1"];
    queue_row_lost => &["R11"];
    never_released => &["R11"];
    failed_without_reason => &["R1"];
    new_id_on_retry => &["R2"];
    key_ignored => &["R2"];
    cancel_forgotten => &["R5"];
    schedule_ignored => &["R5"];
    validity_ignored => &["R5"];
    status_backwards => &["R4"];
    receipt_dropped => &["R4"];
    newest_first => &["R6"];
    no_limit => &["R10"];
    sent_without_ack => &["R4"];
    signal_not_durable => &["R9"];
    ack_before_commit => &["R3"];
    inbound_dropped => &["R3"];
    inbound_not_deduped => &["R3"];
    event_skipped => &["R4"];
    conflict_is_500 => &["R12"];
}

/// Two gateways are needed to fight over a session.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn no_fencing() {
    is_found("no_fencing", Kind::Postgres, &["R8"]).await;
}

/// The gateway refuses a bug that it does not know, and names those that it does: all of them are
/// planted here.
#[tokio::test(flavor = "multi_thread")]
async fn every_bug_is_planted_and_an_unknown_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = wagate_e2e::process::Program::new(
        GATEWAY.as_ref(),
        folder.path(),
        "ws://127.0.0.1:9/ws/chat",
    );
    program.set("WAGATE_TESTING__PLANT", "no_such_bug");
    let (code, text) = program.run(&["serve"]).await.unwrap();
    assert_ne!(code, Some(0), "{text}");
    let known = text.split("one of: ").nth(1).unwrap();
    let mut known: Vec<&str> = known
        .split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_')
        .filter(|word| word.contains('_'))
        .collect();
    let mut planted = PLANTED.to_vec();
    known.sort_unstable();
    planted.sort_unstable();
    assert_eq!(known, planted, "{text}");
}
