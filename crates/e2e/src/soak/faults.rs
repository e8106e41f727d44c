//! Carries out faults: each begins, lasts as long as the plan says, and is over when this returns.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wagate_network::faults::{Action, FaultRule, Match, StanzaMatch, When};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::Network;

use super::journal::{Book, Broken, Shift};
use super::keeper::{Hand, Order};
use super::plan::{Bad, Fault};
use super::rig::Rig;

/// How long a receipt may be overtaken.
const REORDER_MS: u64 = 2_000;

/// Whatever faults need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Breaker {
    network: Network,
    book: Arc<Book>,
    hands: Vec<Hand>,
    owners: Arc<Vec<PhoneHandle>>,
    file: Arc<PathBuf>,
    clocks: Arc<Vec<PathBuf>>,
}

impl Breaker {
    pub fn new(rig: &Rig) -> Self {
        let owners = rig.slots.iter().map(|slot| slot.owner.clone()).collect();
        Self {
            network: rig.network.clone(),
            book: Arc::clone(&rig.book),
            hands: rig.hands.clone(),
            owners: Arc::new(owners),
            file: Arc::new(rig.database_file()),
            clocks: Arc::new(rig.clocks.clone()),
        }
    }

    /// Breaks something and mends it. The crash of a database server is the rig's.
    pub async fn carry_out(&self, fault: &Fault) {
        self.book.fault(&fault.name());
        let span = Duration::from_millis;
        match fault {
            Fault::Kill { gateway, rest_ms } => {
                let rest = span(*rest_ms);
                self.order(*gateway, Order::Kill { rest, point: None })
                    .await;
            }
            Fault::KillAt {
                gateway,
                point,
                passes,
            } => {
                let point = Some(format!("{point}:{passes}"));
                let rest = Duration::ZERO;
                self.order(*gateway, Order::Kill { rest, point }).await;
            }
            Fault::Stop { gateway } => self.order(*gateway, Order::Stop).await,
            Fault::Freeze { gateway, ms } => {
                self.order(*gateway, Order::Freeze(span(*ms))).await;
            }
            Fault::Full { gateway, ms } => self.order(*gateway, Order::Full(span(*ms))).await,
            Fault::Locked { ms } => self.lock(span(*ms)).await,
            Fault::Clock {
                gateway,
                ahead_ms,
                ms,
            } => {
                self.set_clock(*gateway, *ahead_ms);
                sleep(span(*ms)).await;
                self.set_clock(*gateway, 0);
            }
            Fault::DatabaseCrash => {}
            Fault::Drop { session } => self.owner(*session, PhoneHandle::drop_companions),
            Fault::Silence { session } => self.owner(*session, PhoneHandle::silence_companions),
            Fault::StreamError { session, code } => {
                if let Some(owner) = self.owners.get(*session) {
                    // Known codes are never refused.
                    owner.stream_error(&code.to_string()).await.ok();
                }
            }
            Fault::Away { ms } => self.away(span(*ms)).await,
            Fault::Answers { bad, percent, ms } => {
                self.rules(rules(*bad, *percent), span(*ms)).await;
            }
        }
    }

    async fn order(&self, gateway: usize, order: Order) {
        if let Some(hand) = self.hands.get(gateway) {
            hand.order(order).await;
        }
    }

    fn owner(&self, session: usize, act: impl Fn(&PhoneHandle)) {
        if let Some(owner) = self.owners.get(session) {
            act(owner);
        }
    }

    /// Moves a gateway's clock; it sees that a moment later, or at its next start.
    fn set_clock(&self, gateway: usize, ahead: i64) {
        let Some(file) = self.clocks.get(gateway) else {
            return;
        };
        let at = self.network.now();
        self.book.open().shifts.push(Shift { gateway, at, ahead });
        // Moved into place, so that nobody reads half of it.
        let new = file.with_extension("new");
        let written =
            std::fs::write(&new, ahead.to_string()).and_then(|()| std::fs::rename(&new, file));
        if let Err(error) = written {
            self.book
                .mishap(format!("a clock cannot be moved: {error}"));
        }
    }

