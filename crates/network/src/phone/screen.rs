//! The screen: what the phone's owner would see.
//!
//! Bounded per phone; shows each message id of a chat once, as WhatsApp's clients do, and counts the
//! wire's copies apart so that a test can tell "shown once" from "came once".

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use crate::world::Millis;

/// How many messages a phone remembers; the oldest go first.
pub const SCREEN_MESSAGES_MAX: usize = 1_000;

/// One message as the phone shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScreenMessage {
    /// Position in the order of appearance, from 1, never reused.
    pub position: u64,
    pub id: String,
    /// The chat's address without device: the peer's (by number when known) or the group's.
    pub chat: String,
    /// The author's address without device.
    pub from: String,
    pub from_device: u16,
    /// Written by this phone's owner, here or on a companion.
    pub from_me: bool,
    /// `text`, `image`, `video`, `audio`, `document`, `sticker`, `location`, `contact`, `reaction`,
    /// `poll` … or `unknown`; `encrypted` when this phone does not decrypt.
    pub kind: String,
    /// The text, the caption or the reaction's emoji.
    pub text: Option<String>,
    /// The message that this one quotes or reacts to.
    pub quoted: Option<String>,
    pub edited: bool,
    pub deleted: bool,
    pub push_name: Option<String>,
    /// The server's time in the stanza.
    pub sent_at_ms: Millis,
    /// When it appeared here.
    pub shown_at_ms: Millis,
    /// How many stanzas brought it.
    pub wire_copies: u32,
    /// Whether this phone sent its `read` receipt.
    pub read: bool,
    /// Whether this phone sent its `played` receipt.
    pub played: bool,
    /// For `from_me`: the farthest that came back: `pending`, `server`, `delivered`, `read`, `played`, or `refused`.
    pub status: Option<String>,
}

/// How far an own message came, in order.
const STATUSES: [&str; 5] = ["pending", "server", "delivered", "read", "played"];

/// Chat and author and id: what makes two copies the same message.
type Key = (String, String, String);

/// The messages of one phone in order of appearance.
#[derive(Debug, Default)]
pub struct Screen {
    messages: VecDeque<ScreenMessage>,
    /// Where in `messages` a message stands, as its position.
    index: HashMap<Key, u64>,
    last_position: u64,
}

impl Screen {
    /// Shows a message, or counts one more copy of it. Answers the message and whether it is new.
    pub(super) fn show(&mut self, mut message: ScreenMessage) -> (&ScreenMessage, bool) {
        let key = key(&message.chat, &message.from, &message.id);
        if let Some(at) = self.index.get(&key).and_then(|position| self.at(*position)) {
            let shown = &mut self.messages[at];
            shown.wire_copies += message.wire_copies;
            return (shown, false);
        }
        if self.messages.len() >= SCREEN_MESSAGES_MAX
            && let Some(old) = self.messages.pop_front()
        {
            self.index.remove(&self::key(&old.chat, &old.from, &old.id));
        }
        self.last_position += 1;
        message.position = self.last_position;
        self.index.insert(key, message.position);
        self.messages.push_back(message);
        (&self.messages[self.messages.len() - 1], true)
    }

    /// Counts a copy that could not or need not be opened again. Answers whether it is known.
    pub(super) fn count_copy(
        &mut self,
        chat: &str,
        from: &str,
        id: &str,
    ) -> Option<&ScreenMessage> {
        let message = self.find_mut(chat, from, id)?;
        message.wire_copies += 1;
        Some(message)
    }

    /// A message by chat, author and id.
    pub fn find(&self, chat: &str, from: &str, id: &str) -> Option<&ScreenMessage> {
        let position = self.index.get(&key(chat, from, id))?;
        self.at(*position).map(|at| &self.messages[at])
    }

    pub(super) fn find_mut(
        &mut self,
        chat: &str,
        from: &str,
        id: &str,
    ) -> Option<&mut ScreenMessage> {
        let position = *self.index.get(&key(chat, from, id))?;
        self.at(position).map(|at| &mut self.messages[at])
    }

