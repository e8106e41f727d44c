//! What a round does and when: drawn from a seed, pure, printable. The same seed gives the same plan;
//! what the machine makes of it differs, and the judge does not mind.

use std::fmt;

use super::dice::Dice;

/// Which database the gateways use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Who is there. Sessions are numbered through over all tenants.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub tenants: usize,
    pub sessions: usize,
    pub contacts: usize,
    pub gateways: usize,
    pub database: Kind,
}

/// How a round is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub seed: u64,
    pub round: u32,
    /// Sends of the round.
    pub sends: u32,
    /// Sends a second.
    pub rate: u32,
    /// Milliseconds between two faults of one track, about.
    pub pause_ms: u64,
    /// The longest that a fault lasts.
    pub longest_ms: u64,
}

/// A round's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub draw: Draw,
    pub steps: Vec<Timed>,
}

/// A step and its time, in milliseconds since the round began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    pub at: u64,
    pub step: Step,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client sends to a contact.
    Send {
        session: usize,
        contact: usize,
        number: u32,
        priority: Priority,
        how: How,
        wish: Wish,
    },
    /// A contact writes to the owner of a session.
    Write {
        contact: usize,
        session: usize,
        number: u32,
    },
    /// A contact reads what it has of a session.
    Read {
        contact: usize,
        session: usize,
    },
    /// A client restarts a session, or disconnects it and connects it after a while.
    Restart {
        session: usize,
    },
    Pause {
        session: usize,
        ms: u64,
    },
    Fault(Fault),
}

/// Which of a session's messages go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// How a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `wait=0`.
    NoWait,
    /// Waits for the acknowledgement, so many seconds.
    Wait(u64),
    /// Hangs up after so many milliseconds, then repeats.
    Cut(u64),
    /// Repeats what was answered already.
    Twice,
    /// Uses the key once more for something else.
    KeyReused,
}

/// What a client asks of a message beside the sending itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// To be sent so much later.
    pub later_ms: Option<u64>,
    /// Not to be sent after so many seconds.
    pub valid_s: Option<u64>,
    /// Withdrawn so long after it was accepted.
    pub withdraw_ms: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start after a while.
    Kill { gateway: usize, rest_ms: u64 },
    /// The same, and the next life ends at a named point.
    KillAt {
        gateway: usize,
        point: &'static str,
        passes: u64,
    },
    /// A polite stop, and a start.
    Stop { gateway: usize },
    /// SIGSTOP for so long.
    Freeze { gateway: usize, ms: u64 },
    /// The files may not grow for so long, as on a full disk.
    Full { gateway: usize, ms: u64 },
    /// Somebody else holds the database's write lock for so long.
    Locked { ms: u64 },
    /// A gateway's clock is so far ahead, or behind, for so long.
    Clock {
        gateway: usize,
        ahead_ms: i64,
        ms: u64,
    },
    /// The database server crashes and is started again.
    DatabaseCrash,
    /// Pulls the cable of a session.
    Drop { session: usize },
    /// A session's connection stays open and dead.
    Silence { session: usize },
    /// A session's connection ends with a stream error.
    StreamError { session: usize, code: u16 },
    /// Nobody can log in for so long, and everybody is thrown out.
    Away { ms: u64 },
    /// WhatsApp's server answers badly for so long.
    Answers { bad: Bad, percent: u8, ms: u64 },
}

/// How WhatsApp's server answers badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    NoAck,
    LateAck(u64),
    DoubledAck,
    Nack(u16),
    LostMessage,
    DoubledMessage,
    ReorderedReceipts,
    DoubledReceipts,
    IqError(u16),
}

/// The points at which a gateway can be told to die.
pub const POINTS: [&str; 6] = [
    "accepted_committed",
    "claimed",
    "written_not_acked",
    "acked_not_committed",
    "inbound_decrypted",
    "inbound_committed",
];

impl Plan {
    /// Draws a round.
    pub fn draw(shape: &Shape, draw: Draw) -> Self {
        let dice = Dice::new(draw.seed).part(u64::from(draw.round) + 1);
        let length = u64::from(draw.sends) * 1000 / u64::from(draw.rate.max(1));
        let mut steps = Vec::new();
        workload(shape, &draw, length, &mut dice.part(1), &mut steps);
        wishes(&mut dice.part(6), &mut steps);
        steering(shape, &draw, length, &mut dice.part(2), &mut steps);
        processes(shape, &draw, length, &mut dice.part(3), &mut steps);
        wires(shape, &draw, length, &mut dice.part(4), &mut steps);
        databases(shape, &draw, length, &mut dice.part(5), &mut steps);
        clocks(shape, &draw, length, &mut dice.part(7), &mut steps);
        steps.sort_by_key(|timed| timed.at);
        Self { draw, steps }
    }

    /// When the last step begins.
    pub fn length_ms(&self) -> u64 {
        self.steps.last().map_or(0, |timed| timed.at)
    }
}

