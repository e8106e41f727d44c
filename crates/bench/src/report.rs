//! One JSON line a scenario.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::calibration;

/// Prints the result of a run that the checker has passed.
pub(crate) fn print(scenario: &str, parameters: &Value, results: &Value) -> Result<()> {
    let verdict = "checked: nothing lost, nothing doubled";
    print_with(verdict, scenario, parameters, results)
}

/// Prints the result of a run in which no messages flow.
pub(crate) fn print_growth(scenario: &str, parameters: &Value, results: &Value) -> Result<()> {
    let verdict = "the ratios of last to first; 1 is flat";
    print_with(verdict, scenario, parameters, results)
}

fn print_with(verdict: &str, scenario: &str, parameters: &Value, results: &Value) -> Result<()> {
    let line = json!({
        "scenario": scenario,
        "version": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "parameters": parameters,
        "results": results,
        "calibration": calibration::measure()?,
        "verdict": verdict,
    });
    println!("{line}");
    Ok(())
}

/// A histogram of microseconds, in milliseconds.
pub(crate) fn latencies(histogram: &Histogram<u64>) -> Value {
    let at = |quantile: f64| to_ms(histogram.value_at_quantile(quantile));
    json!({
        "p50_ms": at(0.5),
        "p90_ms": at(0.9),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": to_ms(histogram.max()),
        "samples": histogram.len(),
    })
}

fn to_ms(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
}

/// A quotient for the report, rounded to three places.
pub(crate) fn ratio(number: u64, by: u64) -> f64 {
    let wide = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
    if by == 0 {
        0.0
    } else {
        (wide(number) / wide(by) * 1000.0).round() / 1000.0
    }
}
