//! What a process has used, from `/proc`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// CPU time and memory of one process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time, in milliseconds (the kernel counts in hundredths of a second).
    pub(crate) cpu_ms: u64,
    /// Anonymous resident memory, in KiB: what the process itself holds, without mapped files.
    pub(crate) rss_anon_kib: u64,
    /// The highest resident memory so far, in KiB.
    pub(crate) rss_peak_kib: u64,
    pub(crate) threads: u64,
}

/// Reads the usage of a process; `None` for this one.
pub(crate) fn usage(pid: Option<u32>) -> Result<Usage> {
    let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let stat = fs::read_to_string(format!("{folder}/stat")).context("the process is gone")?;
    // The name in brackets may hold spaces; the fields are counted behind it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let status = fs::read_to_string(format!("{folder}/status"))?;
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Usage {
        cpu_ms: (ticks(11) + ticks(12)) * 10,
        rss_anon_kib: line("RssAnon:"),
        rss_peak_kib: line("VmHWM:"),
        threads: line("Threads:"),
    })
}

/// One of this process's own threads.
#[derive(Debug)]
pub(crate) struct Thread(PathBuf);

impl Thread {
    /// The thread of that name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        for task in fs::read_dir("/proc/self/task")? {
            let folder = task?.path();
            if fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
                return Ok(Self(folder));
            }
        }
        bail!("there is no thread {name}");
    }

    /// The CPU time that it has taken; exact as soon as it waits for something.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.0.join("schedstat"))?;
        let nanos = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        Ok(Duration::from_nanos(nanos.parse()?))
    }
}
