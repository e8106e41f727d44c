//! What this process uses of the machine, as Linux says it in `/proc`.

use std::fs;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux, whatever the kernel's own rate.
const TICKS_PER_SEC: f64 = 100.0;

/// Measures the share of the processor between two looks.
#[derive(Debug)]
pub(crate) struct Usage {
    last: Mutex<(Instant, f64, f64)>,
}

impl Usage {
    pub(crate) fn new() -> Usage {
        Usage {
            last: Mutex::new((Instant::now(), cpu_secs().unwrap_or(0.0), 0.0)),
        }
    }

    /// The share of one core used since the last look, in percent. Looks within a second of each other
    /// get the same answer: shorter spans say nothing.
    pub(crate) fn cpu_percent(&self) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, used, shown) = *last;
        let span = at.elapsed().as_secs_f64();
        if span < 1.0 {
            return shown;
        }
        let now = cpu_secs().unwrap_or(used);
        let percent = ((now - used) / span * 1000.0).round() / 10.0;
        *last = (Instant::now(), now, percent);
        percent
    }

    /// The share of the machine's memory in use by this process, in percent.
    #[expect(clippy::unused_self, reason = "one face for both figures")]
    pub(crate) fn memory_percent(&self) -> f64 {
        let resident = kib_of("/proc/self/status", "VmRSS:");
        let total = kib_of("/proc/meminfo", "MemTotal:");
        match (resident, total) {
            (Some(resident), Some(total)) if total > 0.0 => {
                (resident / total * 1000.0).round() / 10.0
            }
            _ => 0.0,
        }
    }
}

/// Seconds of processor time that the process has used.
fn cpu_secs() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold spaces and parentheses; the fields count from behind it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SEC)
}

fn kib_of(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        assert!(cpu_secs().is_some());
        let resident = kib_of("/proc/self/status", "VmRSS:").unwrap();
        let total = kib_of("/proc/meminfo", "MemTotal:").unwrap();
        assert!(
            resident > 0.0 && resident < total,
            "{resident} of {total} KiB"
        );
        assert!((0.0..100.0).contains(&Usage::new().memory_percent()));
    }
}