    /// The newest messages by id, whoever wrote them; a phone knows few with the same id.
    pub fn by_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a ScreenMessage> {
        self.messages
            .iter()
            .rev()
            .filter(move |message| message.id == id)
    }

    /// Raises an own message's status; it never moves back. Answers it when it changed.
    pub(super) fn advance(&mut self, id: &str, me: &str, status: &str) -> Option<&ScreenMessage> {
        let rank = |status: &str| STATUSES.iter().position(|known| *known == status);
        let message = self
            .messages
            .iter_mut()
            .rev()
            .find(|message| message.id == id && message.from == me)?;
        let known = message.status.as_deref().and_then(rank);
        if status == "refused" || rank(status) > known {
            message.status = Some(status.to_owned());
            return Some(message);
        }
        None
    }

    /// Messages after a position, of one chat or of all, oldest first.
    pub fn messages<'a>(
        &'a self,
        chat: Option<&'a str>,
        after: u64,
    ) -> impl Iterator<Item = &'a ScreenMessage> {
        self.messages
            .iter()
            .filter(move |message| message.position > after)
            .filter(move |message| chat.is_none_or(|chat| chat == message.chat))
    }

    /// The chats with something in them, in order of their first message still remembered.
    pub fn chats(&self) -> Vec<String> {
        let mut chats: Vec<String> = Vec::new();
        for message in &self.messages {
            if !chats.contains(&message.chat) {
                chats.push(message.chat.clone());
            }
        }
        chats
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Positions in the queue are consecutive, so a position leads to its place.
    fn at(&self, position: u64) -> Option<usize> {
        let first = self.messages.front()?.position;
        let at = usize::try_from(position.checked_sub(first)?).ok()?;
        (at < self.messages.len()).then_some(at)
    }
}

fn key(chat: &str, from: &str, id: &str) -> Key {
    (chat.to_owned(), from.to_owned(), id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> ScreenMessage {
        ScreenMessage {
            position: 0,
            id: id.to_owned(),
            chat: "1@s.whatsapp.net".to_owned(),
            from: "1@s.whatsapp.net".to_owned(),
            from_device: 0,
            from_me: false,
            kind: "text".to_owned(),
            text: Some("hi".to_owned()),
            quoted: None,
            edited: false,
            deleted: false,
            push_name: None,
            sent_at_ms: 0,
            shown_at_ms: 0,
            wire_copies: 1,
            read: false,
            played: false,
            status: Some("pending".to_owned()),
        }
    }

    #[test]
    fn shows_a_message_once_and_counts_its_copies() {
        let mut screen = Screen::default();
        assert!(screen.show(message("A")).1);
        let (shown, new) = screen.show(message("A"));
        assert!(!new);
        assert_eq!(shown.wire_copies, 2);
        assert_eq!(screen.len(), 1);
    }

    #[test]
    fn forgets_the_oldest_first() {
        let mut screen = Screen::default();
        for number in 0..SCREEN_MESSAGES_MAX + 5 {
            screen.show(message(&number.to_string()));
        }
        assert_eq!(screen.len(), SCREEN_MESSAGES_MAX);
        assert!(screen.by_id("4").next().is_none());
        let newest = (SCREEN_MESSAGES_MAX + 4).to_string();
        let chat = "1@s.whatsapp.net";
        assert_eq!(screen.find(chat, chat, &newest).unwrap().position, 1_005);
        assert!(screen.find(chat, chat, "5").is_some());
    }

    #[test]
    fn a_late_delivery_does_not_move_a_read_message_back() {
        let mut screen = Screen::default();
        screen.show(message("A"));
        let me = "1@s.whatsapp.net";
        assert!(screen.advance("A", me, "read").is_some());
        assert!(screen.advance("A", me, "delivered").is_none());
        assert_eq!(
            screen.by_id("A").next().unwrap().status.as_deref(),
            Some("read")
        );
    }
}
