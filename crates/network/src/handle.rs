//! The Rust API of a simulated phone, for tests and demos: what its owner does, and what can be
//! expected of it.
//!
//! Every expectation has a bound and looks at the state first, so it does not matter whether the thing
//! happens before or after the call. One that is not met says what it waited for and what the phone
//! shows instead. The network's task must be running; a handle is cheap to clone.

mod expect;
mod trouble;

use std::time::Duration;

use tokio::time::timeout;

use crate::check::Violation;
use crate::counters::Counters;
use crate::faults::FaultError;
use crate::jid::Jid;
use crate::network::Network;
use crate::node::Node;
use crate::phone::{
    Answer, Behaviour, ChatState, LinkError, Outgoing, Phone, PhoneError, PhoneEvent, PhonePort,
    ScreenMessage,
};
use crate::world::{
    AccountId, AccountPatch, AccountSpec, AccountStatus, DeviceId, Effect, Millis, NetworkEvent,
    World, WorldError,
};

/// How long a handle waits for anything before it gives up, unless told otherwise.
const BOUND: Duration = Duration::from_secs(30);
/// How long it waits for phones to finish what they do.
const SETTLE_BOUND: Duration = Duration::from_secs(2);

/// Why a phone did not do, or did not see, what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// No account has this number.
    #[error("no account has the number {0}")]
    NoSuchPhone(String),
    /// Not an address and not a number.
    #[error("`{0}` is neither a number nor an address")]
    NotAnAddress(String),
    /// The world refused.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The phone could not.
    #[error(transparent)]
    Phone(#[from] PhoneError),
    /// The trouble that was wanted is not known.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// Nobody was linked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The expected did not happen in time.
    #[error("waited {} s for {wanted}; {seen}", .bound.as_secs_f32())]
    Timeout {
        wanted: String,
        seen: String,
        bound: Duration,
    },
}

/// One phone of a running network.
#[derive(Clone, Debug)]
pub struct PhoneHandle {
    network: Network,
    account: AccountId,
    number: String,
    bound: Duration,
}

impl Network {
    /// Makes an account with its phone.
    ///
    /// # Errors
    /// When the number is malformed or taken.
    pub fn create_account(&self, spec: AccountSpec) -> Result<AccountId, WorldError> {
        self.phones().create(self, spec)
    }

    /// What the network counted so far.
    pub fn counters(&self) -> Counters {
        self.with_world(|world, _, _| world.counters)
    }

    /// Judges everything that crossed so far: which promises were broken.
    pub fn check(&self) -> Vec<Violation> {
        self.with_world(|world, _, _| world.check().violations)
    }

    /// Runs `f` on an account's phone, then what follows from it. `None` when it has none. `f` must be
    /// short: the phone does nothing else meanwhile.
    pub fn with_phone<R>(
        &self,
        account: AccountId,
        f: impl FnOnce(&mut Phone, Millis, &mut dyn PhonePort) -> R,
    ) -> Option<R> {
        self.phones().with_phone(self, account, f)
    }

    /// Makes an account and answers its phone.
    ///
    /// # Errors
    /// When the number is malformed or taken.
    pub fn add_phone(&self, spec: AccountSpec) -> Result<PhoneHandle, HandleError> {
        let number = spec.phone.trim_start_matches('+').to_owned();
        let account = self.create_account(spec)?;
        Ok(PhoneHandle {
            network: self.clone(),
            account,
            number,
            bound: BOUND,
        })
    }

    /// The phone with this number, with or without `+`.
    ///
    /// # Errors
    /// When no account has it.
    pub fn phone(&self, number: &str) -> Result<PhoneHandle, HandleError> {
        let number = number.trim_start_matches('+').to_owned();
        let account = self
            .with_world(|world, _, _| world.account_by_phone(&number).map(|account| account.id))
            .ok_or_else(|| HandleError::NoSuchPhone(number.clone()))?;
        Ok(PhoneHandle {
            network: self.clone(),
            account,
            number,
            bound: BOUND,
        })
    }
}

impl PhoneHandle {
    /// The number in digits.
    pub fn number(&self) -> String {
        self.number.clone()
    }

