//! The server's side of linking: QR references and pairing codes on a connection that is not linked yet.
//!
//! The companion's secrets never pass here in the clear: by QR they go over the screen, by code they are
//! wrapped for the phone. The server brings both together and checks the result's signature before the
//! device exists.

mod code;

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::Rng as _;
use waproto::buffa::Message as _;
use waproto::whatsapp::{ClientPairingProps, client_payload};

use crate::faults::Action;
use crate::jid::Jid;
use crate::node::Node;
use crate::phone::{AcceptedCompanion, SignedPrekey, verify_device_signature};
use crate::world::devices::Device;
use crate::world::prekeys::{Registration, read_number};
use crate::world::timers::Timer;
use crate::world::turn::{Origin, Turn};
use crate::world::{AccountId, ConnId, DeviceId, Hello, Millis, NetworkEvent, World, WorldError};

/// Who waits under which reference.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_reference: HashMap<String, ConnId>,
    /// The newest pairing-code request per account.
    by_account: HashMap<AccountId, ConnId>,
}

/// A connection that waits to be linked.
#[derive(Debug)]
pub(crate) struct Link {
    registration: Registration,
    push_name: Option<String>,
    /// QR references with the end of each one's time.
    references: Vec<(String, Millis)>,
    code: Option<LinkCode>,
    accepted: Option<Accepted>,
}

/// A link that the phone agreed to; the companion has yet to sign.
#[derive(Debug)]
struct Accepted {
    account: AccountId,
    device: DeviceId,
    companion: AcceptedCompanion,
    /// The id of pair-success, which the companion's answer carries.
    stanza: String,
}

/// Somebody who can be linked by this reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingLink {
    pub conn: ConnId,
    pub reference: String,
    pub companion_identity: [u8; 32],
    /// The name that the client registered with; only some send one.
    pub push_name: Option<String>,
    pub expires_at: Millis,
}

/// A request to be linked by a code that the owner types into the phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCode {
    pub account: AccountId,
    pub conn: ConnId,
    pub reference: String,
    /// The companion's ephemeral key, wrapped under the code: 80 bytes.
    pub wrapped_companion_ephemeral: Bytes,
    /// The companion's static Noise key.
    pub companion_server_auth_key: Bytes,
    pub platform_display: String,
    pub expires_at: Millis,
    /// Answers of the phone so far.
    pub attempts: u32,
}

impl World {
    pub(crate) fn pending_link(&self, reference: &str) -> Option<PendingLink> {
        let conn = *self.links.by_reference.get(reference)?;
        let link = self.connections.get(&conn)?.link.as_ref()?;
        let expires_at = link.expiry(reference)?;
        Some(PendingLink {
            conn,
            reference: reference.to_owned(),
            companion_identity: link.registration.identity,
            push_name: link.push_name.clone(),
            expires_at,
        })
    }

    pub(crate) fn pending_code(&self, account: AccountId) -> Option<LinkCode> {
        let conn = self.links.by_account.get(&account)?;
        self.connections.get(conn)?.link.as_ref()?.code.clone()
    }

    /// Forgets the references of a link whose connection is gone.
    pub(crate) fn forget_link(&mut self, link: &Link) {
        for (reference, _) in &link.references {
            self.links.by_reference.remove(reference);
        }
        if let Some(code) = &link.code {
            self.links.by_reference.remove(&code.reference);
            if self.links.by_account.get(&code.account) == Some(&code.conn) {
                self.links.by_account.remove(&code.account);
            }
        }
    }

    /// A reference as the real ones look: printable, without a comma.
    fn draw_reference(&mut self) -> String {
        let mut bytes = [0_u8; 48];
        self.rng.fill_bytes(&mut bytes);
        format!("2@{}", STANDARD.encode(bytes))
    }

    fn link_mut(&mut self, conn: ConnId) -> Option<&mut Link> {
        self.connections.get_mut(&conn)?.link.as_deref_mut()
    }
}

impl Link {
    fn expiry(&self, reference: &str) -> Option<Millis> {
        if let Some(code) = self
            .code
            .as_ref()
            .filter(|code| code.reference == reference)
        {
            return Some(code.expires_at);
        }
        self.references
            .iter()
            .find(|(known, _)| known == reference)
            .map(|(_, until)| *until)
    }
}

