//! From our content to the library's messages.

mod text;

use wagate_domain::Content;
use waproto::buffa::MessageField;
use waproto::whatsapp as wa;

use crate::backend::MessageSecret;
use crate::error::EngineError;

/// What goes on the wire for this content. With the secret, votes, edits and reactions to it are
/// encrypted; the library makes one up for a message that has none.
pub(crate) fn message(
    content: &Content,
    secret: MessageSecret,
) -> Result<wa::Message, EngineError> {
    let mut message = match content {
        Content::Text { text } => text::message(text),
        Content::Unsupported { .. } => {
            return Err(EngineError::Unsupported {
                kind: "unsupported",
            });
        }
    };
    let context = wa::MessageContextInfo {
        message_secret: Some(secret.to_vec()),
        ..Default::default()
    };
    message.message_context_info = MessageField::some(context);
    Ok(message)
}