    pub fn account(&self) -> AccountId {
        self.account
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The same phone, with another bound for what it waits for (30 s at first).
    #[must_use]
    pub fn within(&self, bound: Duration) -> Self {
        Self {
            bound,
            ..self.clone()
        }
    }

    /// The address by number.
    pub fn jid(&self) -> Jid {
        Jid::pn(self.number.clone(), 0)
    }

    /// The address by LID.
    pub fn lid(&self) -> Option<Jid> {
        self.network.with_world(|world, _, _| {
            world
                .account(self.account)
                .map(crate::world::Account::lid_jid)
        })
    }

    // -- linking ---------------------------------------------------------------------------------

    /// Scans a linking QR code; answers the companion's device once it has proved its identity.
    ///
    /// # Errors
    /// When the code is none, nobody waits with it, or the companion refuses.
    pub async fn scan(&self, qr: &str) -> Result<DeviceId, HandleError> {
        let mut events = self.network.subscribe();
        let device = self.with(|phone, now, port| phone.scan(now, qr, port))??;
        self.linked(&mut events, Some(device)).await
    }

    /// Types a companion's pairing code; answers its device once it has proved its identity. Waits for
    /// the companion to have asked for a code.
    ///
    /// # Errors
    /// When the code is wrong, nobody asked for one, or the companion refuses.
    pub async fn enter_code(&self, code: &str) -> Result<DeviceId, HandleError> {
        let mut events = self.network.subscribe();
        let hello = self
            .until("a companion that asks for a pairing code", || {
                self.world(|world, _, _| world.link_code(self.account))
            })
            .await?;
        let answer = self.with(|phone, _, _| {
            phone.enter_code(&hello.reference, code, &hello.wrapped_companion_ephemeral)
        })??;
        self.world(|world, now, out| {
            world.link_code_primary_hello(
                now,
                &hello.reference,
                answer.wrapped_ephemeral.to_vec().into(),
                answer.identity.to_vec().into(),
                out,
            )
        })?;
        self.linked(&mut events, None).await
    }

    /// Unlinks a companion from the phone's list.
    ///
    /// # Errors
    /// When the account has no such companion.
    pub async fn unlink(&self, device: DeviceId) -> Result<(), HandleError> {
        self.world(|world, now, out| world.unlink(now, self.account, device, out))?;
        // The phone signs its new list in its own time.
        self.settle().await;
        Ok(())
    }

    // -- writing and reading ---------------------------------------------------------------------

    /// Sends a text to a number or address; answers the message's id.
    ///
    /// # Errors
    /// When the peer is not on WhatsApp.
    pub async fn send(&self, to: &str, text: &str) -> Result<String, HandleError> {
        self.send_message(
            to,
            Outgoing::Text {
                text: text.to_owned(),
            },
        )
        .await
    }

    /// Sends something else than a text: a reply, a reaction, an edit …
    ///
    /// # Errors
    /// When the peer is not on WhatsApp.
    pub async fn send_message(&self, to: &str, what: Outgoing) -> Result<String, HandleError> {
        let to = address(to)?;
        let id = self.with(|phone, now, port| phone.send(now, &to, &what, port))??;
        self.keep_pace().await;
        Ok(id)
    }

    /// Reads everything unread of a chat; answers how many messages that were.
    ///
    /// # Errors
    /// When `chat` is no address.
    pub async fn read(&self, chat: &str) -> Result<usize, HandleError> {
        let chat = address(chat)?;
        let count = self.with(|phone, _, port| phone.read(&chat, &[], port))?;
        self.keep_pace().await;
        Ok(count)
    }

    /// Plays a voice note.
    ///
    /// # Errors
    /// When the phone does not show it.
    pub async fn play(&self, id: &str) -> Result<(), HandleError> {
        self.with(|phone, _, port| phone.play(id, port))??;
        self.keep_pace().await;
        Ok(())
    }

    /// Loses the keys that the phone shares with a peer; answers with how many of his devices.
    ///
    /// # Errors
    /// When `peer` is no address.
    pub fn lose_keys(&self, peer: &str) -> Result<usize, HandleError> {
        let peer = address(peer)?;
        self.with(|phone, _, port| phone.lose_keys(&peer, port))
    }

    /// Shows a peer that the owner writes, records or stopped.
    ///
    /// # Errors
    /// When `to` is no address.
    pub fn chat_state(&self, to: &str, state: ChatState) -> Result<(), HandleError> {
        let to = address(to)?;
        self.with(|phone, _, port| phone.chat_state(&to, state, port))
    }

    /// Shows a peer that the owner writes.
    ///
    /// # Errors
    /// When `to` is no address.
    pub fn typing(&self, to: &str) -> Result<(), HandleError> {
        self.chat_state(to, ChatState::Composing)
    }

    /// Opens or closes the app, as others see it.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn presence(&self, available: bool) -> Result<(), HandleError> {
        self.with(|phone, _, port| phone.presence(available, port))
    }