fn workload(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    for number in 0..draw.sends {
        let at = dice.between(0, length);
        let how = match dice.between(0, 99) {
            0..=59 => How::NoWait,
            60..=74 => How::Wait(dice.between(1, 10)),
            75..=89 => How::Cut(dice.between(0, 30)),
            90..=95 => How::Twice,
            _ => How::KeyReused,
        };
        let step = Step::Send {
            session: dice.below(shape.sessions),
            contact: dice.below(shape.contacts),
            number,
            priority: match dice.between(0, 9) {
                0 => Priority::High,
                1 => Priority::Low,
                _ => Priority::Normal,
            },
            how,
            wish: Wish::default(),
        };
        steps.push(Timed { at, step });
    }
    for number in 0..draw.sends / 3 {
        let step = Step::Write {
            contact: dice.below(shape.contacts),
            session: dice.below(shape.sessions),
            number,
        };
        let at = dice.between(0, length);
        steps.push(Timed { at, step });
    }
    for _ in 0..draw.sends / 10 {
        let step = Step::Read {
            contact: dice.below(shape.contacts),
            session: dice.below(shape.sessions),
        };
        let at = dice.between(0, length);
        steps.push(Timed { at, step });
    }
}

/// Gives some sends a wish. Drawn by itself, so that the rest of a seed's plan is as it was without.
fn wishes(dice: &mut Dice, steps: &mut [Timed]) {
    for timed in steps {
        let Step::Send { wish, .. } = &mut timed.step else {
            continue;
        };
        let (kind, later, seconds, soon) = (
            dice.between(0, 99),
            dice.between(500, 5_000),
            dice.between(1, 4),
            dice.between(0, 60),
        );
        match kind {
            0..=69 => {}
            70..=77 => wish.later_ms = Some(later),
            78..=85 => wish.valid_s = Some(seconds),
            86..=95 => wish.withdraw_ms = Some(soon),
            _ => {
                wish.later_ms = Some(later);
                wish.withdraw_ms = Some(soon);
            }
        }
    }
}

/// What clients do to sessions; one after the other for each session.
fn steering(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    let mut at = dice.between(draw.pause_ms, draw.pause_ms * 3);
    while at < length {
        let session = dice.below(shape.sessions);
        let step = if dice.percent(65) {
            Step::Restart { session }
        } else {
            let ms = dice.between(200, draw.longest_ms.max(800) / 4);
            Step::Pause { session, ms }
        };
        steps.push(Timed { at, step });
        at += dice.between(draw.pause_ms, draw.pause_ms * 3);
    }
}

fn processes(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    let mut at = dice.between(draw.pause_ms / 2, draw.pause_ms);
    // Each point comes before any comes again.
    let mut point = dice.below(POINTS.len());
    while at < length {
        let gateway = dice.below(shape.gateways);
        let ms = dice.between(500, draw.longest_ms.max(500));
        let fault = match dice.between(0, 99) {
            0..=29 => Fault::Kill {
                gateway,
                rest_ms: dice.between(0, 1_000),
            },
            30..=79 => {
                point = (point + 1) % POINTS.len();
                Fault::KillAt {
                    gateway,
                    point: POINTS[point],
                    passes: dice.between(0, 12),
                }
            }
            80..=84 => Fault::Stop { gateway },
            85..=92 => Fault::Freeze { gateway, ms },
            _ => Fault::Full { gateway, ms },
        };
        steps.push(Timed {
            at,
            step: Step::Fault(fault),
        });
        at += dice.between(draw.pause_ms / 2, draw.pause_ms * 3 / 2);
    }
}

fn wires(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    let mut at = dice.between(0, draw.pause_ms / 2);
    while at < length {
        let session = dice.below(shape.sessions);
        let ms = dice.between(500, draw.longest_ms.max(500));
        let fault = match dice.between(0, 99) {
            0..=14 => Fault::Drop { session },
            15..=22 => Fault::Silence { session },
            23..=34 => {
                let code = dice.pick(&[500, 503, 515]).unwrap_or(503);
                Fault::StreamError { session, code }
            }
            35..=41 => Fault::Away { ms },
            _ => Fault::Answers {
                bad: bad(dice),
                percent: u8::try_from(dice.between(10, 60)).unwrap_or(50),
                ms,
            },
        };
        steps.push(Timed {
            at,
            step: Step::Fault(fault),
        });
        at += dice.between(draw.pause_ms / 4, draw.pause_ms * 3 / 4);
    }
}

