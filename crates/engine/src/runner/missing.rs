//! Asks for messages again that were decrypted and not kept ([`crate::backend`]'s `missing`).

use tokio::time::timeout;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{JidExt as _, Node};
use whatsapp_rust::features::{RetryReason, RetryRequestOptions, RetryRequestOutcome};

use super::Inner;
use crate::backend::Missing;

impl Inner {
    /// Asks the senders of messages that were decrypted and not kept to send them again (IN-1).
    pub(super) async fn ask_for_missing(&self) {
        if !self.client.is_logged_in() {
            return;
        }
        let mut missing = self.backend.missing.take();
        while let Some(one) = missing.pop_front() {
            let stanza = stanza_of(&one);
            let options = RetryRequestOptions::new().with_reason(RetryReason::UnknownError);
            let view = stanza.as_node_ref();
            let asked = self.client.request_message_retry(&view, options);
            match timeout(self.shared.options.liveness.answer_within, asked).await {
                Ok(Ok(RetryRequestOutcome::Sent { .. })) => {
                    tracing::info!("asked for a message again that was decrypted and not kept");
                }
                Ok(Ok(_)) => {
                    tracing::error!("a message is lost: its sender does not send it again");
                    self.backend.missing.give_up(&one);
                }
                // At the next tick.
                Ok(Err(_)) | Err(_) => {
                    missing.push_front(one);
                    break;
                }
            }
        }
        self.backend.missing.put_back(missing);
    }
}

/// The stanza in which a message came, as far as a request for its repetition names it.
fn stanza_of(missing: &Missing) -> Node {
    let stanza = NodeBuilder::new("message").attr("id", missing.id.clone());
    let stanza = if missing.chat.is_group() {
        stanza
            .attr("from", missing.chat.to_string())
            .attr("participant", missing.sender.to_string())
    } else {
        stanza.attr("from", missing.sender.to_string())
    };
    let now = wacore::time::now_millis() / 1_000;
    stanza
        .attr("t", now.to_string())
        .attr("type", "text")
        .build()
}
