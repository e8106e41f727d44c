//! Goal: the rules of one session hold whatever happens in whatever order. Method: the pure core against
//! a small model of queue and device, driven by random events.

use proptest::prelude::*;

use super::*;

/// What a proptest may do to a core.
#[derive(Clone, Debug)]
enum Op {
    Enqueue(usize),
    Wake,
    Connect,
    Disconnect,
    Ack(usize),
    Nack(usize),
    AckTimeout(usize),
    CallReturns(usize, bool),
    SessionDown(usize),
    DeviceSettles,
    DeviceFaults,
    LoggedOutByPhone,
    Restart,
    Stop,
    Later,
}

fn op() -> impl Strategy<Value = Op> {
    let message = 0..6_usize;
    prop_oneof![
        4 => message.clone().prop_map(Op::Enqueue),
        3 => Just(Op::Wake),
        3 => Just(Op::Connect),
        2 => Just(Op::Disconnect),
        6 => message.clone().prop_map(Op::Ack),
        2 => message.clone().prop_map(Op::Nack),
        2 => message.clone().prop_map(Op::AckTimeout),
        8 => (0..8_usize, any::<bool>()).prop_map(|(n, ok)| Op::CallReturns(n, ok)),
        1 => (0..8_usize).prop_map(Op::SessionDown),
        6 => Just(Op::DeviceSettles),
        1 => Just(Op::DeviceFaults),
        1 => Just(Op::LoggedOutByPhone),
        1 => Just(Op::Restart),
        1 => Just(Op::Stop),
        2 => Just(Op::Later),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Queued,
    /// Claimed; whether it was sent under this claim.
    Claimed {
        sent: bool,
    },
    Finished,
}

/// The queue, the device and the calls in progress, as the core's surroundings would be.
struct Model {
    core: Core,
    now: Timestamp,
    generation: i64,
    rows: BTreeMap<WaMessageId, Row>,
    calls: Vec<(WaMessageId, u64)>,
    opening: bool,
    ending: bool,
    up: bool,
    online: bool,
}

impl Model {
    fn new() -> Model {
        let mut model = Model {
            core: core(Desired::Running),
            now: NOW,
            generation: 1,
            rows: BTreeMap::new(),
            calls: Vec::new(),
            opening: false,
            ending: false,
            up: false,
            online: false,
        };
        let effects = model.core.begin(NOW);
        model.carry_out(effects);
        model
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.step(self.now, [input]);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut claim = None;
        for effect in effects {
            match effect {
                Effect::Open => {
                    assert!(!self.up && !self.opening, "two devices at once");
                    self.opening = true;
                }
                Effect::Stop | Effect::Logout => self.ending = true,
                Effect::Claim { asked } => {
                    assert_eq!(claim, None, "two claims at once");
                    assert!(self.online, "a claim without a connection");
                    claim = Some(asked);
                }
                Effect::Send { wa_id, flight } => {
                    let row = self.rows.get_mut(&wa_id).unwrap();
                    assert_eq!(
                        *row,
                        Row::Claimed { sent: false },
                        "a second send for one claim"
                    );
                    *row = Row::Claimed { sent: true };
                    self.calls.push((wa_id, flight));
                }
                Effect::Retry { wa_id, .. }
                | Effect::PutBack { wa_id }
                | Effect::Hold { wa_id, .. } => {
                    let row = self.rows.get_mut(&wa_id).unwrap();
                    // An acknowledgement may have finished it: the store then ignores this.
                    if *row != Row::Finished {
                        assert!(
                            matches!(*row, Row::Claimed { .. }),
                            "an outcome without a claim"
                        );
                        *row = Row::Queued;
                    }
                }
                Effect::Fail { wa_id, .. } => {
                    let row = self.rows.get_mut(&wa_id).unwrap();
                    assert!(
                        matches!(*row, Row::Claimed { .. }),
                        "a failure without a claim"
                    );
                    *row = Row::Finished;
                }
                Effect::Acked { wa_id } => {
                    if let Some(row) = self.rows.get_mut(&wa_id) {
                        *row = Row::Finished;
                    }
                }
                _ => {}
            }
        }
        let claims = |row: &&Row| matches!(row, Row::Claimed { .. });
        assert!(
            self.rows.values().filter(claims).count() <= 3,
            "more on their way than allowed"
        );
        if let Some(asked) = claim {
            self.claim(asked);
        }
    }

    fn claim(&mut self, asked: usize) {
        let due: Vec<WaMessageId> = self
            .rows
            .iter()
            .filter(|(_, row)| **row == Row::Queued)
            .map(|(wa_id, _)| wa_id.clone())
            .take(asked)
            .collect();
        for wa_id in &due {
            self.rows
                .insert(wa_id.clone(), Row::Claimed { sent: false });
        }
        let claimed = due.into_iter().map(|wa_id| (wa_id, 1)).collect();
        self.input(Input::Claimed { claimed, asked });
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Enqueue(n) => {
                self.rows.entry(wa_id(n)).or_insert(Row::Queued);
                self.input(Input::Wake);
            }
            Op::Wake => self.input(Input::Wake),
            Op::Connect if self.up && !self.online => {
                self.online = true;
                self.input(Input::Device(EngineEvent::Connected(identity())));
            }
            Op::Disconnect if self.online => {
                self.online = false;
                let retry_at = self.now.plus(Duration::from_secs(1));
                let reason = "reset".to_owned();
                self.input(Input::Device(EngineEvent::Disconnected {
                    reason,
                    retry_at,
                }));
            }
            Op::Ack(n) if self.online => self.answer(n, None),
            Op::Nack(n) if self.online => self.answer(n, Some(503)),
            Op::AckTimeout(n) if self.up => {
                self.input(Input::Device(EngineEvent::AckTimeout { wa_id: wa_id(n) }));
            }
            Op::CallReturns(n, written) => self.call_returns(n, written, Fault::Timeout),
            Op::SessionDown(n) => self.call_returns(n, false, Fault::NotConnected),
            Op::DeviceSettles => self.device_settles(),
            Op::DeviceFaults if self.up => {
                self.ends(Ended::Fault {
                    reason: "x".to_owned(),
                });
            }
            Op::LoggedOutByPhone if self.up => {
                self.ends(Ended::LoggedOut {
                    reason: "x".to_owned(),
                });
            }
            Op::Restart | Op::Stop => {
                self.generation += 1;
                let stop = matches!(op, Op::Stop);
                let desired = if stop {
                    Desired::Stopped
                } else {
                    Desired::Running
                };
                self.input(Input::Wanted(want(desired, self.generation)));
            }
            Op::Later => {
                if let Some(at) = self.core.next_tick() {
                    self.now = self.now.max(at);
                    self.input(Input::Tick);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, n: usize, error: Option<u32>) {
        let at = self.now;
        let event = EngineEvent::ServerAck {
            wa_id: wa_id(n),
            chat: None,
            error,
            at,
        };
        self.input(Input::Device(event));
    }

    fn call_returns(&mut self, n: usize, written: bool, fault: Fault) {
        if self.calls.is_empty() {
            return;
        }
        let (wa_id, flight) = self.calls.remove(n % self.calls.len());
        self.input(if written {
            Input::Written { wa_id, flight }
        } else {
            Input::NotWritten {
                wa_id,
                flight,
                verdict: Trouble::Ours(fault).verdict(),
                failure: failure(),
            }
        });
    }

    fn device_settles(&mut self) {
        if self.opening {
            self.opening = false;
            self.up = true;
            self.input(Input::Opened { linked: true });
        } else if self.ending && self.up {
            self.ends(Ended::Stopped);
        }
    }

    fn ends(&mut self, ended: Ended) {
        self.up = false;
        self.online = false;
        self.ending = false;
        self.input(Input::Device(EngineEvent::Ended(ended)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// MP-2: one claim, at most one send, exactly one outcome; nothing is sent without a connection; at
    /// most one device; when the session is over, no message is left claimed.
    #[test]
    fn no_order_of_events_sends_twice_for_one_claim(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut model = Model::new();
        for op in ops {
            if model.core.is_over() {
                break;
            }
            model.run(&op);
        }
        if model.core.is_over() {
            let left = model.rows.values().any(|row| matches!(row, Row::Claimed { .. }));
            prop_assert!(!left, "a claim was left behind: {:?}", model.rows);
        }
    }

    /// Liveness: after any trouble, a connected session with answers from the server finishes everything.
    #[test]
    fn every_message_is_finished_once_the_trouble_is_over(
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut model = Model::new();
        for op in ops {
            if !matches!(op, Op::Stop | Op::LoggedOutByPhone) {
                model.run(&op);
            }
        }
        for _ in 0..200 {
            let unfinished = model.rows.values().any(|row| *row != Row::Finished);
            if !unfinished {
                break;
            }
            model.run(&Op::DeviceSettles);
            model.run(&Op::Connect);
            model.run(&Op::Wake);
            model.run(&Op::CallReturns(0, true));
            for n in 0..6 {
                model.run(&Op::Ack(n));
            }
            model.run(&Op::Later);
        }
        prop_assert!(model.rows.values().all(|row| *row == Row::Finished), "{:?}", model.rows);
    }
}