impl Turn<'_> {
    /// Gives a registration its QR references.
    pub(crate) fn offer_link(&mut self, hello: &Hello) {
        let conn = hello.conn;
        let Some(registration) = read_registration(&hello.payload.device_pairing_data) else {
            self.protocol_error(Origin::Unlinked(conn), "registration without usable keys");
            let action = Action::Failure {
                reason: 400,
                code: None,
                expire: None,
                location: None,
                message: None,
                url: None,
            };
            self.disturb(Origin::Unlinked(conn), &action, None);
            return;
        };
        let options = &self.world.options;
        let (count, first, next) = (
            options.qr_references,
            options.qr_first_ttl_ms,
            options.qr_next_ttl_ms,
        );
        let mut until = self.now + first;
        let mut references = Vec::with_capacity(count);
        for _ in 0..count {
            let reference = self.world.draw_reference();
            self.world
                .links
                .by_reference
                .insert(reference.clone(), conn);
            self.world.timers.at(until, Timer::Link(conn));
            references.push((reference, until));
            until += next;
        }
        let shown = references.first().map(|(reference, _)| reference.clone());
        let offer = Node::new("pair-device").children(
            references
                .iter()
                .map(|(reference, _)| Node::new("ref").bytes(reference.clone().into_bytes())),
        );
        let link = Link {
            registration,
            push_name: hello.payload.push_name.clone(),
            references,
            code: None,
            accepted: None,
        };
        if let Some(connection) = self.world.connections.get_mut(&conn) {
            connection.link = Some(Box::new(link));
        }
        let stanza = self.server_request("md", offer);
        self.emit(Origin::Unlinked(conn), stanza);
        if let Some(reference) = shown {
            self.event(NetworkEvent::Waiting { conn, reference });
        }
    }

    /// Takes back what has expired; a connection with nothing left to wait for is closed.
    pub(crate) fn expire_links(&mut self, conn: ConnId) {
        let now = self.now;
        let Some(link) = self.world.link_mut(conn) else {
            return;
        };
        if link.accepted.is_some() {
            return;
        }
        let mut gone = Vec::new();
        link.references.retain(|(reference, until)| {
            let keep = *until > now;
            if !keep {
                gone.push(reference.clone());
            }
            keep
        });
        let old_code = link.code.take_if(|code| code.expires_at <= now);
        let empty = link.references.is_empty() && link.code.is_none();
        for reference in gone {
            self.world.links.by_reference.remove(&reference);
        }
        if let Some(code) = old_code {
            self.world.links.by_reference.remove(&code.reference);
            if self.world.links.by_account.get(&code.account) == Some(&conn) {
                self.world.links.by_account.remove(&code.account);
            }
        }
        if empty {
            self.disturb(Origin::Unlinked(conn), &Action::StreamEnd, None);
        }
    }

    /// Sends pair-success to the companion that waits under a reference.
    pub(crate) fn pair_success(
        &mut self,
        reference: &str,
        account: AccountId,
        companion: AcceptedCompanion,
    ) -> Result<DeviceId, WorldError> {
        let pending = self
            .world
            .pending_link(reference)
            .ok_or(WorldError::UnknownReference)?;
        if pending.expires_at <= self.now {
            return Err(WorldError::UnknownReference);
        }
        let max = self.world.options.companions_max;
        let stanza = self.stanza_id();
        let owner = self
            .world
            .account_mut(account)
            .ok_or(WorldError::UnknownAccount(account))?;
        if !owner.is_registered() {
            return Err(WorldError::UnknownAccount(account));
        }
        if owner.devices.len() > max {
            return Err(WorldError::TooManyCompanions { account, max });
        }
        let device = owner.next_device;
        owner.next_device += 1;
        let success = pair_success_node(owner, device, &companion);
        let conn = pending.conn;
        let stanza_node = Node::new("iq")
            .attr("from", Jid::SERVER)
            .attr("type", "set")
            .attr("xmlns", "md")
            .attr("id", stanza.clone())
            .attr("t", self.seconds())
            .child(success);
        if let Some(link) = self.world.link_mut(conn) {
            link.accepted = Some(Accepted {
                account,
                device,
                companion,
                stanza,
            });
        }
        // Used up: nobody else can be linked by what is still on the screen.
        self.withdraw_references(conn);
        self.emit(Origin::Unlinked(conn), stanza_node);
        Ok(device)
    }

    fn withdraw_references(&mut self, conn: ConnId) {
        let Some(connection) = self.world.connections.get_mut(&conn) else {
            return;
        };
        let Some(mut link) = connection.link.take() else {
            return;
        };
        self.world.forget_link(&link);
        link.references.clear();
        link.code = None;
        if let Some(connection) = self.world.connections.get_mut(&conn) {
            connection.link = Some(link);
        }
    }

    /// The companion's answer to pair-success (or to the offer of references, which needs nothing).
    pub(crate) fn link_answer(&mut self, conn: ConnId, node: &Node) {
        let id = node.get("id").unwrap_or_default();
        let Some(link) = self.world.link_mut(conn) else {
            return;
        };
        if link
            .accepted
            .as_ref()
            .is_none_or(|accepted| accepted.stanza != id)
        {
            return;
        }
        let Some(accepted) = link.accepted.take() else {
            return;
        };
        let registration = link.registration.clone();
        let push_name = link.push_name.clone();
        match self.check_answer(conn, node, &registration, accepted.account) {
            Ok(blob) => self.finish_link(conn, accepted, &registration, push_name, blob),
            Err(reason) => {
                self.event(NetworkEvent::LinkRefused {
                    account: accepted.account,
                    reason,
                });
                let action = Action::StreamError {
                    code: Some(401),
                    detail: None,
                    close: true,
                };
                self.disturb(Origin::Unlinked(conn), &action, None);
            }
        }
    }

    /// The signed blob of a companion's answer, or why the link comes to nothing.
    fn check_answer(
        &mut self,
        conn: ConnId,
        node: &Node,
        registration: &Registration,
        account: AccountId,
    ) -> Result<Bytes, String> {
        if node.get("type").as_deref() != Some("result") {
            let code = node
                .find("error")
                .and_then(|error| error.get("code"))
                .unwrap_or_default();
            return Err(format!("the companion refused with code {code}"));
        }
        let blob = node
            .path(&["pair-device-sign", "device-identity"])
            .and_then(Node::data)
            .ok_or_else(|| "the companion's answer has no device-identity".to_owned())?;
        let phone = self.world.account(account).map(|account| account.identity);
        let phone = phone.ok_or_else(|| "the account is gone".to_owned())?;
        verify_device_signature(&blob, &registration.identity, &phone).map_err(|error| {
            self.protocol_error(
                Origin::Unlinked(conn),
                "wrong signature in pair-device-sign",
            );
            error.to_string()
        })?;
        Ok(blob)
    }

    fn finish_link(
        &mut self,
        conn: ConnId,
        accepted: Accepted,
        registration: &Registration,
        push_name: Option<String>,
        blob: Bytes,
    ) {
        let Accepted {
            account,
            device,
            companion,
            ..
        } = accepted;
        let Some(static_key) = self.world.connections.get(&conn).map(|c| c.static_key) else {
            return;
        };
        let Some(owner) = self.world.account_mut(account) else {
            return;
        };
        owner.key_index_list = Some((companion.key_index_list_timestamp, companion.key_index_list));
        // The registration is the only place where some clients tell their name.
        if owner.push_name.is_empty()
            && let Some(name) = push_name
        {
            owner.push_name = name;
        }
        let index = companion.key_index;
        self.add_device(Device::companion(
            (account, device, index),
            static_key,
            registration,
            blob,
        ));
        let restart = Action::StreamError {
            code: Some(515),
            detail: None,
            close: true,
        };
        self.disturb(Origin::Unlinked(conn), &restart, None);
    }

    /// A request of the server's own.
    fn server_request(&mut self, xmlns: &'static str, child: Node) -> Node {
        let id = self.stanza_id();
        Node::new("iq")
            .attr("from", Jid::SERVER)
            .attr("type", "set")
            .attr("xmlns", xmlns)
            .attr("id", id)
            .child(child)
    }
}

