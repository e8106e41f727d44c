//! Text of inbound messages: plain, or extended (with a quote, mentions or a preview).

use waproto::whatsapp as wa;

/// The text, if the message is one.
pub(super) fn text(message: &wa::Message) -> Option<String> {
    let plain = message.conversation.as_deref();
    let extended = || message.extended_text_message.as_option()?.text.as_deref();
    plain.or_else(extended).map(storable)
}

/// `PostgreSQL` cannot hold NUL characters; the sign for an unreadable one stands for them.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
