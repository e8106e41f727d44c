//! Linking by a code: the companion asks, the phone's owner types, and both exchange keys through here.
//!
//! The server sees wrapped keys only. It holds the request for three minutes and lets the phone answer
//! three times at most.

use bytes::Bytes;

use super::LinkCode;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::timers::Timer;
use crate::world::turn::{Origin, Turn};
use crate::world::{AccountId, ConnId, NetworkEvent, WorldError};

impl Turn<'_> {
    /// `link_code_companion_reg` from a companion: `companion_hello` or `companion_finish`.
    pub(crate) fn link_code(&mut self, conn: ConnId, node: &Node) {
        let Some(request) = node.find("link_code_companion_reg") else {
            return;
        };
        match request.get("stage").as_deref() {
            Some("companion_hello") => self.companion_hello(conn, node, request),
            Some("companion_finish") => self.companion_finish(conn, node, request),
            _ => self.reply_error(Origin::Unlinked(conn), node, 400, "bad-request"),
        }
    }

    fn companion_hello(&mut self, conn: ConnId, node: &Node, request: &Node) {
        let origin = Origin::Unlinked(conn);
        let bytes = |tag: &str| request.find(tag).and_then(Node::data);
        let owner = request.jid("jid").and_then(|jid| self.world.owner(&jid));
        let Some(account) = owner else {
            self.reply_error(origin, node, 404, "item-not-found");
            return;
        };
        let (Some(ephemeral), Some(key)) = (
            bytes("link_code_pairing_wrapped_companion_ephemeral_pub").filter(|b| b.len() == 80),
            bytes("companion_server_auth_key_pub").filter(|b| b.len() == 32),
        ) else {
            self.protocol_error(origin, "companion_hello without its keys");
            self.reply_error(origin, node, 400, "bad-request");
            return;
        };
        let display = request
            .find("companion_platform_display")
            .and_then(Node::text);
        let reference = self.world.draw_reference();
        let expires_at = self.now + self.world.options.code_ttl_ms;
        let code = LinkCode {
            account,
            conn,
            reference: reference.clone(),
            wrapped_companion_ephemeral: ephemeral,
            companion_server_auth_key: key,
            platform_display: display.unwrap_or_default(),
            expires_at,
            attempts: 0,
        };
        let Some(link) = self.world.link_mut(conn) else {
            return;
        };
        let older = link.code.replace(code);
        if let Some(older) = older {
            self.world.links.by_reference.remove(&older.reference);
        }
        self.world
            .links
            .by_reference
            .insert(reference.clone(), conn);
        self.world.links.by_account.insert(account, conn);
        self.world.timers.at(expires_at, Timer::Link(conn));
        let answer = Node::new("link_code_companion_reg")
            .attr("stage", "companion_hello")
            .child(Node::new("link_code_pairing_ref").bytes(reference.clone().into_bytes()));
        self.reply(origin, node, Some(answer));
        // The phone shows a push notification; its stanza carries what the companion sent.
        let mut forwarded = request.clone();
        forwarded.push(Node::new("link_code_pairing_ref").bytes(reference.clone().into_bytes()));
        self.tell_phone(account, forwarded);
        self.event(NetworkEvent::CodeRequested { account, reference });
    }

    /// The phone's answer with the code that its owner typed.
    pub(crate) fn primary_hello(
        &mut self,
        reference: &str,
        wrapped_ephemeral: Bytes,
        identity: Bytes,
    ) -> Result<(), WorldError> {
        let (now, max) = (self.now, self.world.options.code_attempts_max);
        let conn = *self
            .world
            .links
            .by_reference
            .get(reference)
            .ok_or(WorldError::UnknownReference)?;
        let code = self
            .world
            .link_mut(conn)
            .and_then(|link| link.code.as_mut())
            .filter(|code| code.reference == reference && code.expires_at > now)
            .ok_or(WorldError::UnknownReference)?;
        if code.attempts >= max {
            return Err(WorldError::TooManyAttempts);
        }
        code.attempts += 1;
        let hello = Node::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .child(
                Node::new("link_code_pairing_wrapped_primary_ephemeral_pub")
                    .bytes(wrapped_ephemeral),
            )
            .child(Node::new("primary_identity_pub").bytes(identity))
            .child(Node::new("link_code_pairing_ref").bytes(reference.as_bytes().to_vec()));
        let notice = self
            .notification("link_code_companion_reg", &Jid::SERVER)
            .child(hello);
        self.emit(Origin::Unlinked(conn), notice);
        Ok(())
    }

    fn companion_finish(&mut self, conn: ConnId, node: &Node, request: &Node) {
        let origin = Origin::Unlinked(conn);
        let reference = request.find("link_code_pairing_ref").and_then(Node::text);
        let now = self.now;
        let account = self
            .world
            .link_mut(conn)
            .and_then(|link| link.code.as_ref())
            .filter(|code| reference.as_ref() == Some(&code.reference) && code.expires_at > now)
            .map(|code| code.account);
        let Some(account) = account else {
            self.reply_error(origin, node, 404, "item-not-found");
            return;
        };
        self.reply(origin, node, None);
        self.tell_phone(account, request.clone());
    }

    /// Passes a step of linking by code on to the phone.
    fn tell_phone(&mut self, account: AccountId, step: Node) {
        let notice = self
            .notification("link_code_companion_reg", &Jid::SERVER)
            .child(step);
        // A phone that is away cannot help to link, neither now nor later.
        self.send(account, 0, notice);
    }
}
