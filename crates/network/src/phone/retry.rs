//! Trying again: a copy that could not be opened is asked for once more, and a peer that could not
//! open ours gets it under a fresh session.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::content::device_sent;
use super::inbox::Envelope;
use super::port::{PhoneEvent, PhonePort, Prekey, PrekeyBundle, SignedPrekey};
use super::signal::DeviceKey;
use super::{Phone, PhoneError, prekey_node, signed_prekey_node};
use crate::jid::Jid;
use crate::node::Node;

/// After that many a side gives up.
const TRIES_MAX: u32 = 5;
const REMEMBERED_MAX: usize = 1_000;

/// How often which message was asked for, and resent.
#[derive(Debug, Default)]
pub(super) struct Retries {
    counts: HashMap<(bool, DeviceKey, String), u32>,
    order: VecDeque<(bool, DeviceKey, String)>,
}

impl Retries {
    fn count(&mut self, asked: bool, device: DeviceKey, id: &str) -> u32 {
        let key = (asked, device, id.to_owned());
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return *count;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(old) = self.order.pop_front()
        {
            self.counts.remove(&old);
        }
        self.order.push_back(key.clone());
        self.counts.insert(key, 1);
        1
    }
}

impl Phone {
    /// Asks the sender of a copy that could not be opened to try again.
    pub(super) fn ask_again(
        &mut self,
        envelope: &Envelope,
        reason: &str,
        port: &mut dyn PhonePort,
    ) {
        let account = self.me.account;
        port.event(PhoneEvent::Undecryptable {
            account,
            from: envelope.author.clone(),
            device: envelope.sender.1,
            id: envelope.id.clone(),
            reason: reason.to_owned(),
        });
        let count = self.retries.count(true, envelope.sender, &envelope.id);
        if count > TRIES_MAX {
            return;
        }
        let retry = Node::new("retry")
            .attr("v", "1")
            .attr("id", envelope.id.clone())
            .attr("t", envelope.sent_at_ms / 1_000)
            .attr("count", count);
        let registration = self.signal.keyring().registration_id.to_be_bytes().to_vec();
        let recipient = (envelope.from_me && !envelope.is_peer).then(|| envelope.recipient.clone());
        let mut receipt = Node::new("receipt")
            .attr("to", envelope.wire_from.clone())
            .attr("id", envelope.id.clone())
            .attr("type", "retry")
            .attr_opt("participant", envelope.participant.clone())
            .attr_opt("recipient", recipient.flatten())
            .attr_opt("category", envelope.is_peer.then_some("peer"))
            .child(retry)
            .child(Node::new("registration").bytes(registration));
        // The first time the sender may still have a good session; then it needs fresh keys.
        if count > 1 {
            match self.key_material() {
                Ok(keys) => receipt.push(keys),
                Err(error) => tracing::error!(%error, "a phone cannot make a prekey"),
            }
        }
        port.send(receipt);
    }

    fn key_material(&mut self) -> Result<Node, PhoneError> {
        let keyring = self.signal.keyring_mut();
        let prekeys = keyring.mint(1)?;
        Ok(Node::new("keys")
            .child(Node::new("type").bytes(vec![5]))
            .child(Node::new("identity").bytes(keyring.identity_public().to_vec()))
            .children(prekeys.iter().map(prekey_node))
            .child(signed_prekey_node(&keyring.signed_prekey())))
    }

    /// A device could not open what we sent.
    pub(super) fn on_retry(&mut self, node: &Node, device: &Jid, port: &mut dyn PhonePort) {
        let Some(id) = node.get("id").map(Cow::into_owned) else {
            return;
        };
        if let Err(error) = self.resend(node, device, &id, port) {
            tracing::warn!(%error, %device, id, "a phone cannot resend a message");
        }
    }

    fn resend(
        &mut self,
        node: &Node,
        address: &Jid,
        id: &str,
        port: &mut dyn PhonePort,
    ) -> Result<(), PhoneError> {
        let sent = self
            .sent
            .get(id)
            .cloned()
            .ok_or_else(|| PhoneError::NoSuchMessage(id.to_owned()))?;
        let peer = port
            .peer(address)
            .ok_or_else(|| PhoneError::NotOnWhatsApp(address.to_string()))?;
        let device: DeviceKey = (peer.account, address.device);
        let count = self.retries.count(false, device, id);
        if count > TRIES_MAX {
            return Ok(());
        }
        let bundle = match bundle_of(node) {
            Some(bundle) => Some(bundle),
            None => port.bundle(device.0, device.1),
        };
        if let Some(bundle) = bundle {
            // The old session stays archived: what the peer sent under it may still be on its way.
            self.signal.establish(device, &bundle, &mut self.rng)?;
        }
        let message = waproto::codec::message_decode(&sent.message)
            .map_err(|error| PhoneError::Signal(error.to_string()))?;
        let own = peer.account == self.me.account;
        let (to, participant, message) = match &sent.chat {
            Some(group) if group.is_group() => (group.clone(), Some(address.clone()), message),
            Some(chat) if own => (
                address.clone(),
                None,
                device_sent(&chat.to_string(), message),
            ),
            _ => (address.clone(), None, message),
        };
        let Some(mut sealed) = self.seal(&(device, address.clone()), &message, port)? else {
            return Ok(());
        };
        sealed.set("count", count);
        port.send(
            Node::new("message")
                .attr("to", to)
                .attr("id", id.to_owned())
                .attr("type", sent.kind)
                .attr_opt("participant", participant)
                .attr_opt("edit", sent.edit)
                .attr_opt("category", sent.chat.is_none().then_some("peer"))
                .child(sealed),
        );
        port.event(PhoneEvent::Resent {
            account: self.me.account,
            to: peer.pn.bare().to_string(),
            device: address.device,
            id: id.to_owned(),
            count,
        });
        Ok(())
    }
}

/// The keys that a retry receipt brings, from the second try on.
fn bundle_of(receipt: &Node) -> Option<PrekeyBundle> {
    let keys = receipt.find("keys")?;
    let skey = keys.find("skey")?;
    let registration = receipt.find("registration")?.data()?;
    Some(PrekeyBundle {
        registration_id: number(&registration),
        identity: keys.find("identity")?.data()?.as_ref().try_into().ok()?,
        signed_prekey: SignedPrekey {
            id: number(&skey.find("id")?.data()?),
            public: skey.find("value")?.data()?.as_ref().try_into().ok()?,
            signature: skey.find("signature")?.data()?.as_ref().try_into().ok()?,
        },
        prekey: keys.find("key").and_then(|key| {
            Some(Prekey {
                id: number(&key.find("id")?.data()?),
                public: key.find("value")?.data()?.as_ref().try_into().ok()?,
            })
        }),
        device_identity: keys.find("device-identity").and_then(Node::data),
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}
