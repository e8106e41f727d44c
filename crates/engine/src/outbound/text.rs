//! Text to send.

use waproto::whatsapp as wa;

/// A plain text, as WhatsApp Web writes one that quotes and mentions nobody.
pub(super) fn message(text: &str) -> wa::Message {
    wa::Message {
        conversation: Some(text.to_owned()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use wagate_domain::Content;

    #[test]
    fn a_text_comes_back_as_it_went() {
        let content = Content::Text {
            text: "líne\nbreak 👍🏽".to_owned(),
        };
        let message = super::super::message(&content, [7; 32]).unwrap();
        assert_eq!(crate::inbound::content(&message), Some(content));
    }
}
