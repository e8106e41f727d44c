//! Keeps one gateway running: starts it again whenever it has died, and kills, stops and freezes it when
//! it is told to. The only one who holds the process.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use wagate_network::network::Network;

use super::journal::{Book, Broken};
use crate::process::{GatewayProcess, Program, Signal};

/// Lives whose last words are kept.
const LIVES_KEPT: usize = 20;
/// The gateway's own word for a stop that something held up, such as a locked database.
const NOT_IN_TIME: i32 = 3;
const SIGABRT: i32 = 6;
const SIGTERM: i32 = 15;
/// A start that fails is tried again, since the database may be away.
const START_AGAIN: Duration = Duration::from_millis(500);
/// How often in a row a start may fail.
const STARTS_MAX: u32 = 120;
/// A polite stop must end by then.
const STOP_MAX: Duration = Duration::from_secs(40);

/// What the keeper can be told.
#[derive(Debug)]
pub enum Order {
    /// `kill -9`, and a start after a rest. With a point, the next life ends there.
    Kill {
        rest: Duration,
        point: Option<String>,
    },
    Stop,
    Freeze(Duration),
    /// The files may not grow for so long.
    Full(Duration),
    /// No point is armed any more, and the gateway runs.
    Settle,
    /// Tells what the gateway's lives printed last.
    Tell(oneshot::Sender<String>),
}

/// Where the orders go; each is answered when it was carried out.
#[derive(Clone, Debug)]
pub struct Hand {
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    /// The address, while there is somebody behind it.
    pub door: watch::Receiver<Option<String>>,
}

impl Hand {
    /// Gives an order and waits until it was carried out.
    pub async fn order(&self, order: Order) {
        let (done, wait) = oneshot::channel();
        if self.orders.send((order, done)).await.is_ok() {
            // The keeper is gone only when the run is over.
            wait.await.ok();
        }
    }

    /// What the gateway's lives printed last.
    pub async fn said(&self) -> String {
        let (tell, told) = oneshot::channel();
        self.order(Order::Tell(tell)).await;
        told.await.unwrap_or_default()
    }
}

/// Keeps one gateway.
#[derive(Debug)]
pub struct Keeper {
    number: usize,
    program: Program,
    key: String,
    book: Arc<Book>,
    network: Network,
    door: watch::Sender<Option<String>>,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    armed: Option<String>,
    /// What earlier lives printed last.
    said: VecDeque<String>,
    process: GatewayProcess,
}

impl Keeper {
    /// Takes over a running gateway.
    pub fn new(
        number: usize,
        program: Program,
        process: GatewayProcess,
        book: Arc<Book>,
        network: Network,
    ) -> (Self, Hand) {
        let (orders, taken) = mpsc::channel(8);
        let key = process.client().key().to_owned();
        let (door, seen) = watch::channel(Some(process.client().base().to_owned()));
        let keeper = Self {
            number,
            program,
            key,
            book,
            network,
            door,
            orders: taken,
            armed: None,
            said: VecDeque::new(),
            process,
        };
        (keeper, Hand { orders, door: seen })
    }

    /// Until nobody gives orders any more.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some((order, done)) => {
                        self.obey(order).await;
                        // Whoever asked may have given up waiting.
                        done.send(()).ok();
                    }
                    None => return,
                },
                ended = self.process.exited() => self.died(ended.ok()).await,
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Kill { rest, point } => {
                self.armed = point;
                self.kill().await;
                sleep(rest).await;
                self.start().await;
            }
            Order::Stop => {
                self.close(Broken::Gateway(self.number));
                let told = self.process.signal(Signal::TERM).is_ok();
                let ended = self.process.ended(STOP_MAX).await;
                let fine = ended.as_ref().is_ok_and(|status| {
                    status.success()
                        || status.code() == Some(NOT_IN_TIME)
                        || status.signal() == Some(SIGTERM)
                        || self.was_armed(status)
                });
                if told && !fine {
                    let output = self.process.output();
                    self.book
                        .mishap(format!("a polite stop ended badly: {ended:?}\n{output}"));
                    self.kill().await;
                }
                self.armed = None;
                self.start().await;
            }
            Order::Freeze(time) => {
                self.book
                    .broken(Broken::Asleep(self.number), self.network.now());
                let stopped = self.process.signal(Signal::STOP).is_ok();
                sleep(time).await;
                if stopped {
                    self.process.signal(Signal::CONT).ok();
                }
                self.book
                    .mended(Broken::Asleep(self.number), self.network.now());
            }
            Order::Full(time) => {
                self.book.broken(Broken::Database, self.network.now());
                // It may be dead just now, and its next life has all the room again.
                self.process.bound_files(Some(4096)).await.ok();
                sleep(time).await;
                self.process.bound_files(None).await.ok();
                self.book.mended(Broken::Database, self.network.now());
            }
            Order::Tell(to) => {
                let lives = self.said.iter().cloned();
                let lives: Vec<String> = lives.chain([self.process.output()]).collect();
                // Whoever asked may have given up waiting.
                to.send(lives.join("\n--\n")).ok();
            }
            Order::Settle => {
                if self.armed.take().is_some() {
                    self.kill().await;
                    self.start().await;
                } else if let Ok(Some(status)) = self.process.try_exited() {
                    self.died(Some(status)).await;
                }
            }
        }
    }

    /// It ended by itself: at its point, or for a reason that is a bug.
    async fn died(&mut self, status: Option<ExitStatus>) {
        self.close(Broken::Gateway(self.number));
        let expected = status.as_ref().is_some_and(|status| self.was_armed(status));
        match (expected, self.armed.take()) {
            (true, Some(point)) => {
                let name = point.split(':').next().unwrap_or_default();
                self.book.fault(&format!("died_at_{name}"));
                self.book.open().kills += 1;
            }
            _ => {
                let output = self.process.output();
                self.book.mishap(format!(
                    "the gateway ended by itself ({status:?}):\n{output}"
                ));
            }
        }
        self.start().await;
    }

    fn was_armed(&self, status: &ExitStatus) -> bool {
        self.armed.is_some() && status.signal() == Some(SIGABRT)
    }

    async fn kill(&mut self) {
        self.close(Broken::Gateway(self.number));
        if self.process.pid().is_some() {
            self.book.open().kills += 1;
            self.process.kill().await.ok();
        }
    }

    fn close(&self, what: Broken) {
        self.door.send_replace(None);
        self.book.broken(what, self.network.now());
    }

    /// Starts it again, however long the database is away.
    async fn start(&mut self) {
        let mut program = self.program.clone();
        if let Some(point) = &self.armed {
            program.set("WAGATE_TESTING__ABORT_AT", point);
        }
        for tries in 1.. {
            match GatewayProcess::start(&program, Some(&self.key)).await {
                Ok(process) => {
                    let before = std::mem::replace(&mut self.process, process);
                    if self.said.len() == LIVES_KEPT {
                        self.said.pop_front();
                    }
                    self.said.push_back(before.output());
                    let base = self.process.client().base().to_owned();
                    self.door.send_replace(Some(base));
                    break;
                }
                // It may die at its point before it listens, or find the database away.
                Err(error) if tries >= STARTS_MAX => {
                    self.book
                        .mishap(format!("the gateway does not start: {error:#}"));
                    return;
                }
                Err(_) => sleep(START_AGAIN).await,
            }
        }
        self.book
            .mended(Broken::Gateway(self.number), self.network.now());
    }
}