    /// Asks to be told when a peer comes and goes.
    ///
    /// # Errors
    /// When `to` is no address.
    pub fn subscribe_presence(&self, to: &str) -> Result<(), HandleError> {
        let to = address(to)?;
        self.with(|phone, _, port| phone.subscribe(&to, port))
    }

    /// Blocks somebody, or no longer.
    ///
    /// # Errors
    /// When `who` is no address.
    pub fn block(&self, who: &str, blocked: bool) -> Result<(), HandleError> {
        let who = address(who)?;
        let action = if blocked { "block" } else { "unblock" };
        let request = Node::new("iq")
            .attr("xmlns", "blocklist")
            .attr("type", "set")
            .attr("to", Jid::SERVER)
            .attr("id", format!("{action}-{}", who.user))
            .child(Node::new("item").attr("action", action).attr("jid", who));
        self.with(|_, _, port| port.send(request))
    }

    /// What the phone shows, oldest first.
    pub fn screen(&self) -> Vec<ScreenMessage> {
        self.with(|phone, _, _| phone.screen().messages(None, 0).cloned().collect())
            .unwrap_or_default()
    }

    /// What the phone shows of a chat, oldest first.
    ///
    /// # Errors
    /// When `chat` is no address.
    pub fn chat(&self, chat: &str) -> Result<Vec<ScreenMessage>, HandleError> {
        let chat = self.name_of(&address(chat)?);
        self.with(|phone, _, _| phone.screen().messages(Some(&chat), 0).cloned().collect())
    }

    /// The texts that others wrote to this phone, oldest first.
    pub fn texts(&self) -> Vec<String> {
        self.screen()
            .into_iter()
            .filter(|message| !message.from_me)
            .filter_map(|message| message.text)
            .collect()
    }

    // -- what the phone does by itself, and what happens to it ------------------------------------

    /// What the phone does by itself.
    pub fn behaviour(&self) -> Behaviour {
        self.with(|phone, _, _| phone.behaviour().clone())
            .unwrap_or_default()
    }

