//! The app state that a phone writes itself: the owner's name, once, before the first companion reads
//! it. Clients take their push name from there and announce nothing without one.
//!
//! A collection is a list of patches that only devices can read; each patch carries MACs over itself
//! and over the collection's state after it, which companions check.

use rand::RngExt as _;
use wacore_appstate::hash::{HashState, generate_patch_mac};
use wacore_appstate::{encode_record, expand_app_state_keys};
use waproto::buffa::MessageField;
use waproto::whatsapp as wa;
use waproto::whatsapp::syncd_mutation::SyncdOperation;

use super::Phone;
use super::port::PhonePort;
use crate::jid::Jid;
use crate::node::Node;
use crate::world::Millis;

/// The collection that clients read first.
const COLLECTION: &str = "critical_block";

impl Phone {
    /// Writes the owner's name into the app state, unless it stands there or the owner has none. To be
    /// called before a companion exists: one that hears of the patch before it has the key asks for it.
    pub(super) fn publish_name(&mut self, now: Millis, port: &mut dyn PhonePort) {
        if std::mem::replace(&mut self.name_published, true) {
            return;
        }
        let Some(name) = self.me.push_name.clone() else {
            return;
        };
        let Some(patch) = self.name_patch(now, name) else {
            return;
        };
        let id = self.stanza_id();
        let collection = Node::new("collection")
            .attr("name", COLLECTION)
            .attr("version", 0_u32)
            .child(Node::new("patch").bytes(waproto::codec::syncd_patch_to_vec(&patch)));
        port.send(
            Node::new("iq")
                .attr("xmlns", "w:sync:app:state")
                .attr("type", "set")
                .attr("to", Jid::SERVER)
                .attr("id", id)
                .child(Node::new("sync").child(collection)),
        );
    }

    fn name_patch(&mut self, now: Millis, name: String) -> Option<wa::SyncdPatch> {
        let (key_id, key) = self.app_state_key();
        let keys = expand_app_state_keys(&key);
        let value = wa::SyncActionValue {
            timestamp: Some(now),
            push_name_setting: MessageField::some(wa::sync_action_value::PushNameSetting {
                name: Some(name),
            }),
            ..Default::default()
        };
        let iv: [u8; 16] = self.rng.random();
        let (mutation, _) = encode_record(
            SyncdOperation::SET,
            br#"["setting_pushName"]"#,
            &value,
            &keys,
            &key_id,
            &iv,
            1,
        );
        let mutations = vec![mutation];
        // The first patch of the collection, so nothing was there before.
        let mut state = HashState::default();
        let (_, updated) = state.update_hash(&mutations, |_, _| Ok(None));
        if let Err(error) = updated {
            tracing::error!(%error, "a phone cannot hash its app state");
            return None;
        }
        state.version = 1;
        let mut patch = wa::SyncdPatch {
            mutations,
            snapshot_mac: Some(state.generate_snapshot_mac(COLLECTION, &keys.snapshot_mac)),
            key_id: MessageField::some(wa::KeyId {
                id: Some(key_id.to_vec()),
            }),
            ..Default::default()
        };
        patch.patch_mac = Some(generate_patch_mac(
            &patch,
            COLLECTION,
            &keys.patch_mac,
            state.version,
        ));
        Some(patch)
    }
}
