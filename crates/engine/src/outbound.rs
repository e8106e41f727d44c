//! From our content to the library's messages.

mod text;

use wagate_domain::Content;
use waproto::whatsapp as wa;

use crate::error::EngineError;

/// What goes on the wire for this content.
pub(crate) fn message(content: &Content) -> Result<wa::Message, EngineError> {
    match content {
        Content::Text { text } => Ok(text::message(text)),
        Content::Unsupported { .. } => Err(EngineError::Unsupported {
            kind: "unsupported",
        }),
    }
}