    /// Holds the write lock as another program would that looks after the file.
    async fn lock(&self, time: Duration) {
        self.book.broken(Broken::Database, self.network.now());
        let file = Arc::clone(&self.file);
        let held = tokio::task::spawn_blocking(move || -> rusqlite::Result<()> {
            let other = rusqlite::Connection::open(&*file)?;
            other.busy_timeout(Duration::from_secs(5))?;
            other.execute_batch("BEGIN IMMEDIATE")?;
            std::thread::sleep(time);
            other.execute_batch("ROLLBACK")
        });
        // A lock that is not had, since the gateway writes all the time, is no fault.
        held.await.ok();
        self.book.mended(Broken::Database, self.network.now());
    }

    /// Nobody is let in, and whoever is in is thrown out.
    async fn away(&self, time: Duration) {
        let rule = FaultRule::new(Match::connect(), Action::Close { abrupt: true });
        let id = self
            .network
            .with_world(|world, _, _| world.faults.add(rule).ok());
        for owner in self.owners.iter() {
            owner.drop_companions();
        }
        sleep(time).await;
        if let Some(id) = id {
            self.network
                .with_world(|world, _, _| world.faults.remove(id));
        }
    }

    async fn rules(&self, rules: Vec<FaultRule>, time: Duration) {
        let ids: Vec<_> = self.network.with_world(|world, _, _| {
            let added = rules.into_iter().map(|rule| world.faults.add(rule).ok());
            added.collect()
        });
        sleep(time).await;
        self.network.with_world(|world, _, _| {
            for id in ids.into_iter().flatten() {
                world.faults.remove(id);
            }
        });
    }
}

fn rules(bad: Bad, percent: u8) -> Vec<FaultRule> {
    let when = When {
        probability: Some(f64::from(percent) / 100.0),
        ..When::default()
    };
    let message = || Match::from_device("message");
    let receipt = || Match::to_device("receipt");
    let faults = match bad {
        Bad::NoAck => vec![(message(), Action::NoAck)],
        Bad::LateAck(ms) => vec![(message(), Action::LateAck { ms })],
        Bad::DoubledAck => {
            let ack = StanzaMatch {
                class: Some("message".to_owned()),
                ..StanzaMatch::tag("ack")
            };
            vec![(Match::to_device("ack").stanza(ack), Action::Duplicate)]
        }
        Bad::Nack(code) => vec![(message(), Action::Nack { code })],
        Bad::LostMessage => vec![(message(), Action::Drop)],
        Bad::DoubledMessage => vec![(message(), Action::Duplicate)],
        Bad::ReorderedReceipts => vec![(receipt(), Action::Reorder { ms: REORDER_MS })],
        Bad::DoubledReceipts => vec![(receipt(), Action::Duplicate)],
        Bad::IqError(code) => ["usync", "encrypt"]
            .map(|xmlns| {
                let action = Action::IqError {
                    code,
                    text: None,
                    backoff: None,
                };
                let iq = Match::from_device("iq").stanza(StanzaMatch::iq(xmlns, None));
                (iq, action)
            })
            .into(),
    };
    faults
        .into_iter()
        .map(|(matches, action)| FaultRule::new(matches, action).when(when.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_carried_out() {
        for bad in [
            Bad::NoAck,
            Bad::LateAck(100),
            Bad::DoubledAck,
            Bad::Nack(479),
            Bad::LostMessage,
            Bad::DoubledMessage,
            Bad::ReorderedReceipts,
            Bad::DoubledReceipts,
            Bad::IqError(503),
        ] {
            for rule in rules(bad, 50) {
                assert!(rule.checked().is_ok(), "{bad:?}");
            }
        }
    }
}
