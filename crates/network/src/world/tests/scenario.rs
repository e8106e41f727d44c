//! A seeded random life of a few accounts under faults: whatever was accepted reaches every device that
//! it was accepted for, each at least once, and the checkers find nothing.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::*;
use crate::faults::{Action, FaultRule, Match, When};
use crate::transcript::Note;

const ACCOUNTS: usize = 4;
const STEPS: usize = 400;

/// A companion with what it saw.
struct Client {
    companion: Companion,
    connected: bool,
    seen: BTreeSet<String>,
}

struct Life {
    net: Net,
    rng: StdRng,
    clients: Vec<Client>,
    written: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut net = Net::with(WorldOptions {
            seed,
            offline_primer: Some(3),
            ..WorldOptions::default()
        });
        let clients = (0..ACCOUNTS)
            .flat_map(|number| {
                let account = net.account(&format!("62811{number}"));
                [net.online(account), net.online(account)]
            })
            .map(|companion| Client {
                companion,
                connected: true,
                seen: BTreeSet::new(),
            })
            .collect();
        for (probability, matches, action) in [
            (0.05, Match::to_device("message"), Action::Drop),
            (0.05, Match::to_device("message"), Action::Delay { ms: 700 }),
            (0.05, Match::to_device("message"), Action::Duplicate),
            (
                0.05,
                Match::to_device("message"),
                Action::Reorder { ms: 500 },
            ),
            (
                0.03,
                Match::to_device("receipt"),
                Action::Close { abrupt: true },
            ),
            (0.03, Match::from_device("message"), Action::Drop),
            (
                0.03,
                Match::from_device("message"),
                Action::Delay { ms: 300 },
            ),
            (
                0.03,
                Match::from_device("message"),
                Action::Nack { code: 500 },
            ),
            (0.03, Match::from_device("message"), Action::NoAck),
            (0.02, Match::from_device("receipt"), Action::Silence),
            (0.05, Match::connect(), Action::StreamEnd),
        ] {
            let when = When {
                probability: Some(probability),
                ..When::default()
            };
            net.world
                .faults
                .add(FaultRule::new(matches, action).when(when))
                .unwrap();
        }
        Self {
            net,
            rng: StdRng::seed_from_u64(seed),
            clients,
            written: 0,
        }
    }

    fn step(&mut self) {
        let at = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..10_u8) {
            0 => {
                let companion = self.clients[at].companion.clone();
                self.net.drop_connection(&companion);
                self.clients[at].connected = false;
            }
            1 | 2 => self.reconnect(at),
            3 => self.net.advance(250),
            _ => self.write(at),
        }
        self.listen();
    }

    /// Leaves, if it is still there, and comes back: a client never holds two connections.
    fn reconnect(&mut self, at: usize) {
        let old = self.clients[at].companion.clone();
        self.net.drop_connection(&old);
        let client = &mut self.clients[at];
        self.net.login(&mut client.companion);
        client.connected = !self.net.closed.contains_key(&client.companion.conn);
    }

    fn write(&mut self, at: usize) {
        if !self.clients[at].connected {
            return;
        }
        let peer = self.rng.random_range(0..self.clients.len());
        let (from, to) = (
            self.clients[at].companion.clone(),
            self.clients[peer].companion.clone(),
        );
        let devices: Vec<_> = [from.account, to.account]
            .iter()
            .flat_map(|account| self.net.world.account(*account).unwrap().devices())
            .map(|device| {
                let owner = self.net.world.account(device.account).unwrap();
                owner.pn().with_device(device.number)
            })
            .filter(|jid| *jid != from.pn())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        self.written += 1;
        let stanza = message(&format!("M{}", self.written), &to.pn().bare(), &devices);
        self.net.say(from.conn, stanza);
    }

    /// Every client takes what it got and confirms it, as clients do.
    fn listen(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.clients.len() {
                let conn = self.clients[at].companion.conn;
                for node in self.net.take(conn) {
                    quiet = false;
                    self.hear(at, conn, &node);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn hear(&mut self, at: usize, conn: ConnId, node: &Node) {
        let confirmation = match node.tag.as_ref() {
            "message" => {
                self.clients[at].seen.insert(id(node));
                let kind = node.value("recipient").map(|_| "sender");
                receipt(node, kind)
            }
            "receipt" | "notification" => Node::new("ack")
                .attr("class", node.tag.to_string())
                .attr("id", id(node))
                .attr("to", node.value("from").unwrap().clone()),
            "stream:error" | "xmlstreamend" => {
                self.clients[at].connected = false;
                return;
            }
            _ => return,
        };
        self.net.say(conn, confirmation);
    }

    /// Lets all faults end and everybody come back.
    fn settle(&mut self) {
        self.net.world.faults.clear();
        self.net.advance(10_000);
        self.listen();
        for _ in 0..2 {
            for at in 0..self.clients.len() {
                self.reconnect(at);
            }
            for _ in 0..STEPS {
                self.net.advance(1_000);
                self.listen();
            }
        }
    }
}

#[test]
fn whatever_was_accepted_arrives_whatever_goes_wrong() {
    for seed in 0..12 {
        let mut life = Life::new(seed);
        for _ in 0..STEPS {
            life.step();
        }
        life.settle();
        let seen: BTreeMap<_, _> = life
            .clients
            .iter()
            .map(|client| {
                (
                    (client.companion.phone.clone(), client.companion.device),
                    &client.seen,
                )
            })
            .collect();
        let mut owed = 0;
        for entry in life.net.world.transcript.entries(0) {
            let Note::Accepted { id, targets, .. } = &entry.note else {
                continue;
            };
            for target in targets.iter().filter(|target| target.device != 0) {
                owed += 1;
                let got = seen[&(target.phone.clone(), target.device)].contains(id);
                assert!(got, "seed {seed}: {id} did not reach {target:?}");
            }
        }
        assert!(owed > 100, "seed {seed} did too little: {owed}");
        for client in &life.clients {
            let device = life
                .net
                .world
                .device(client.companion.account, client.companion.device);
            let left: Vec<_> = device
                .unwrap()
                .unconfirmed()
                .map(ToString::to_string)
                .collect();
            assert!(left.is_empty(), "seed {seed}: {left:?}");
        }
        let report = life.net.world.check();
        assert!(report.ok, "seed {seed}: {report}");
    }
}
