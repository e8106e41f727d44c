//! The phone's part in linking a companion: scanning, typing a code, and forgetting one that left.

use super::Phone;
use super::adv::{AcceptRequest, KeyIndexList, LinkError, QrCode};
use super::link_code::PrimaryHello;
use super::port::{AcceptedCompanion, PhoneEvent, PhonePort};
use crate::node::Node;
use crate::world::Millis;

impl Phone {
    /// Scans a linking QR code: accepts the companion and completes the link. Answers its device.
    ///
    /// # Errors
    /// When the text is no QR code, or nobody waits with it.
    pub fn scan(
        &mut self,
        now: Millis,
        text: &str,
        port: &mut dyn PhonePort,
    ) -> Result<u16, LinkError> {
        let code = QrCode::parse(text)?;
        self.link(now, &code.reference, &code.identity, &code.adv_secret, port)
    }

    /// Signs a companion's identity. The caller completes the link.
    ///
    /// # Errors
    /// When signing fails, which does not happen with keys of our own.
    pub fn accept(
        &mut self,
        now: Millis,
        companion_identity: &[u8; 32],
        adv_secret: &[u8],
        key_index: u32,
    ) -> Result<AcceptedCompanion, LinkError> {
        let request = AcceptRequest {
            identity: companion_identity,
            adv_secret,
            key_index,
        };
        self.companions
            .accept(now, &request, self.signal.keyring(), &mut self.rng)
    }

    /// Answers a companion's hello after its owner typed the code that the companion shows.
    ///
    /// # Errors
    /// When the hello is malformed. A wrong code only shows in [`Phone::finish_code`].
    pub fn enter_code(
        &mut self,
        reference: &str,
        code: &str,
        wrapped_companion_ephemeral: &[u8],
    ) -> Result<PrimaryHello, LinkError> {
        let (keyring, rng) = (self.signal.keyring(), &mut self.rng);
        self.codes
            .answer(reference, code, wrapped_companion_ephemeral, keyring, rng)
    }

    /// Takes a companion's bundle after [`Phone::enter_code`]: completes the link.
    ///
    /// # Errors
    /// [`LinkError::WrongCode`] when the bundle does not open.
    pub fn finish_code(
        &mut self,
        now: Millis,
        reference: &str,
        wrapped_bundle: &[u8],
        companion_identity: &[u8],
        port: &mut dyn PhonePort,
    ) -> Result<u16, LinkError> {
        let keyring = self.signal.keyring();
        let agreed = self
            .codes
            .finish(reference, wrapped_bundle, companion_identity, keyring)?;
        self.link(now, reference, &agreed.identity, &agreed.adv_secret, port)
    }

    /// A companion is gone: answers the list of those that are left.
    ///
    /// # Errors
    /// When signing fails, which does not happen with keys of our own.
    pub fn forget(&mut self, now: Millis, device: u16) -> Result<KeyIndexList, LinkError> {
        if self.companions.remove(device) {
            self.signal.forget_session((self.me.account, device));
        }
        self.companions
            .signed_list(now, self.signal.keyring(), &mut self.rng)
    }

    /// The server passes on a `companion_finish`.
    pub(super) fn on_link_code(&mut self, now: Millis, node: &Node, port: &mut dyn PhonePort) {
        let Some(stage) = node.find("link_code_companion_reg") else {
            return;
        };
        if stage.get("stage").as_deref() != Some("companion_finish") {
            return;
        }
        let data = |tag: &str| stage.find(tag).and_then(Node::data).unwrap_or_default();
        let reference = data("link_code_pairing_ref");
        let reference = String::from_utf8_lossy(&reference);
        let bundle = data("link_code_pairing_wrapped_key_bundle");
        let identity = data("companion_identity_public");
        if let Err(error) = self.finish_code(now, &reference, &bundle, &identity, port) {
            let account = self.me.account;
            port.event(PhoneEvent::LinkRefused {
                account,
                reason: error.to_string(),
            });
        }
    }

    fn link(
        &mut self,
        now: Millis,
        reference: &str,
        identity: &[u8; 32],
        adv_secret: &[u8],
        port: &mut dyn PhonePort,
    ) -> Result<u16, LinkError> {
        self.publish_name(now, port);
        let key_index = port.next_key_index();
        let companion = self.accept(now, identity, adv_secret, key_index)?;
        let device = port
            .complete_link(reference, companion)
            .map_err(LinkError::Refused)?;
        self.companions.add(device, key_index);
        Ok(device)
    }
}
