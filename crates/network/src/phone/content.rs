//! Message content: building what a phone says, reading what it is told, and the padding around both.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waproto::buffa::MessageField;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type as ProtocolType;

/// Something that a phone's owner sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outgoing {
    /// A text.
    Text { text: String },
    /// A text that quotes another message of the same chat.
    Reply { text: String, quoted: Target },
    /// An emoji on a message; an empty one takes it back.
    Reaction { emoji: String, target: Target },
    /// A new text for an own message.
    Edit { id: String, text: String },
    /// Deletes an own message for everyone.
    Delete { id: String },
    /// A place.
    Location {
        latitude_micro: i64,
        longitude_micro: i64,
        name: Option<String>,
    },
    /// An address card.
    Contact { name: String, vcard: String },
}

/// A message of the same chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    pub id: String,
    /// Whether this phone's owner wrote it.
    #[serde(default)]
    pub from_me: bool,
    /// In a group: who wrote it.
    #[serde(default)]
    pub author: Option<String>,
}

/// The stanza's `type` and `edit` attributes that go with a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StanzaKind {
    pub(super) kind: &'static str,
    pub(super) edit: Option<&'static str>,
}

impl Outgoing {
    pub(super) fn stanza_kind(&self) -> StanzaKind {
        match self {
            Self::Text { .. } | Self::Reply { .. } => StanzaKind {
                kind: "text",
                edit: None,
            },
            Self::Reaction { .. } => StanzaKind {
                kind: "reaction",
                edit: None,
            },
            Self::Edit { .. } => StanzaKind {
                kind: "text",
                edit: Some("1"),
            },
            Self::Delete { .. } => StanzaKind {
                kind: "text",
                edit: Some("7"),
            },
            Self::Location { .. } | Self::Contact { .. } => StanzaKind {
                kind: "media",
                edit: None,
            },
        }
    }