fn pair_success_node(
    owner: &crate::world::Account,
    device: DeviceId,
    companion: &AcceptedCompanion,
) -> Node {
    // Some clients take `biz name` for the push name, others for a verified name.
    let name = owner
        .business_name
        .clone()
        .or_else(|| Some(owner.push_name.clone()).filter(|name| !name.is_empty()));
    let props = owner.migrated_to_lid.then(|| {
        let props = ClientPairingProps {
            is_chat_db_lid_migrated: Some(true),
            ..Default::default()
        };
        Node::new("client-props").bytes(props.encode_to_vec())
    });
    Node::new("pair-success")
        .child(Node::new("device-identity").bytes(companion.container.clone()))
        .child(Node::new("platform").attr("name", owner.platform.clone()))
        .child(
            Node::new("device")
                .attr("jid", owner.pn().with_device(device))
                .attr("lid", owner.lid_jid().with_device(device)),
        )
        .children(name.map(|name| Node::new("biz").attr("name", name)))
        .children(props)
}

fn read_registration(data: &client_payload::DevicePairingRegistrationData) -> Option<Registration> {
    fn fixed<const N: usize>(bytes: Option<&Vec<u8>>) -> Option<[u8; N]> {
        bytes?.as_slice().try_into().ok()
    }
    Some(Registration {
        registration_id: read_number(data.e_regid.as_ref()?)?,
        identity: fixed(data.e_ident.as_ref())?,
        signed_prekey: SignedPrekey {
            id: read_number(data.e_skey_id.as_ref()?)?,
            public: fixed(data.e_skey_val.as_ref())?,
            signature: fixed(data.e_skey_sig.as_ref())?,
        },
    })
}

impl Turn<'_> {
    /// A device did what the protocol forbids: said once in the transcript and in the log.
    pub(crate) fn protocol_error(&mut self, origin: Origin, text: &'static str) {
        self.world.counters.protocol_errors += 1;
        let party = self.world.party(origin);
        tracing::warn!(device = party.device, "protocol error of a client: {text}");
        self.world.transcript.note(
            self.now,
            crate::transcript::Note::protocol_error(&party, text),
        );
    }
}