    /// Changes what the phone does by itself.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.change(|current| *current = behaviour);
    }

    /// Reads messages by itself after so long.
    pub fn read_after(&self, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.change(|behaviour| behaviour.read_after_ms = Some(millis));
    }

    /// Answers messages by itself.
    pub fn answer(&self, answer: Answer) {
        self.change(|behaviour| behaviour.answer = answer);
    }

    /// Answers every message with its own text after so long.
    pub fn echo(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.answer(Answer::Echo {
            delay_ms,
            typing: false,
        });
    }

    /// Whether the phone opens what it receives.
    pub fn decrypt(&self, decrypt: bool) {
        self.change(|behaviour| behaviour.decrypt = Some(decrypt));
    }

    /// Takes the phone off the network: what comes for it waits.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn go_offline(&self) -> Result<(), HandleError> {
        self.set_online(false)
    }

    /// Brings the phone back: what waited is delivered.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn go_online(&self) -> Result<(), HandleError> {
        self.set_online(true)
    }

    /// Restricts the account, or no longer: writing to strangers fails with 463.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn restrict(&self, restricted: bool) -> Result<(), HandleError> {
        self.patch(AccountPatch {
            restricted: Some(restricted),
            ..AccountPatch::default()
        })
    }

    /// Bans the account for so many seconds: logins fail with 402.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn ban(&self, code: u16, expire: u32) -> Result<(), HandleError> {
        self.set_status(AccountStatus::Banned { code, expire })
    }

    /// Takes the number off WhatsApp, so that nobody finds it.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn unregister(&self) -> Result<(), HandleError> {
        self.set_status(AccountStatus::Unregistered)
    }

    /// Sets the account's state.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn set_status(&self, status: AccountStatus) -> Result<(), HandleError> {
        self.patch(AccountPatch {
            status: Some(status),
            ..AccountPatch::default()
        })
    }

    /// Changes the account.
    ///
    /// # Errors
    /// When the account is gone.
    pub fn patch(&self, patch: AccountPatch) -> Result<(), HandleError> {
        if let Some(push_name) = &patch.push_name {
            self.with(|phone, _, _| phone.set_push_name(push_name.clone()))?;
        }
        let account = self.account;
        let patched = self.world(|world, now, out| world.patch_account(now, account, patch, out));
        patched.map_err(Into::into)
    }

    // -- helpers -----------------------------------------------------------------------------------

    /// Waits while the phones are too far behind, so that a test in a loop does not flood them.
    async fn keep_pace(&self) {
        if timeout(self.bound, self.network.phones().admit())
            .await
            .is_err()
        {
            tracing::warn!("the phones do not catch up");
        }
    }

    /// Waits until the phones have done what lay before them; not for long where there is always more.
    async fn settle(&self) {
        if timeout(SETTLE_BOUND, self.network.phones().idle())
            .await
            .is_err()
        {
            tracing::debug!("the phones are busy");
        }
    }

    fn set_online(&self, online: bool) -> Result<(), HandleError> {
        let account = self.account;
        let set = self.world(|world, now, out| world.set_phone_online(now, account, online, out));
        set.map_err(Into::into)
    }

    fn change(&self, f: impl FnOnce(&mut Behaviour)) {
        let changed = self.with(|phone, _, _| {
            let mut behaviour = phone.behaviour().clone();
            f(&mut behaviour);
            phone.set_behaviour(behaviour);
        });
        debug_assert!(changed.is_ok(), "a handle's account has a phone");
    }

    fn with<R>(
        &self,
        f: impl FnOnce(&mut Phone, Millis, &mut dyn PhonePort) -> R,
    ) -> Result<R, HandleError> {
        self.network
            .with_phone(self.account, f)
            .ok_or_else(|| HandleError::NoSuchPhone(self.number.clone()))
    }

    fn world<R>(&self, f: impl FnOnce(&mut World, Millis, &mut Vec<Effect>) -> R) -> R {
        self.network.with_world(f)
    }

    /// The name under which the screen keeps a chat.
    fn name_of(&self, chat: &Jid) -> String {
        let known = self.world(|world, _, _| world.find(chat).map(crate::world::Account::pn));
        known.unwrap_or_else(|| chat.bare()).to_string()
    }

    /// Whether an event is the end of a link of this account, and which.
    fn link_outcome(
        &self,
        event: &NetworkEvent,
        wanted: Option<DeviceId>,
    ) -> Option<Result<DeviceId, LinkError>> {
        match event {
            NetworkEvent::Linked { account, device }
                if *account == self.account && wanted.is_none_or(|wanted| wanted == *device) =>
            {
                Some(Ok(*device))
            }
            NetworkEvent::LinkRefused { account, reason } if *account == self.account => {
                Some(Err(LinkError::Refused(reason.clone())))
            }
            NetworkEvent::Phone(PhoneEvent::LinkRefused { account, reason })
                if *account == self.account =>
            {
                Some(Err(LinkError::Refused(reason.clone())))
            }
            _ => None,
        }
    }
}

/// An address, or a number in digits with or without `+`.
fn address(text: &str) -> Result<Jid, HandleError> {
    let digits = text.trim_start_matches('+');
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Jid::pn(digits.to_owned(), 0));
    }
    match text.parse::<Jid>() {
        Ok(jid) if !jid.user.is_empty() => Ok(jid),
        _ => Err(HandleError::NotAnAddress(text.to_owned())),
    }
}
