//! From decrypted messages of the library to ours.
//!
//! Whatever a person wrote comes out, at least by the name of its kind; what devices tell each other
//! (keys, history, sender keys) does not. Addresses come out by phone number where WhatsApp told it, so
//! that one person is one chat whichever way a message was addressed.

mod kind;
mod text;

use std::sync::Arc;

use wacore::proto_helpers::MessageExt as _;
use wacore::types::events::InboundMessage as LibraryMessage;
use wacore::types::message::{MessageCategory, MessageInfo};
use wacore_binary::{Jid as LibraryJid, JidExt as _};
use wagate_domain::{Content, Jid, Timestamp, WaMessageId};
use waproto::whatsapp as wa;
use whatsapp_rust::Client;

use crate::jid::account;
use crate::sink::InboundMessage;

/// What a message says; `None` for what only devices care about.
pub(crate) fn content(message: &wa::Message) -> Option<Content> {
    let base = message.get_base_message();
    if let Some(text) = text::text(base) {
        return Some(Content::Text { text });
    }
    kind::kind(base).map(|kind| Content::Unsupported {
        kind: kind.to_owned(),
    })
}

/// Converts one message, asking the library for phone numbers that the message itself does not tell.
pub(crate) async fn convert(client: &Client, message: &LibraryMessage) -> Option<InboundMessage> {
    let info = &message.info;
    if matches!(info.category, MessageCategory::Peer) {
        return None;
    }
    let content = content(&message.message)?;
    let wa_id = WaMessageId::parse(&info.id).ok()?;
    let chat_alt = chat_alt(info);
    let (chat, chat_alt) = person(client, &info.source.chat, chat_alt).await?;
    let (sender, sender_alt) =
        person(client, &info.source.sender, info.source.sender_alt.as_ref()).await?;
    let push_name = Some(info.push_name.as_str()).filter(|name| !name.is_empty());
    Some(InboundMessage {
        wa_id,
        chat,
        chat_alt,
        sender,
        sender_alt,
        from_me: info.source.is_from_me,
        push_name: push_name.map(text::storable),
        sent_at: Timestamp::from_secs(info.timestamp.timestamp()),
        content,
        offline: info.is_offline,
    })
}

/// The other address of the chat: in a direct chat it is the peer's.
fn chat_alt(info: &MessageInfo) -> Option<&LibraryJid> {
    let source = &info.source;
    if source.is_group || source.chat.is_group() {
        None
    } else if source.is_from_me {
        source.recipient_alt.as_ref()
    } else {
        source.sender_alt.as_ref()
    }
}

/// A person's address by number if it is known, and the other one.
pub(crate) async fn person(
    client: &Client,
    jid: &LibraryJid,
    alt: Option<&LibraryJid>,
) -> Option<(Jid, Option<Jid>)> {
    let primary = account(jid)?;
    let mut other = alt.and_then(account).filter(|other| *other != primary);
    if other.is_none() && jid.is_lid() {
        // The mapping is in memory, or one read away; a failure only costs the number.
        let entry = client.get_lid_pn_entry(jid).await.ok().flatten();
        other = entry.map(|entry| Jid::pn(entry.phone_number.to_string()));
    }
    match other {
        Some(number) if number.phone().is_some() && primary.phone().is_none() => {
            Some((number, Some(primary)))
        }
        other => Some((primary, other)),
    }
}

/// Converts a batch in order, leaving out what is not for people.
pub(crate) async fn convert_all(
    client: &Arc<Client>,
    batch: &[LibraryMessage],
) -> Vec<InboundMessage> {
    let mut converted = Vec::with_capacity(batch.len());
    for message in batch {
        if let Some(message) = convert(client, message).await {
            converted.push(message);
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use waproto::buffa::MessageField;

    use super::*;

    fn text_of(message: &wa::Message) -> Option<String> {
        match content(message)? {
            Content::Text { text } => Some(text),
            Content::Unsupported { .. } => None,
        }
    }

    fn conversation(text: &str) -> wa::Message {
        wa::Message {
            conversation: Some(text.to_owned()),
            ..Default::default()
        }
    }

    fn wrapped(message: wa::Message) -> MessageField<wa::message::FutureProofMessage> {
        MessageField::some(wa::message::FutureProofMessage {
            message: MessageField::some(message),
        })
    }

    #[test]
    fn plain_and_extended_text_are_text() {
        assert_eq!(text_of(&conversation("hello")).as_deref(), Some("hello"));
        let extended = wa::Message {
            extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
                text: Some("quoted".to_owned()),
                context_info: MessageField::some(wa::ContextInfo {
                    stanza_id: Some("3EB0".to_owned()),
                    mentioned_jid: vec!["1@s.whatsapp.net".to_owned()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(text_of(&extended).as_deref(), Some("quoted"));
    }

    #[test]
    fn wrappers_are_taken_off() {
        let sent = wa::Message {
            device_sent_message: MessageField::some(wa::message::DeviceSentMessage {
                destination_jid: Some("1@s.whatsapp.net".to_owned()),
                message: MessageField::some(wa::Message {
                    ephemeral_message: wrapped(conversation("mine")),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(text_of(&sent).as_deref(), Some("mine"));
        let once = wa::Message {
            view_once_message_v2: wrapped(conversation("once")),
            ..Default::default()
        };
        assert_eq!(text_of(&once).as_deref(), Some("once"));
    }

    #[test]
    fn other_kinds_are_named() {
        let image = wa::Message {
            image_message: MessageField::some(wa::message::ImageMessage::default()),
            ..Default::default()
        };
        assert_eq!(content(&image).unwrap().kind(), "image");
        let reaction = wa::Message {
            reaction_message: MessageField::some(wa::message::ReactionMessage::default()),
            ..Default::default()
        };
        assert_eq!(content(&reaction).unwrap().kind(), "reaction");
        let revoke = wa::Message {
            protocol_message: MessageField::some(wa::message::ProtocolMessage {
                r#type: Some(wa::message::protocol_message::Type::REVOKE),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(content(&revoke).unwrap().kind(), "revoke");
    }

    #[test]
    fn what_devices_tell_each_other_is_no_message() {
        let keys = wa::Message {
            protocol_message: MessageField::some(wa::message::ProtocolMessage {
                r#type: Some(wa::message::protocol_message::Type::APP_STATE_SYNC_KEY_SHARE),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(content(&keys), None);
        assert_eq!(content(&wa::Message::default()), None);
    }

    #[test]
    fn an_unknown_kind_is_not_lost() {
        let album = wa::Message {
            payment_reminder_message: MessageField::some(Default::default()),
            ..Default::default()
        };
        assert_eq!(content(&album).unwrap().kind(), "unknown");
    }

    #[test]
    fn text_that_a_database_cannot_hold_is_mended() {
        assert_eq!(
            text_of(&conversation("a\0b")).as_deref(),
            Some("a\u{fffd}b")
        );
    }
}
