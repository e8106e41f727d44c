//! Everything about a round that the judge looks at, as plain data: what clients asked and were told, what
//! phones wrote, what the gateway says that it has, its events, and what crossed the network.

use serde_json::Value;
use wagate_network::check::Violation;
use wagate_network::transcript::Entry;

use super::journal::Journal;

/// A round's evidence.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub round: u32,
    pub journal: Journal,
    /// What the gateway lists, of this round.
    pub stored: Vec<Stored>,
    /// The tenants' event feeds, in order.
    pub events: Vec<Event>,
    /// The histories that were read: message, then status and failure.
    pub histories: Vec<(String, Vec<Moved>)>,
    /// What crossed the network.
    pub entries: Vec<Entry>,
    /// What the network's own checkers say.
    pub network: Vec<Violation>,
    pub sessions: Vec<Place>,
    /// The contacts' numbers in digits.
    pub contacts: Vec<String>,
    /// What the drain waited for in vain.
    pub unsettled: Vec<String>,
    /// Messages that a session may send at once.
    pub concurrency: usize,
}

/// A session as the judge knows it.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub tenant: usize,
    /// Its owner's number in digits.
    pub owner: String,
}

/// A message as the gateway lists it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: String,
    pub session: String,
    pub inbound: bool,
    pub from_me: bool,
    pub text: String,
    pub status: String,
    pub failure: Option<(String, String)>,
    pub wa_id: String,
    pub attempts: u64,
}

/// One step of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub status: String,
    pub failure: Option<(String, String)>,
}

/// One event of a tenant.
#[derive(Clone, Debug)]
pub struct Event {
    pub tenant: usize,
    pub seq: i64,
    /// When it was recorded.
    pub at: i64,
    pub kind: String,
    pub session: String,
    pub chat: String,
    pub message: String,
    pub status: String,
    pub failure: Option<(String, String)>,
    pub text: String,
    pub from_me: bool,
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn failure(value: &Value) -> Option<(String, String)> {
    value
        .is_object()
        .then(|| (word(&value["code"]), word(&value["reason"])))
}

impl Stored {
    pub fn of(value: &Value) -> Self {
        Self {
            id: word(&value["id"]),
            session: word(&value["sessionId"]),
            inbound: value["direction"] == "inbound",
            from_me: value["fromMe"] == true,
            text: word(&value["text"]),
            status: word(&value["status"]),
            failure: failure(&value["failure"]),
            wa_id: word(&value["waMessageId"]),
            attempts: value["attempts"].as_u64().unwrap_or(0),
        }
    }
}

impl Moved {
    pub fn of(value: &Value) -> Self {
        Self {
            status: word(&value["status"]),
            failure: failure(&value["failure"]),
        }
    }
}

impl Event {
    pub fn of(tenant: usize, value: &Value) -> Self {
        let data = &value["data"];
        let at = value["at"].as_str().unwrap_or_default();
        Self {
            tenant,
            seq: value["seq"].as_i64().unwrap_or(0),
            at: at
                .parse::<jiff::Timestamp>()
                .map_or(0, jiff::Timestamp::as_millisecond),
            kind: word(&value["type"]),
            session: word(&data["session"]),
            chat: word(&data["chat"]),
            message: word(&data["message"]),
            status: word(&data["status"]),
            failure: failure(&data["failure"]),
            text: word(&data["content"]["text"]),
            from_me: data["fromMe"] == true,
        }
    }

    /// It is about an outbound message's state.
    pub fn is_status(&self) -> bool {
        self.kind == "message.status"
    }
}
