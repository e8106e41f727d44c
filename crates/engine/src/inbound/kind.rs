//! The names of the kinds of messages that this version stores by name only.

use wa::message::protocol_message::Type;
use waproto::whatsapp as wa;

/// The name of the kind; `None` for what only devices care about.
pub(super) fn kind(message: &wa::Message) -> Option<&'static str> {
    if let Some(protocol) = message.protocol_message.as_option() {
        return protocol_kind(protocol);
    }
    if let Some((_, name)) = named().iter().find(|(is_set, _)| is_set(message)) {
        return Some(name);
    }
    // Sender keys and context travel in messages that hold nothing else.
    let mut rest = message.clone();
    rest.message_context_info = Default::default();
    rest.sender_key_distribution_message = Default::default();
    rest.fast_ratchet_key_sender_key_distribution_message = Default::default();
    (waproto::codec::message_encoded_len(&rest) > 0).then_some("unknown")
}

type IsSet = fn(&wa::Message) -> bool;

fn named() -> &'static [(IsSet, &'static str)] {
    &[
        (|m| m.image_message.is_set(), "image"),
        (
            |m| m.video_message.is_set() || m.ptv_message.is_set(),
            "video",
        ),
        (|m| m.audio_message.is_set(), "audio"),
        (|m| m.document_message.is_set(), "document"),
        (
            |m| m.sticker_message.is_set() || m.lottie_sticker_message.is_set(),
            "sticker",
        ),
        (|m| m.location_message.is_set(), "location"),
        (|m| m.live_location_message.is_set(), "live_location"),
        (
            |m| m.contact_message.is_set() || m.contacts_array_message.is_set(),
            "contact",
        ),
        (
            |m| m.reaction_message.is_set() || m.enc_reaction_message.is_set(),
            "reaction",
        ),
        (is_poll, "poll"),
        (|m| m.poll_update_message.is_set(), "poll_vote"),
        (|m| m.event_message.is_set(), "event"),
        (
            |m| m.edited_message.is_set() || m.secret_encrypted_message.is_set(),
            "edit",
        ),
        (
            |m| m.comment_message.is_set() || m.enc_comment_message.is_set(),
            "comment",
        ),
        (|m| m.album_message.is_set(), "album"),
        (|m| m.group_invite_message.is_set(), "group_invite"),
        (|m| m.pin_in_chat_message.is_set(), "pin"),
        (|m| m.keep_in_chat_message.is_set(), "keep"),
        (is_button, "buttons"),
        (
            |m| m.buttons_response_message.is_set() || m.list_response_message.is_set(),
            "reply",
        ),
        (|m| m.order_message.is_set(), "order"),
        (|m| m.product_message.is_set(), "product"),
        (|m| m.call.is_set() || m.call_log_messsage.is_set(), "call"),
        (|m| m.placeholder_message.is_set(), "placeholder"),
    ]
}

fn is_poll(message: &wa::Message) -> bool {
    message.poll_creation_message.is_set()
        || message.poll_creation_message_v2.is_set()
        || message.poll_creation_message_v3.is_set()
        || message.poll_creation_message_v4.is_set()
        || message.poll_creation_message_v5.is_set()
        || message.poll_creation_message_v6.is_set()
}

fn is_button(message: &wa::Message) -> bool {
    message.buttons_message.is_set()
        || message.list_message.is_set()
        || message.template_message.is_set()
        || message.interactive_message.is_set()
}

fn protocol_kind(message: &wa::message::ProtocolMessage) -> Option<&'static str> {
    match message.r#type? {
        Type::REVOKE => Some("revoke"),
        Type::MESSAGE_EDIT => Some("edit"),
        Type::EPHEMERAL_SETTING => Some("disappearing_setting"),
        _ => None,
    }
}
