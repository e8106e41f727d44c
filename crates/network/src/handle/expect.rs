//! Waiting, bounded, for what a phone should come to see.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::{HandleError, PhoneHandle};
use crate::phone::{PhoneEvent, PhoneReceipt, ScreenMessage};
use crate::world::{DeviceId, NetworkEvent};

impl PhoneHandle {
    /// Waits until the phone shows a message of somebody else (or of the owner's companion) with
    /// exactly this text; answers the newest.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_text(&self, text: &str) -> Result<ScreenMessage, HandleError> {
        self.expect(&format!("the text {text:?}"), |message| {
            message.text.as_deref() == Some(text)
        })
        .await
    }

    /// Waits until the phone shows a message for which `wanted` holds; answers the newest.
    ///
    /// # Errors
    /// [`HandleError::Timeout`] with `what`.
    pub async fn expect(
        &self,
        what: &str,
        wanted: impl Fn(&ScreenMessage) -> bool,
    ) -> Result<ScreenMessage, HandleError> {
        self.until(what, || {
            self.screen()
                .into_iter()
                .rev()
                .find(|message| wanted(message))
        })
        .await
    }

    /// Waits until the phone shows so many messages of others; answers their texts.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_count(&self, count: usize) -> Result<Vec<String>, HandleError> {
        self.until(&format!("{count} messages"), || {
            let texts = self.texts();
            (texts.len() >= count).then_some(texts)
        })
        .await
    }

    /// Waits until a message that the owner sent has come at least so far: `server`, `delivered`,
    /// `read` or `played`.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_receipt(
        &self,
        id: &str,
        status: &str,
    ) -> Result<ScreenMessage, HandleError> {
        const STATUSES: [&str; 5] = ["pending", "server", "delivered", "read", "played"];
        let rank = |status: &str| STATUSES.iter().position(|known| *known == status);
        self.expect(&format!("message {id} to be {status}"), |message| {
            let reached = message.status.as_deref();
            message.id == id
                && message.from_me
                && (reached == Some(status) || reached.and_then(rank) > rank(status).or(Some(9)))
        })
        .await
    }

    /// Waits for the next event of this phone for which `pick` has an answer. Unlike the other
    /// expectations it sees only what happens after `events` was subscribed to.
    ///
    /// # Errors
    /// [`HandleError::Timeout`] with `what`.
    pub async fn expect_event<R>(
        &self,
        events: &mut broadcast::Receiver<NetworkEvent>,
        what: &str,
        pick: impl Fn(&NetworkEvent) -> Option<R>,
    ) -> Result<R, HandleError> {
        let found = timeout(self.bound, async {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Some(found) = pick(&event) {
                            return Some(found);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        match found.await {
            Ok(Some(found)) => Ok(found),
            _ => Err(self.late(what)),
        }
    }

    /// Waits for "typing" (`composing`, `recording` or `paused`) of a peer, from now on.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_chat_state(
        &self,
        events: &mut broadcast::Receiver<NetworkEvent>,
        wanted: &str,
    ) -> Result<String, HandleError> {
        self.expect_event(
            events,
            &format!("chat state {wanted}"),
            |event| match event {
                NetworkEvent::Phone(PhoneEvent::ChatState {
                    account,
                    from,
                    state,
                }) if *account == self.account && state == wanted => Some(from.clone()),
                _ => None,
            },
        )
        .await
    }

    /// Waits for a receipt of this kind for a message, from now on: `retry` is one too.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_receipt_event(
        &self,
        events: &mut broadcast::Receiver<NetworkEvent>,
        id: &str,
        kind: &str,
    ) -> Result<PhoneReceipt, HandleError> {
        let what = format!("a {kind} receipt for {id}");
        self.expect_event(events, &what, |event| match event {
            NetworkEvent::Phone(PhoneEvent::Receipt(receipt))
                if receipt.account == self.account
                    && receipt.receipt == kind
                    && receipt.ids.iter().any(|known| known == id) =>
            {
                Some(receipt.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until the account has so many companions.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_companions(&self, count: usize) -> Result<Vec<DeviceId>, HandleError> {
        self.until(&format!("{count} companions"), || {
            Some(self.devices(false)).filter(|devices| devices.len() == count)
        })
        .await
    }

    /// Waits until so many of the account's companions are connected.
    ///
    /// # Errors
    /// [`HandleError::Timeout`].
    pub async fn expect_companions_online(
        &self,
        count: usize,
    ) -> Result<Vec<DeviceId>, HandleError> {
        self.until(&format!("{count} companions online"), || {
            Some(self.devices(true)).filter(|devices| devices.len() == count)
        })
        .await
    }

    /// How many companions the phone lists.
    pub fn companions(&self) -> usize {
        self.companion_devices().len()
    }

    /// The companions that the phone lists.
    pub fn companion_devices(&self) -> Vec<DeviceId> {
        self.devices(false)
    }

    fn devices(&self, online: bool) -> Vec<DeviceId> {
        self.world(|world, _, _| {
            world
                .account(self.account)
                .into_iter()
                .flat_map(crate::world::Account::devices)
                .filter(|device| device.number != 0 && (device.is_connected() || !online))
                .map(|device| device.number)
                .collect()
        })
    }

    /// Looks again after every event until `look` finds something.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, HandleError> {
        let mut events = self.network.subscribe();
        let found = timeout(self.bound, async {
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                // Having missed events is as good a reason to look as an event.
                if matches!(events.recv().await, Err(RecvError::Closed)) {
                    return None;
                }
                while events.try_recv().is_ok() {}
            }
        })
        .await;
        match found {
            Ok(Some(found)) => Ok(found),
            _ => look().ok_or_else(|| self.late(what)),
        }
    }

    /// Waits for the end of a link that the phone agreed to.
    pub(super) async fn linked(
        &self,
        events: &mut broadcast::Receiver<NetworkEvent>,
        device: Option<DeviceId>,
    ) -> Result<DeviceId, HandleError> {
        let linked = self
            .expect_event(events, "the companion to prove its identity", |event| {
                self.link_outcome(event, device)
            })
            .await??;
        Ok(linked)
    }

    fn late(&self, wanted: &str) -> HandleError {
        let shown: Vec<String> = self
            .screen()
            .iter()
            .rev()
            .take(10)
            .map(|message| {
                let who = if message.from_me {
                    "me"
                } else {
                    message.from.as_str()
                };
                let text = message.text.as_deref().unwrap_or(&message.kind);
                let status = message.status.as_deref().unwrap_or("");
                format!("{who}: {text:?} {status}")
            })
            .collect();
        let seen = if shown.is_empty() {
            format!("the phone {} shows nothing", self.number)
        } else {
            format!(
                "the phone {} shows, newest first: {}",
                self.number,
                shown.join(", ")
            )
        };
        HandleError::Timeout {
            wanted: wanted.to_owned(),
            seen,
            bound: self.bound,
        }
    }
}