fn bad(dice: &mut Dice) -> Bad {
    match dice.between(0, 10) {
        0 | 1 => Bad::NoAck,
        2 => Bad::LateAck(dice.between(100, 6_000)),
        3 => Bad::DoubledAck,
        // Refused for now, refused for good.
        4 => Bad::Nack(dice.pick(&[500, 503]).unwrap_or(500)),
        5 => Bad::Nack(dice.pick(&[400, 479]).unwrap_or(479)),
        6 => Bad::LostMessage,
        7 => Bad::DoubledMessage,
        8 => Bad::ReorderedReceipts,
        9 => Bad::DoubledReceipts,
        _ => Bad::IqError(dice.pick(&[500, 503]).unwrap_or(503)),
    }
}

fn databases(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    let mut at = dice.between(draw.pause_ms, draw.pause_ms * 4);
    while at < length {
        let fault = match shape.database {
            Kind::Sqlite => Fault::Locked {
                ms: dice.between(200, draw.longest_ms.max(400)),
            },
            Kind::Postgres => Fault::DatabaseCrash,
        };
        steps.push(Timed {
            at,
            step: Step::Fault(fault),
        });
        at += dice.between(draw.pause_ms * 2, draw.pause_ms * 6);
    }
}

/// By seconds, or by long enough that nobody could wait for it; ahead more often, since coming back from
/// there is the harder part.
fn clocks(shape: &Shape, draw: &Draw, length: u64, dice: &mut Dice, steps: &mut Vec<Timed>) {
    let mut at = dice.between(draw.pause_ms / 2, draw.pause_ms * 2);
    while at < length {
        let long = dice.percent(60);
        let by = if long {
            dice.between(20 * 60_000, 60 * 60_000)
        } else {
            dice.between(1_000, 8_000)
        };
        let by = i64::try_from(by).unwrap_or(0);
        let fault = Fault::Clock {
            gateway: dice.below(shape.gateways),
            ahead_ms: if dice.percent(65) { by } else { -by },
            ms: dice.between(500, draw.longest_ms.max(500)),
        };
        steps.push(Timed {
            at,
            step: Step::Fault(fault),
        });
        at += dice.between(draw.pause_ms, draw.pause_ms * 4);
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} round {}: {} steps in {} ms",
            self.draw.seed,
            self.draw.round,
            self.steps.len(),
            self.length_ms()
        )?;
        for Timed { at, step } in &self.steps {
            writeln!(f, "{at:>8} {step:?}")?;
        }
        Ok(())
    }
}

impl Priority {
    /// The word for it in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl Fault {
    /// The kind, for the summary.
    pub fn name(&self) -> String {
        let name = match self {
            Self::Kill { .. } => "kill",
            Self::KillAt { point, .. } => return format!("kill_at_{point}"),
            Self::Stop { .. } => "stop",
            Self::Freeze { .. } => "freeze",
            Self::Full { .. } => "disk_full",
            Self::Locked { .. } => "database_locked",
            Self::Clock { ahead_ms: 0.., .. } => "clock_ahead",
            Self::Clock { .. } => "clock_behind",
            Self::DatabaseCrash => "database_crash",
            Self::Drop { .. } => "drop",
            Self::Silence { .. } => "silence",
            Self::StreamError { code, .. } => return format!("stream_error_{code}"),
            Self::Away { .. } => "server_away",
            Self::Answers { bad, .. } => return bad.name(),
        };
        name.to_owned()
    }
}

impl Bad {
    fn name(self) -> String {
        let name = match self {
            Self::NoAck => "no_ack",
            Self::LateAck(_) => "late_ack",
            Self::DoubledAck => "doubled_ack",
            Self::Nack(code) => return format!("nack_{code}"),
            Self::LostMessage => "lost_message",
            Self::DoubledMessage => "doubled_message",
            Self::ReorderedReceipts => "reordered_receipts",
            Self::DoubledReceipts => "doubled_receipts",
            Self::IqError(code) => return format!("iq_error_{code}"),
        };
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, round: u32) -> Plan {
        let shape = Shape {
            tenants: 2,
            sessions: 4,
            contacts: 4,
            gateways: 2,
            database: Kind::Sqlite,
        };
        let draw = Draw {
            seed,
            round,
            sends: 500,
            rate: 10,
            pause_ms: 1_000,
            longest_ms: 2_000,
        };
        Plan::draw(&shape, draw)
    }

    #[test]
    fn a_seed_and_a_round_give_one_plan() {
        assert_eq!(plan(1, 0).to_string(), plan(1, 0).to_string());
        assert_ne!(plan(1, 0).steps, plan(1, 1).steps);
        assert_ne!(plan(1, 0).steps, plan(2, 0).steps);
    }

    #[test]
    fn a_long_plan_has_every_point_and_stays_in_its_time() {
        let plan = plan(7, 0);
        for point in POINTS {
            let there = plan.steps.iter().any(|timed| {
                matches!(&timed.step, Step::Fault(Fault::KillAt { point: at, .. }) if *at == point)
            });
            assert!(there, "{point}");
        }
        assert!(plan.length_ms() <= 50_000);
        assert!(plan.steps.is_sorted_by_key(|timed| timed.at));
    }
}
