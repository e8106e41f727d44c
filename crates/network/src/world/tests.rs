//! Tests of the pure world: stanzas in, stanzas out, no socket and no clock but the test's own.
//!
//! [`Net`] holds a world, its time, and what was sent to each connection; companions have real keys, so
//! that linking is checked as it is in earnest.

mod bring_up;
mod failures;
mod faults;
mod linking;
mod messages;
mod offline;
mod receipts;
mod scenario;
mod social;

use std::collections::HashMap;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use wacore_libsignal::protocol::KeyPair;
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::{
    ADVDeviceIdentity, ADVSignedDeviceIdentity, ClientPayload, client_payload,
};

use super::{
    AccountId, AccountSpec, ConnId, DeviceId, Effect, Hello, Millis, NetworkEvent, World,
    WorldOptions,
};
use crate::jid::Jid;
use crate::node::Node;
use crate::phone::{AcceptedCompanion, PhoneKeys, Prekey, SignedPrekey};

/// A Monday in 2026.
const START: Millis = 1_780_000_000_000;

/// A world under test.
pub(crate) struct Net {
    pub(crate) world: World,
    pub(crate) now: Millis,
    rng: StdRng,
    next_conn: ConnId,
    identities: HashMap<AccountId, KeyPair>,
    sent: HashMap<ConnId, Vec<Node>>,
    phones: HashMap<AccountId, Vec<Node>>,
    closed: HashMap<ConnId, bool>,
    silenced: Vec<ConnId>,
    greeted: Vec<(AccountId, DeviceId)>,
    events: Vec<NetworkEvent>,
}

/// A client's device as the client knows it.
#[derive(Clone)]
pub(crate) struct Companion {
    pub(crate) account: AccountId,
    pub(crate) phone: String,
    pub(crate) device: DeviceId,
    pub(crate) conn: ConnId,
    identity: KeyPair,
    static_key: [u8; 32],
}

impl Net {
    pub(crate) fn new() -> Self {
        Self::with(WorldOptions::default())
    }

