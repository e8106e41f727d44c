//! What a new companion waits for from its phone: the app-state key and a word about history.
//!
//! One app-state key per account, handed to every companion, so that they read each other's patches.
//! The history notification carries an empty history inline: clients go on as after a real one and
//! need no media host for it.

use std::io::Write as _;

use waproto::buffa::MessageField;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type as ProtocolType;

use super::content::protocol;
use super::port::{PhoneEvent, PhonePort};
use super::{Phone, PhoneError};
use crate::world::Millis;

/// The epoch in the key's id; phones of a simulation never rotate it.
const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];

impl Phone {
    /// Welcomes a companion that uploaded its first prekeys.
    pub fn greet(&mut self, now: Millis, device: u16, port: &mut dyn PhonePort) {
        let share = self.key_share(now, &[KEY_ID.to_vec()]);
        let outcome = self
            .send_peer(device, &share, port)
            .and_then(|()| self.send_peer(device, &history_notification(), port));
        let account = self.me.account;
        match outcome {
            Ok(()) => port.event(PhoneEvent::Greeted { account, device }),
            Err(error) => tracing::error!(%error, device, "a phone cannot greet its companion"),
        }
    }

    /// Answers a companion that misses app-state keys; unknown ones are named without data.
    pub(super) fn share_keys(
        &mut self,
        now: Millis,
        device: u16,
        wanted: &[Vec<u8>],
        port: &mut dyn PhonePort,
    ) {
        let share = self.key_share(now, wanted);
        if let Err(error) = self.send_peer(device, &share, port) {
            tracing::error!(%error, device, "a phone cannot share its app-state key");
        }
    }

    /// The account's app-state key: its id and 32 bytes.
    pub fn app_state_key(&self) -> ([u8; 6], [u8; 32]) {
        (KEY_ID, self.signal.keyring().secret("app-state key"))
    }

    fn key_share(&self, now: Millis, wanted: &[Vec<u8>]) -> wa::Message {
        let (known, data) = self.app_state_key();
        let mut device_indexes = vec![0];
        device_indexes.extend(self.companions.indexes());
        let keys = wanted
            .iter()
            .map(|id| wa::message::AppStateSyncKey {
                key_id: MessageField::some(wa::message::AppStateSyncKeyId {
                    key_id: Some(id.clone()),
                }),
                key_data: if *id == known {
                    MessageField::some(wa::message::AppStateSyncKeyData {
                        key_data: Some(data.to_vec()),
                        fingerprint: MessageField::some(wa::message::AppStateSyncKeyFingerprint {
                            raw_id: Some(self.companions.raw_id()),
                            current_index: Some(self.companions.current_index()),
                            device_indexes: device_indexes.clone(),
                        }),
                        timestamp: Some(now),
                    })
                } else {
                    MessageField::default()
                },
            })
            .collect();
        protocol(wa::message::ProtocolMessage {
            r#type: Some(ProtocolType::APP_STATE_SYNC_KEY_SHARE),
            app_state_sync_key_share: MessageField::some(wa::message::AppStateSyncKeyShare {
                keys,
            }),
            ..Default::default()
        })
    }

    /// Sends a companion something between devices of one account.
    fn send_peer(
        &mut self,
        device: u16,
        message: &wa::Message,
        port: &mut dyn PhonePort,
    ) -> Result<(), PhoneError> {
        let id = self.message_id(false);
        let to = self.me.pn.with_device(device);
        let target = ((self.me.account, device), to.clone());
        let bytes = waproto::codec::message_to_vec(message);
        let sealed = self.seal(&target, message, port)?.ok_or_else(|| {
            PhoneError::Signal(format!("the server has no keys of companion {device}"))
        })?;
        self.sent.remember_peer(&id, bytes);
        port.send(
            crate::node::Node::new("message")
                .attr("to", to)
                .attr("id", id)
                .attr("type", "text")
                .attr("category", "peer")
                .attr("push_priority", "high")
                .child(sealed),
        );
        Ok(())
    }
}

fn history_notification() -> wa::Message {
    use wa::message::HistorySyncType as SyncType;
    let history = wa::HistorySync {
        sync_type: wa::history_sync::HistorySyncType::NON_BLOCKING_DATA,
        ..Default::default()
    };
    let raw = waproto::codec::history_sync_to_vec(&history);
    protocol(wa::message::ProtocolMessage {
        r#type: Some(ProtocolType::HISTORY_SYNC_NOTIFICATION),
        history_sync_notification: MessageField::some(wa::message::HistorySyncNotification {
            sync_type: Some(SyncType::NON_BLOCKING_DATA),
            chunk_order: Some(1),
            progress: Some(100),
            initial_hist_bootstrap_inline_payload: deflate(&raw),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn deflate(raw: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).ok()?;
    encoder.finish().ok()
}
