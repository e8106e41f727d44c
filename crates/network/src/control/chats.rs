//! What a phone's owner does and sees: writing, reading, typing, the screen.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::accounts::find;
use super::envelope::{Answer, Body, ControlError, Failure, Params, Place, Success, done};
use super::wait;
use crate::jid::Jid;
use crate::network::Network;
use crate::node::Node;
use crate::phone::{ChatState, PhoneError, ScreenMessage};

/// A text to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessage {
    /// A number, or an address such as `62812…@s.whatsapp.net` or `…@lid`.
    to: String,
    text: String,
}

/// A message that went out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sent {
    id: String,
}

/// Sends a text as the account's owner.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/messages", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = NewMessage, responses(
    (status = 200, body = Success<Sent>),
    (status = 404, description = "No such account, or the peer is not on WhatsApp", body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn send(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<NewMessage>,
) -> Answer<Sent> {
    let account = find(&network, &phone)?;
    let to = address("to", &body.to)?;
    if body.text.is_empty() {
        return Err(ControlError::invalid("text", "is empty"));
    }
    let id = network
        .with_phone(account, |phone, now, port| {
            phone.send_text(now, &to, &body.text, port)
        })
        .ok_or_else(gone)??;
    done(Sent { id })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ScreenParams {
    /// Only this chat: a number or an address.
    chat: Option<String>,
    /// Only what appeared after this position.
    #[serde(default)]
    after: u64,
    /// Only messages whose text has this in it.
    contains: Option<String>,
    /// Wait until there is one, at most so long (60000).
    wait_ms: Option<u64>,
}

/// Reads what the account's phone shows, oldest first; waits for it if asked to.
///
/// After a wait that found nothing the list is empty.
#[utoipa::path(get, path = "/control/v1/accounts/{phone}/screen", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`"), ScreenParams),
    responses(
    (status = 200, body = Success<Vec<ScreenMessage>>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn screen(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Params(params): Params<ScreenParams>,
) -> Answer<Vec<ScreenMessage>> {
    let account = find(&network, &phone)?;
    let chat = params
        .chat
        .as_deref()
        .map(|chat| address("chat", chat))
        .transpose()?;
    let chat = chat.map(|chat| canonical(&network, &chat));
    let wanted = |message: &ScreenMessage| match &params.contains {
        Some(part) => message
            .text
            .as_ref()
            .is_some_and(|text| text.contains(part.as_str())),
        None => true,
    };
    let look = || {
        let found: Vec<_> = network.with_phone(account, |phone, _, _| {
            let messages = phone.screen().messages(chat.as_deref(), params.after);
            messages
                .filter(|message| wanted(message))
                .cloned()
                .collect()
        })?;
        (!found.is_empty()).then_some(found)
    };
    done(
        wait::until(&network, params.wait_ms, look)
            .await?
            .unwrap_or_default(),
    )
}

/// Which messages to read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadMessages {
    /// A number or an address.
    chat: String,
    /// Message ids; everything unread when left out.
    #[serde(default)]
    ids: Vec<String>,
}

/// How many messages were read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Read {
    read: usize,
}

/// Opens a chat: sends read receipts.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/read", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = ReadMessages, responses(
    (status = 200, body = Success<Read>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn read(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<ReadMessages>,
) -> Answer<Read> {
    let account = find(&network, &phone)?;
    let chat = address("chat", &body.chat)?;
    let read = network
        .with_phone(account, |phone, _, port| phone.read(&chat, &body.ids, port))
        .ok_or_else(gone)?;
    done(Read { read })
}

/// Whose keys a phone loses.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoseKeys {
    /// A number or an address.
    peer: String,
}

/// How many of the peer's devices the phone had keys for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lost {
    sessions: usize,
}

/// Loses the keys that a phone shares with a peer, as one that was set up anew: what the peer sends next
/// cannot be decrypted, and the phone asks for it again.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/lose-keys", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = LoseKeys, responses(
    (status = 200, body = Success<Lost>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn lose_keys(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<LoseKeys>,
) -> Answer<Lost> {
    let account = find(&network, &phone)?;
    let peer = address("peer", &body.peer)?;
    let sessions = network
        .with_phone(account, |phone, _, port| phone.lose_keys(&peer, port))
        .ok_or_else(gone)?;
    done(Lost { sessions })
}

/// What a peer shows while somebody writes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Typing {
    /// A number or an address.
    to: String,
    state: TypingState,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TypingState {
    Composing,
    Recording,
    Paused,
}

/// Nothing more to say.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {}

/// Shows a peer that the owner writes, records, or stopped.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/typing", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = Typing, responses(
    (status = 200, body = Success<Told>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn typing(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<Typing>,
) -> Answer<Told> {
    let account = find(&network, &phone)?;
    let to = address("to", &body.to)?;
    let state = match body.state {
        TypingState::Composing => ChatState::Composing,
        TypingState::Recording => ChatState::Recording,
        TypingState::Paused => ChatState::Paused,
    };
    network
        .with_phone(account, |phone, _, port| phone.chat_state(&to, state, port))
        .ok_or_else(gone)?;
    done(Told {})
}

/// Whether the owner looks at the phone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Presence {
    available: bool,
}

/// Opens or closes the app, as others see it.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/presence", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = Presence, responses(
    (status = 200, body = Success<Told>),
    (status = 404, body = Failure),
))]
pub(super) async fn presence(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<Presence>,
) -> Answer<Told> {
    let account = find(&network, &phone)?;
    network
        .with_phone(account, |phone, _, port| {
            phone.presence(body.available, port);
        })
        .ok_or_else(gone)?;
    done(Told {})
}

