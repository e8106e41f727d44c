//! A database with sessions and nothing else, for what is measured below the gateway.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;
use wagate_domain::session::Desired;
use wagate_domain::{Jid, Timestamp, WorkerId};
use wagate_store::sessions::{self, NewSession};
use wagate_store::{Db, DbOptions, Lease, MasterKey, Sealer, StoreError, Tx, leases, tenants};

use crate::calibration;
use crate::load::histogram;
use crate::process::Thread;
use crate::report;

/// When the rows of a run begin.
const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Longer than any run.
const LEASE: Duration = Duration::from_secs(7 * 24 * 3600);

/// An empty database of the gateway's kind (SQLite, `synchronous=FULL`); removed at the end.
pub(crate) struct Shelf {
    pub(crate) db: Db,
    pub(crate) leases: Vec<Lease>,
    writer: Thread,
    _folder: tempfile::TempDir,
}

impl Shelf {
    /// Makes it, with so many running sessions of one tenant.
    pub(crate) async fn with_sessions(count: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wagate-bench-").tempdir()?;
        let url = format!("sqlite:{}", folder.path().join("wagate.db").display());
        let sealer = Sealer::new(&MasterKey::generate()?, &[]);
        let db = Db::open(DbOptions::new(url), sealer).await?;
        db.migrate().await?;
        let tenant = db.write(|tx| tenants::create(tx, "bench", BEGIN)).await?.id;
        for _ in 0..count {
            let tenant = tenant.clone();
            db.write(move |tx| {
                let session = sessions::create(tx, &tenant, &NewSession::default(), BEGIN)?;
                sessions::set_desired(tx, &tenant, &session.id, Desired::Running, None, BEGIN)
            })
            .await?;
        }
        let worker = WorkerId::parse("bench").context("a worker's name")?;
        let max = u32::try_from(count)?;
        let leases = db
            .write(move |tx| leases::acquire_some(tx, &worker, max, LEASE, BEGIN))
            .await?;
        Ok(Self {
            db,
            leases,
            writer: Thread::named("db-writer")?,
            _folder: folder,
        })
    }

    /// Runs `work` in a transaction of its own; gives what it took there, without the commit.
    pub(crate) async fn timed<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<(R, Duration)> {
        let timed = self.db.write(move |tx| {
            let started = Instant::now();
            let result = work(tx)?;
            Ok((result, started.elapsed()))
        });
        Ok(timed.await?)
    }

    /// Runs `work` in a transaction of its own; gives the CPU time that it takes the database's thread, with
    /// its commit. Waiting for the disk is not in it.
    pub(crate) async fn committed<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<Duration> {
        let before = self.writer.cpu()?;
        self.db.write(work).await?;
        Ok(self.writer.cpu()?.saturating_sub(before))
    }

    /// The same for reading.
    pub(crate) async fn timed_read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<(R, Duration)> {
        let timed = self.db.read(move |tx| {
            let started = Instant::now();
            let result = work(tx)?;
            Ok((result, started.elapsed()))
        });
        Ok(timed.await?)
    }

    pub(crate) async fn close(self) {
        self.db.close().await;
    }
}

/// The time of row number `n`, one each second.
pub(crate) fn at(n: usize) -> Timestamp {
    BEGIN.plus(Duration::from_secs(n as u64))
}

/// The chat of number `n`.
pub(crate) fn chat(n: usize) -> Jid {
    Jid::pn(format!("62812{n:07}"))
}

/// What one operation takes, in nanoseconds, as it is measured again and again.
#[derive(Debug)]
pub(crate) struct Cost(Histogram<u64>);

impl Cost {
    pub(crate) fn new() -> Result<Self> {
        histogram().map(Self)
    }

    /// Notes that `count` operations took that long together.
    pub(crate) fn add(&mut self, took: Duration, count: usize) {
        let each = took.as_nanos() / u128::from(count.max(1) as u64);
        self.0
            .saturating_record(u64::try_from(each).unwrap_or(u64::MAX));
    }

    /// Notes what a fixed loop takes at this moment: see [`Curve`].
    pub(crate) fn add_loop(&mut self) {
        self.add(calibration::spin(500_000), 1);
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "p50_us": report::ratio(self.0.value_at_quantile(0.5), 1000),
            "p99_us": report::ratio(self.0.value_at_quantile(0.99), 1000),
        })
    }
}

/// How a cost grows from step to step. The machine is not equally fast in all of them: each step's cost
/// is taken in proportion to a fixed loop that ran in between.
#[derive(Debug, Default)]
pub(crate) struct Curve(Vec<f64>);

impl Curve {
    /// Adds a step's cost at this quantile.
    pub(crate) fn add(&mut self, cost: &Cost, quantile: f64, fixed: &Cost) {
        let cost = cost.0.value_at_quantile(quantile);
        self.0
            .push(report::ratio(cost, fixed.0.value_at_quantile(0.5)));
    }

    /// How much dearer the last step is than the first.
    pub(crate) fn growth(&self) -> Option<f64> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        Some((last / first * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(micros: u64) -> Cost {
        let mut cost = Cost::new().unwrap();
        cost.add(Duration::from_micros(micros), 1);
        cost
    }

    #[test]
    fn a_slower_machine_is_no_growth() {
        let mut curve = Curve::default();
        curve.add(&cost(1000), 0.5, &cost(100));
        curve.add(&cost(2000), 0.5, &cost(200));
        assert!((curve.growth().unwrap() - 1.0).abs() < 0.01, "{curve:?}");
        curve.add(&cost(2000), 0.5, &cost(100));
        assert!((curve.growth().unwrap() - 2.0).abs() < 0.01, "{curve:?}");
    }
}
