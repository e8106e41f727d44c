//! What the machine was worth at that moment, so that figures of two runs can be compared at all.

use std::fs;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use tokio::time::{Duration, Instant};

/// A fixed loop and a fixed write, timed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Calibration {
    /// A fixed integer loop, in microseconds.
    pub(crate) loop_us: u128,
    /// Median of 50 appends of 4 KiB with fdatasync, in microseconds.
    pub(crate) fdatasync_us: u128,
    /// Share of the last ten seconds in which something waited for a CPU, in percent.
    pub(crate) cpu_pressure: f64,
}

/// Takes about 100 ms.
pub(crate) fn measure() -> Result<Calibration> {
    let loop_us = spin(20_000_000).as_micros();

    let mut file = tempfile::tempfile()?;
    let mut waits = Vec::with_capacity(50);
    for _ in 0..50 {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        waits.push(started.elapsed().as_micros());
    }
    waits.sort_unstable();
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let cpu_pressure = pressure
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
        .unwrap_or(0.0);
    Ok(Calibration {
        loop_us,
        fdatasync_us: waits[waits.len() / 2],
        cpu_pressure,
    })
}

/// Times a fixed loop of so many turns.
pub(crate) fn spin(turns: u32) -> Duration {
    let started = Instant::now();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..turns {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    std::hint::black_box(state);
    started.elapsed()
}