/// Whom to block.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    /// A number or an address.
    who: String,
    /// False takes the block away.
    blocked: bool,
}

/// Blocks somebody, or no longer.
#[utoipa::path(post, path = "/control/v1/accounts/{phone}/block", tag = "chats",
    params(("phone" = String, Path, description = "The number, with or without `+`")),
    request_body = Block, responses(
    (status = 200, body = Success<Told>),
    (status = 404, body = Failure),
    (status = 422, body = Failure),
))]
pub(super) async fn block(
    State(network): State<Network>,
    Place(phone): Place<String>,
    Body(body): Body<Block>,
) -> Answer<Told> {
    let account = find(&network, &phone)?;
    let who = address("who", &body.who)?;
    let action = if body.blocked { "block" } else { "unblock" };
    let request = Node::new("iq")
        .attr("xmlns", "blocklist")
        .attr("type", "set")
        .attr("to", Jid::SERVER)
        .attr("id", format!("block-{}", who.user))
        .child(Node::new("item").attr("action", action).attr("jid", who));
    network.with_world(|world, now, out| world.from_phone(now, account, request, out));
    done(Told {})
}

/// An address, or a number in digits with or without `+`.
fn address(field: &str, text: &str) -> Result<Jid, ControlError> {
    let digits: String = text.trim_start_matches('+').to_owned();
    if (5..=17).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Jid::pn(digits, 0));
    }
    match text.parse::<Jid>() {
        Ok(jid) if !jid.user.is_empty() => Ok(jid),
        _ => Err(ControlError::invalid(
            field,
            format!("`{text}` is neither a number nor an address"),
        )),
    }
}

/// Screens show a chat under the peer's number where it is known.
fn canonical(network: &Network, chat: &Jid) -> String {
    let known = network.with_world(|world, _, _| world.find(chat).map(crate::world::Account::pn));
    known.unwrap_or_else(|| chat.bare()).to_string()
}

fn gone() -> ControlError {
    ControlError::not_found("account_not_found", "the account has no phone")
}

impl From<PhoneError> for ControlError {
    fn from(error: PhoneError) -> Self {
        let text = error.to_string();
        match error {
            PhoneError::NotOnWhatsApp(_) => Self::not_found("not_on_whatsapp", text),
            PhoneError::NoSuchMessage(_) => Self::not_found("message_not_found", text),
            PhoneError::Signal(_) => Self::conflict("refused", text),
        }
    }
}