    pub(crate) fn with(options: WorldOptions) -> Self {
        Self {
            world: World::new(options),
            now: START,
            rng: StdRng::seed_from_u64(7),
            next_conn: 1,
            identities: HashMap::new(),
            sent: HashMap::new(),
            phones: HashMap::new(),
            closed: HashMap::new(),
            silenced: Vec::new(),
            greeted: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Runs a call of the world and sorts its effects.
    pub(crate) fn run<R>(
        &mut self,
        call: impl FnOnce(&mut World, Millis, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = call(&mut self.world, self.now, &mut out);
        for effect in out {
            match effect {
                Effect::Send { conn, node, .. } => {
                    assert!(
                        !self.closed.contains_key(&conn),
                        "sent to a closed connection: {node}"
                    );
                    self.sent.entry(conn).or_default().push(node);
                }
                Effect::Close { conn, abrupt } => {
                    self.closed.insert(conn, abrupt);
                }
                Effect::Silence { conn } => self.silenced.push(conn),
                Effect::Phone { account, node } => {
                    self.phones.entry(account).or_default().push(node);
                }
                Effect::Greet { account, device } => self.greeted.push((account, device)),
                Effect::Event(event) => self.events.push(event),
            }
        }
        result
    }

    pub(crate) fn account(&mut self, phone: &str) -> AccountId {
        self.account_of(AccountSpec {
            phone: phone.to_owned(),
            ..AccountSpec::default()
        })
    }

    pub(crate) fn account_of(&mut self, spec: AccountSpec) -> AccountId {
        let identity = KeyPair::generate(&mut self.rng);
        let keys = PhoneKeys {
            registration_id: 77,
            identity: public(&identity),
            signed_prekey: SignedPrekey {
                id: 1,
                public: [1; 32],
                signature: [2; 64],
            },
            prekeys: (1..=10)
                .map(|id| Prekey {
                    id,
                    public: [3; 32],
                })
                .collect(),
        };
        let id = self
            .run(|world, now, _| world.create_account(now, spec, &keys))
            .unwrap();
        self.identities.insert(id, identity);
        id
    }

    /// Opens a connection that wants to be linked; answers its first QR reference.
    pub(crate) fn register(&mut self) -> (Companion, String) {
        let identity = KeyPair::generate(&mut self.rng);
        let static_key = public(&KeyPair::generate(&mut self.rng));
        let conn = self.conn();
        let payload = registration_payload(public(&identity));
        self.hello(conn, payload, static_key);
        let offer = self.take(conn).remove(0);
        let references: Vec<_> = offer
            .path(&["pair-device"])
            .unwrap()
            .all("ref")
            .filter_map(Node::text)
            .collect();
        assert_eq!(references.len(), 6);
        self.say(
            conn,
            Node::new("iq")
                .attr("type", "result")
                .attr("id", id(&offer)),
        );
        let companion = Companion {
            account: AccountId(u32::MAX),
            phone: String::new(),
            device: 0,
            conn,
            identity,
            static_key,
        };
        (companion, references[0].clone())
    }

    /// What the phone makes of a companion that it accepts.
    pub(crate) fn accept(
        &mut self,
        account: AccountId,
        companion: &Companion,
    ) -> AcceptedCompanion {
        let key_index = self.world.next_key_index(account);
        let details = ADVDeviceIdentity {
            key_index: Some(key_index),
            ..Default::default()
        }
        .encode_to_vec();
        let phone = self.identities[&account].clone();
        let message = [&[6, 0][..], &details, &public(&companion.identity)].concat();
        let signature = phone.calculate_signature(&message, &mut self.rng).unwrap();
        let signed = ADVSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(public(&phone).to_vec()),
            account_signature: Some(signature.to_vec()),
            ..Default::default()
        };
        AcceptedCompanion {
            key_index,
            // The HMAC is between phone and companion; the tests' companion does not check it.
            container: signed.encode_to_bytes(),
            key_index_list: Bytes::from_static(b"signed list"),
            key_index_list_timestamp: 5,
        }
    }

    /// The companion's answer to pair-success, signed as it should be.
    pub(crate) fn sign(&mut self, companion: &Companion, success: &Node) -> Node {
        let container = success
            .path(&["pair-success", "device-identity"])
            .unwrap()
            .data()
            .unwrap();
        let mut signed = ADVSignedDeviceIdentity::decode_from_slice(&container).unwrap();
        let message = [
            &[6, 1][..],
            signed.details.as_ref().unwrap(),
            &public(&companion.identity),
            signed.account_signature_key.as_ref().unwrap(),
        ]
        .concat();
        let signature = companion
            .identity
            .calculate_signature(&message, &mut self.rng)
            .unwrap();
        signed.device_signature = Some(signature.to_vec());
        Node::new("iq")
            .attr("type", "result")
            .attr("id", id(success))
            .child(
                Node::new("pair-device-sign")
                    .child(Node::new("device-identity").bytes(signed.encode_to_vec())),
            )
    }

    /// Links a new companion by QR; it is not logged in yet.
    pub(crate) fn link(&mut self, account: AccountId) -> Companion {
        let (mut companion, reference) = self.register();
        let accepted = self.accept(account, &companion);
        let device = self
            .run(|world, now, out| world.complete_link(now, &reference, account, accepted, out))
            .unwrap();
        let success = self.take(companion.conn).remove(0);
        let answer = self.sign(&companion, &success);
        self.say(companion.conn, answer);
        assert_eq!(code(&self.take(companion.conn).remove(0)), "515");
        self.run(|world, now, out| world.closed(now, companion.conn, out));
        companion.account = account;
        companion.device = device;
        companion.phone = self
            .world
            .account(account)
            .unwrap()
            .phone
            .clone()
            .into_owned();
        companion
    }

    /// Logs a companion in on a new connection.
    pub(crate) fn login(&mut self, companion: &mut Companion) {
        self.login_with(companion, false);
    }

    pub(crate) fn login_with(&mut self, companion: &mut Companion, passive: bool) {
        companion.conn = self.conn();
        let payload = ClientPayload {
            username: companion.phone.parse().ok(),
            device: Some(u32::from(companion.device)),
            passive: Some(passive),
            ..Default::default()
        };
        self.hello(companion.conn, payload, companion.static_key);
    }

    /// A linked companion that is logged in and has taken its (empty) queue.
    pub(crate) fn online(&mut self, account: AccountId) -> Companion {
        let mut companion = self.link(account);
        self.login(&mut companion);
        self.take(companion.conn);
        self.take_phone(account);
        self.events.clear();
        companion
    }

    pub(crate) fn hello(&mut self, conn: ConnId, payload: ClientPayload, static_key: [u8; 32]) {
        let hello = Hello {
            conn,
            payload,
            static_key,
            dictionary: 3,
        };
        self.run(|world, now, out| world.open(now, hello, out));
    }

    pub(crate) fn conn(&mut self) -> ConnId {
        self.next_conn += 1;
        self.next_conn
    }

    /// A client says something.
    pub(crate) fn say(&mut self, conn: ConnId, node: Node) {
        self.run(|world, now, out| world.receive(now, conn, node, out));
    }

    /// A phone says something.
    pub(crate) fn phone_says(&mut self, account: AccountId, node: Node) {
        self.run(|world, now, out| world.from_phone(now, account, node, out));
    }

    /// A client asks and gets its answer, the only stanza sent to it meanwhile.
    pub(crate) fn ask(&mut self, conn: ConnId, node: Node) -> Node {
        self.take(conn);
        self.say(conn, node);
        let mut answers = self.take(conn);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// What was sent to a connection since the last call.
    pub(crate) fn take(&mut self, conn: ConnId) -> Vec<Node> {
        self.sent.remove(&conn).unwrap_or_default()
    }

    pub(crate) fn take_phone(&mut self, account: AccountId) -> Vec<Node> {
        self.phones.remove(&account).unwrap_or_default()
    }

    pub(crate) fn advance(&mut self, ms: Millis) {
        self.now += ms;
        self.run(World::tick_call);
    }

    pub(crate) fn drop_connection(&mut self, companion: &Companion) {
        self.run(|world, now, out| world.closed(now, companion.conn, out));
    }
}

impl World {
    fn tick_call(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.tick(now, out);
    }
}

impl Companion {
    pub(crate) fn pn(&self) -> Jid {
        Jid::pn(self.phone.clone(), self.device)
    }

    pub(crate) fn lid(&self, net: &Net) -> Jid {
        net.world
            .account(self.account)
            .unwrap()
            .lid_jid()
            .with_device(self.device)
    }
}

pub(crate) fn registration_payload(identity: [u8; 32]) -> ClientPayload {
    ClientPayload {
        device_pairing_data: MessageField::some(client_payload::DevicePairingRegistrationData {
            e_regid: Some(vec![0, 0, 1, 2]),
            e_keytype: Some(vec![5]),
            e_ident: Some(identity.to_vec()),
            e_skey_id: Some(vec![0, 0, 1]),
            e_skey_val: Some(vec![8; 32]),
            e_skey_sig: Some(vec![9; 64]),
            ..Default::default()
        }),
        push_name: Some("Ann".to_owned()),
        ..Default::default()
    }
}

pub(crate) fn public(pair: &KeyPair) -> [u8; 32] {
    pair.public_key.public_key_bytes().try_into().unwrap()
}

pub(crate) fn id(node: &Node) -> String {
    node.get("id").unwrap().into_owned()
}

pub(crate) fn code(node: &Node) -> String {
    node.get("code").unwrap_or_default().into_owned()
}

pub(crate) fn tags(nodes: &[Node]) -> Vec<String> {
    nodes
        .iter()
        .map(|node| match node.first() {
            Some(child) if node.is("ib") => child.tag.to_string(),
            _ => node.tag.to_string(),
        })
        .collect()
}

/// A request of a client.
pub(crate) fn iq(kind: &'static str, xmlns: &'static str, child: Node) -> Node {
    Node::new("iq")
        .attr("to", Jid::SERVER)
        .attr("id", "q")
        .attr("type", kind)
        .attr("xmlns", xmlns)
        .child(child)
}

/// A message with a ciphertext for each address.
pub(crate) fn message(message_id: &str, to: &Jid, devices: &[Jid]) -> Node {
    let entries = devices.iter().map(|device| {
        Node::new("to")
            .attr("jid", device)
            .child(enc("msg", device.to_string().as_bytes()))
    });
    Node::new("message")
        .attr("to", to)
        .attr("id", message_id.to_owned())
        .attr("type", "text")
        .child(Node::new("participants").children(entries))
}

pub(crate) fn enc(kind: &'static str, bytes: &[u8]) -> Node {
    Node::new("enc")
        .attr("v", "2")
        .attr("type", kind)
        .bytes(bytes.to_vec())
}

pub(crate) fn receipt(of: &Node, kind: Option<&'static str>) -> Node {
    Node::new("receipt")
        .attr("to", of.value("from").unwrap().clone())
        .attr("id", id(of))
        .attr_opt("type", kind)
}