    /// The message for a chat whose address is `chat`.
    pub(super) fn message(&self, chat: &str, now_ms: i64) -> wa::Message {
        match self {
            Self::Text { text } => wa::Message {
                conversation: Some(text.clone()),
                ..Default::default()
            },
            Self::Reply { text, quoted } => reply(text, quoted),
            Self::Reaction { emoji, target } => wa::Message {
                reaction_message: MessageField::some(wa::message::ReactionMessage {
                    key: MessageField::some(message_key(chat, target)),
                    text: Some(emoji.clone()),
                    sender_timestamp_ms: Some(now_ms),
                    ..Default::default()
                }),
                ..Default::default()
            },
            Self::Edit { id, text } => protocol(wa::message::ProtocolMessage {
                key: MessageField::some(own_key(chat, id)),
                r#type: Some(ProtocolType::MESSAGE_EDIT),
                edited_message: MessageField::some(wa::Message {
                    conversation: Some(text.clone()),
                    ..Default::default()
                }),
                timestamp_ms: Some(now_ms),
                ..Default::default()
            }),
            Self::Delete { id } => protocol(wa::message::ProtocolMessage {
                key: MessageField::some(own_key(chat, id)),
                r#type: Some(ProtocolType::REVOKE),
                ..Default::default()
            }),
            Self::Location {
                latitude_micro,
                longitude_micro,
                name,
            } => wa::Message {
                location_message: MessageField::some(wa::message::LocationMessage {
                    degrees_latitude: Some(degrees(*latitude_micro)),
                    degrees_longitude: Some(degrees(*longitude_micro)),
                    name: name.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            Self::Contact { name, vcard } => wa::Message {
                contact_message: MessageField::some(wa::message::ContactMessage {
                    display_name: Some(name.clone()),
                    vcard: Some(vcard.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
        }
    }
}

fn reply(text: &str, quoted: &Target) -> wa::Message {
    let context = wa::ContextInfo {
        stanza_id: Some(quoted.id.clone()),
        participant: quoted.author.clone(),
        quoted_message: MessageField::some(wa::Message {
            conversation: Some(String::new()),
            ..Default::default()
        }),
        ..Default::default()
    };
    wa::Message {
        extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
            text: Some(text.to_owned()),
            context_info: MessageField::some(context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn protocol(message: wa::message::ProtocolMessage) -> wa::Message {
    wa::Message {
        protocol_message: MessageField::some(message),
        ..Default::default()
    }
}

/// Wraps what the owner wrote for the owner's other devices.
pub(super) fn device_sent(chat: &str, message: wa::Message) -> wa::Message {
    wa::Message {
        device_sent_message: MessageField::some(wa::message::DeviceSentMessage {
            destination_jid: Some(chat.to_owned()),
            message: MessageField::some(message),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn message_key(chat: &str, target: &Target) -> wa::MessageKey {
    wa::MessageKey {
        remote_jid: Some(chat.to_owned()),
        from_me: Some(target.from_me),
        id: Some(target.id.clone()),
        participant: target.author.clone(),
    }
}

fn own_key(chat: &str, id: &str) -> wa::MessageKey {
    message_key(
        chat,
        &Target {
            id: id.to_owned(),
            from_me: true,
            author: None,
        },
    )
}

#[expect(clippy::cast_precision_loss, reason = "micro-degrees have nine digits")]
fn degrees(micro: i64) -> f64 {
    micro as f64 / 1e6
}

/// Encodes and pads: one to sixteen bytes of their own count.
pub(super) fn pad(message: &wa::Message, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = waproto::codec::message_to_vec(message);
    let pad: u8 = rng.random_range(1..=16);
    bytes.resize(bytes.len() + usize::from(pad), pad);
    bytes
}

/// Unpads and decodes.
pub(super) fn unpad(plaintext: &[u8]) -> Result<wa::Message, &'static str> {
    let pad = usize::from(*plaintext.last().ok_or("the plaintext is empty")?);
    let end = plaintext
        .len()
        .checked_sub(pad)
        .ok_or("the padding is longer than the message")?;
    if pad == 0
        || plaintext[end..]
            .iter()
            .any(|byte| usize::from(*byte) != pad)
    {
        return Err("the padding does not hold");
    }
    waproto::codec::message_decode(&plaintext[..end]).map_err(|_| "the plaintext is not a message")
}

/// What a message shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) kind: &'static str,
    pub(super) text: Option<String>,
    pub(super) quoted: Option<String>,
}

/// What a message asks the phone to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// Something for the screen.
    Show(Shown),
    /// A new text for an earlier message of the same author.
    Edit { id: String, text: Option<String> },
    /// An earlier message is gone.
    Delete { id: String },
    /// A companion asks for app-state keys.
    KeyRequest(Vec<Vec<u8>>),
    /// Nothing to see: key distribution, settings, peer chatter.
    Silent,
}

/// Reads a message; containers that only change how a client shows it are opened.
pub(super) fn meaning(message: &wa::Message) -> Meaning {
    if let Some(inner) = inner(message) {
        return meaning(inner);
    }
    if let Some(protocol) = message.protocol_message.as_option() {
        return protocol_meaning(protocol);
    }
    match shown(message) {
        Some(shown) => Meaning::Show(shown),
        None if is_blank(message) => Meaning::Silent,
        None => Meaning::Show(Shown {
            kind: "unknown",
            text: None,
            quoted: None,
        }),
    }
}

fn inner(message: &wa::Message) -> Option<&wa::Message> {
    [
        &message.ephemeral_message,
        &message.view_once_message,
        &message.view_once_message_v2,
        &message.view_once_message_v2_extension,
        &message.document_with_caption_message,
        &message.edited_message,
    ]
    .into_iter()
    .find_map(|wrapper| wrapper.as_option()?.message.as_option())
}

fn protocol_meaning(protocol: &wa::message::ProtocolMessage) -> Meaning {
    let id = || {
        protocol
            .key
            .as_option()
            .and_then(|key| key.id.clone())
            .unwrap_or_default()
    };
    match protocol.r#type {
        Some(ProtocolType::REVOKE) => Meaning::Delete { id: id() },
        Some(ProtocolType::MESSAGE_EDIT) => Meaning::Edit {
            id: id(),
            text: protocol
                .edited_message
                .as_option()
                .and_then(|message| match meaning(message) {
                    Meaning::Show(shown) => shown.text,
                    _ => None,
                }),
        },
        Some(ProtocolType::APP_STATE_SYNC_KEY_REQUEST) => Meaning::KeyRequest(
            protocol
                .app_state_sync_key_request
                .as_option()
                .map(|request| {
                    request
                        .key_ids
                        .iter()
                        .filter_map(|key| key.key_id.clone())
                        .collect()
                })
                .unwrap_or_default(),
        ),
        _ => Meaning::Silent,
    }
}

fn shown(message: &wa::Message) -> Option<Shown> {
    let make = |kind, text: Option<String>, context: Option<&wa::ContextInfo>| {
        let quoted = context.and_then(|context| context.stanza_id.clone());
        Some(Shown { kind, text, quoted })
    };
    macro_rules! media {
        ($($field:ident => $kind:literal, $text:expr;)*) => {$(
            if let Some(part) = message.$field.as_option() {
                let text: fn(&_) -> Option<String> = $text;
                return make($kind, text(part), part.context_info.as_option());
            }
        )*};
    }
    if let Some(text) = &message.conversation {
        return make("text", Some(text.clone()), None);
    }
    if let Some(reaction) = message.reaction_message.as_option() {
        let quoted = reaction.key.as_option().and_then(|key| key.id.clone());
        return Some(Shown {
            kind: "reaction",
            text: reaction.text.clone(),
            quoted,
        });
    }
    media! {
        extended_text_message => "text", |part: &wa::message::ExtendedTextMessage| part.text.clone();
        image_message => "image", |part: &wa::message::ImageMessage| part.caption.clone();
        video_message => "video", |part: &wa::message::VideoMessage| part.caption.clone();
        ptv_message => "video", |part: &wa::message::VideoMessage| part.caption.clone();
        document_message => "document", |part: &wa::message::DocumentMessage| {
            part.caption.clone().or_else(|| part.file_name.clone())
        };
        sticker_message => "sticker", |_: &wa::message::StickerMessage| None;
        location_message => "location", |part: &wa::message::LocationMessage| part.name.clone();
        live_location_message => "location", |part: &wa::message::LiveLocationMessage| {
            part.caption.clone()
        };
        contact_message => "contact", |part: &wa::message::ContactMessage| part.display_name.clone();
        contacts_array_message => "contact", |part: &wa::message::ContactsArrayMessage| {
            part.display_name.clone()
        };
        poll_creation_message => "poll", |part: &wa::message::PollCreationMessage| part.name.clone();
        poll_creation_message_v2 => "poll", |part: &wa::message::PollCreationMessage| part.name.clone();
        poll_creation_message_v3 => "poll", |part: &wa::message::PollCreationMessage| part.name.clone();
        list_message => "list", |part: &wa::message::ListMessage| part.description.clone();
        buttons_message => "buttons", |part: &wa::message::ButtonsMessage| part.content_text.clone();
        template_message => "template", |_: &wa::message::TemplateMessage| None;
    }
    if let Some(audio) = message.audio_message.as_option() {
        let kind = if audio.ptt == Some(true) {
            "voice"
        } else {
            "audio"
        };
        return make(kind, None, audio.context_info.as_option());
    }
    None
}

/// Whether nothing but bookkeeping is set: an own-device wrapper, a sender key, context.
fn is_blank(message: &wa::Message) -> bool {
    let mut rest = message.clone();
    rest.sender_key_distribution_message.take();
    rest.fast_ratchet_key_sender_key_distribution_message.take();
    rest.message_context_info.take();
    rest.device_sent_message.take();
    waproto::codec::message_to_vec(&rest).is_empty()
}
