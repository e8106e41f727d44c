//! What a rule does to a stanza or a login, and the stanzas that it puts in their place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::faults::{Direction, FaultError, Match};
use crate::node::{Content, Node, Value};
use crate::world::Millis;

/// The longest pause that a rule may ask for: ten minutes.
const LONGEST_MS: u64 = 600_000;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The stanza vanishes. A request that vanishes is never answered.
    Drop,
    /// The stanza is handled, or goes out, later; what follows it overtakes it. For a login: the answer
    /// comes later.
    Delay { ms: u64 },
    /// The stanza goes out twice, or is handled twice.
    Duplicate,
    /// The stanza goes out after the next one for the same connection, or after this pause if none comes.
    Reorder {
        #[serde(default = "reorder_ms")]
        ms: u64,
    },
    /// The message is not accepted: its acknowledgement carries this error code.
    Nack { code: u16 },
    /// The message is delivered but never acknowledged.
    NoAck,
    /// The message is delivered at once and acknowledged later.
    LateAck { ms: u64 },
    /// Another stanza takes its place. Attributes and content that are not given stay as they were.
    Replace { node: NodeSpec },
    /// One bit of the first encrypted part is flipped, so that the receiver cannot decrypt it.
    Corrupt,
    /// The request is answered with an error and not carried out.
    IqError {
        code: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Seconds to wait before the next try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backoff: Option<u32>,
    },
    /// A `stream:error` goes out in place of the stanza or of a login's success.
    StreamError {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<StreamErrorDetail>,
        /// Whether the network closes the connection then, as WhatsApp mostly does.
        #[serde(default = "yes")]
        close: bool,
    },
    /// `xmlstreamend` goes out in place of the stanza, and the connection closes.
    StreamEnd,
    /// The login is refused.
    Failure {
        reason: u16,
        /// The kind of a temporary ban (reason 402), 101 to 106.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The seconds that a temporary ban lasts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expire: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// The connection closes in place of the stanza or of a login's answer; abruptly means with no close
    /// frame, as when a cable is pulled.
    Close {
        #[serde(default)]
        abrupt: bool,
    },
    /// From here on the connection is open but dead: nothing is read, answered or sent.
    Silence,
}

/// The child of a `stream:error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamErrorDetail {
    /// `conflict type=replaced`: the device connected somewhere else.
    ConflictReplaced,
    /// `conflict type=device_removed`: the device was unlinked.
    ConflictDeviceRemoved,
    /// `xml-not-well-formed`
    XmlNotWellFormed,
    /// `ack`: an acknowledgement that the server did not expect.
    Ack,
}

/// A stanza written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    pub tag: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
    /// Children; at most one of `children`, `text` and `base64` may be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub children: Option<Vec<NodeSpec>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Binary content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

fn reorder_ms() -> u64 {
    2_000
}

fn yes() -> bool {
    true
}

impl Action {
    /// The name by which the API knows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay { .. } => "delay",
            Self::Duplicate => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Nack { .. } => "nack",
            Self::NoAck => "no_ack",
            Self::LateAck { .. } => "late_ack",
            Self::Replace { .. } => "replace",
            Self::Corrupt => "corrupt",
            Self::IqError { .. } => "iq_error",
            Self::StreamError { .. } => "stream_error",
            Self::StreamEnd => "stream_end",
            Self::Failure { .. } => "failure",
            Self::Close { .. } => "close",
            Self::Silence => "silence",
        }
    }

    /// Refuses what cannot be carried out where the rule listens.
    pub(super) fn check(&self, matches: &Match) -> Result<(), FaultError> {
        self.check_place(matches)?;
        match self {
            Self::Delay { ms } | Self::LateAck { ms } | Self::Reorder { ms } => {
                if !(1..=LONGEST_MS).contains(ms) {
                    let reason = format!("must lie between 1 and {LONGEST_MS}");
                    return Err(FaultError::new("action.ms", reason));
                }
            }
            Self::Nack { code } | Self::IqError { code, .. } => check_code("action.code", *code)?,
            Self::StreamError { code, detail, .. } => {
                if code.is_none() && detail.is_none() {
                    let reason = "a stream error needs a `code`, a `detail`, or both";
                    return Err(FaultError::new("action.code", reason));
                }
                if let Some(code) = code {
                    check_code("action.code", *code)?;
                }
            }
            Self::Failure {
                reason,
                code,
                expire,
                ..
            } => {
                check_code("action.reason", *reason)?;
                if *reason != 402 && (code.is_some() || expire.is_some()) {
                    let field = if code.is_some() {
                        "action.code"
                    } else {
                        "action.expire"
                    };
                    return Err(FaultError::new(field, "belongs to reason 402 only"));
                }
            }
            Self::Replace { node } => node.check("action.node")?,
            Self::Drop
            | Self::Duplicate
            | Self::NoAck
            | Self::Corrupt
            | Self::StreamEnd
            | Self::Close { .. }
            | Self::Silence => {}
        }
        Ok(())
    }

    fn check_place(&self, matches: &Match) -> Result<(), FaultError> {
        use Direction::{Connect, FromDevice, ToDevice};
        let places: &[Direction] = match self {
            Self::Drop | Self::Duplicate | Self::Replace { .. } | Self::Corrupt => {
                &[FromDevice, ToDevice]
            }
            Self::Reorder { .. } => &[ToDevice],
            Self::Nack { .. } | Self::NoAck | Self::LateAck { .. } | Self::IqError { .. } => {
                &[FromDevice]
            }
            Self::Failure { .. } => &[Connect],
            Self::Delay { .. }
            | Self::StreamError { .. }
            | Self::StreamEnd
            | Self::Close { .. }
            | Self::Silence => &[FromDevice, ToDevice, Connect],
        };
        if !places.contains(&matches.direction) {
            let reason = format!("`{}` works with {} only", self.name(), list(places));
            return Err(FaultError::new("match.direction", reason));
        }
        let needs = match self {
            Self::Nack { .. } | Self::NoAck | Self::LateAck { .. } => Some("message"),
            Self::IqError { .. } => Some("iq"),
            _ => None,
        };
        match needs {
            Some(tag) if matches.stanza.tag.as_deref() != Some(tag) => {
                let reason = format!("`{}` needs the tag `{tag}`", self.name());
                Err(FaultError::new("match.stanza.tag", reason))
            }
            _ if matches.device == Some(0) && self.ends_connection() => {
                let reason = format!("a phone has no connection to `{}`", self.name());
                Err(FaultError::new("match.device", reason))
            }
            _ => Ok(()),
        }
    }

    /// True for what ends a connection or makes it useless.
    pub fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::StreamError { .. }
                | Self::StreamEnd
                | Self::Failure { .. }
                | Self::Close { .. }
                | Self::Silence
        )
    }

    /// True for what keeps a stanza from its receiver or changes it, so that the checkers do not judge
    /// that stanza's delivery or order.
    pub fn disturbs_delivery(&self) -> bool {
        !matches!(self, Self::NoAck | Self::LateAck { .. } | Self::Duplicate)
    }

    /// The stanza that ends the stream or refuses the login, for the actions that send one.
    pub fn farewell(&self, id: Option<&str>) -> Option<Node> {
        match self {
            Self::StreamError { code, detail, .. } => Some(stream_error(*code, *detail, id)),
            Self::StreamEnd => Some(Node::new("xmlstreamend")),
            Self::Failure {
                reason,
                code,
                expire,
                location,
                message,
                url,
            } => Some(
                Node::new("failure")
                    .attr("reason", *reason)
                    .attr_opt("location", location.clone())
                    .attr_opt("code", *code)
                    .attr_opt("expire", *expire)
                    .attr_opt("message", message.clone())
                    .attr_opt("url", url.clone()),
            ),
            _ => None,
        }
    }

    /// How the connection ends after [`farewell`](Self::farewell): `Some(abrupt)`, or `None` if it
    /// stays open.
    pub fn closes(&self) -> Option<bool> {
        match self {
            Self::StreamError { close, .. } => close.then_some(false),
            Self::StreamEnd | Self::Failure { .. } => Some(false),
            Self::Close { abrupt } => Some(*abrupt),
            _ => None,
        }
    }

    /// The stanza that a device gets as the answer to its own, for the actions that refuse it.
    pub fn refusal(&self, now: Millis, request: &Node) -> Option<Node> {
        match self {
            Self::Nack { code } => Some(
                Node::new("ack")
                    .attr("class", "message")
                    .attr_opt("id", request.value("id").cloned())
                    .attr_opt("from", request.value("to").cloned())
                    .attr("t", now.div_euclid(1_000))
                    .attr("error", *code),
            ),
            Self::IqError {
                code,
                text,
                backoff,
            } => Some(
                Node::new("iq")
                    .attr_opt("from", request.value("to").cloned())
                    .attr_opt("id", request.value("id").cloned())
                    .attr("type", "error")
                    .child(
                        Node::new("error")
                            .attr("code", *code)
                            .attr_opt("text", text.clone())
                            .attr_opt("backoff", *backoff),
                    ),
            ),
            _ => None,
        }
    }

    /// The stanza as the actions `replace` and `corrupt` change it; others leave it as it is.
    #[must_use]
    pub fn changed(&self, mut node: Node) -> Node {
        match self {
            Self::Replace { node: spec } => spec.over(node),
            Self::Corrupt => {
                corrupt(&mut node);
                node
            }
            _ => node,
        }
    }
}

impl NodeSpec {
    fn check(&self, field: &'static str) -> Result<(), FaultError> {
        let contents = [
            self.children.is_some(),
            self.text.is_some(),
            self.base64.is_some(),
        ];
        if contents.into_iter().filter(|given| *given).count() > 1 {
            let reason = format!(
                "`{}`: give one of `children`, `text` and `base64` at most",
                self.tag
            );
            return Err(FaultError::new(field, reason));
        }
        if self.tag.is_empty() {
            return Err(FaultError::new(field, "a tag is empty"));
        }
        if let Some(text) = &self.base64
            && STANDARD.decode(text).is_err()
        {
            return Err(FaultError::new(
                field,
                format!("`{}`: not base64", self.tag),
            ));
        }
        self.children
            .iter()
            .flatten()
            .try_for_each(|child| child.check(field))
    }

    /// This stanza, with what it leaves open taken from another.
    fn over(&self, mut node: Node) -> Node {
        node.tag = Cow::Owned(self.tag.clone());
        for (key, value) in &self.attrs {
            node.set(key.clone(), to_value(value));
        }
        if let Some(content) = self.content() {
            node.content = content;
        }
        node
    }

    fn content(&self) -> Option<Content> {
        let blank = |spec: &Self| spec.over(Node::new(spec.tag.clone()));
        if let Some(children) = &self.children {
            return Some(Content::Nodes(children.iter().map(blank).collect()));
        }
        if let Some(text) = &self.text {
            return Some(Content::Str(Cow::Owned(text.clone())));
        }
        // Checked when the rule was added.
        let bytes = STANDARD.decode(self.base64.as_ref()?).ok()?;
        Some(Content::Bytes(bytes.into()))
    }
}

/// Addresses must travel as addresses: clients do not parse them from text.
fn to_value(text: &str) -> Value {
    match text.parse() {
        Ok(jid) if text.contains('@') => Value::Jid(jid),
        _ => Value::from(text.to_owned()),
    }
}

fn stream_error(code: Option<u16>, detail: Option<StreamErrorDetail>, id: Option<&str>) -> Node {
    let node = Node::new("stream:error").attr_opt("code", code);
    let conflict = |kind: &'static str| Node::new("conflict").attr("type", kind);
    match detail {
        None => node,
        Some(StreamErrorDetail::ConflictReplaced) => node.child(conflict("replaced")),
        Some(StreamErrorDetail::ConflictDeviceRemoved) => node.child(conflict("device_removed")),
        Some(StreamErrorDetail::XmlNotWellFormed) => node.child(Node::new("xml-not-well-formed")),
        Some(StreamErrorDetail::Ack) => node.child(
            Node::new("ack")
                .attr("class", "message")
                .attr_opt("id", id.map(str::to_owned)),
        ),
    }
}

/// Flips one bit in the middle of the first encrypted part.
fn corrupt(node: &mut Node) -> bool {
    if node.is("enc")
        && let Content::Bytes(bytes) = &node.content
        && !bytes.is_empty()
    {
        let mut changed = bytes.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        node.content = Content::Bytes(changed.into());
        return true;
    }
    node.nodes_mut().iter_mut().any(corrupt)
}

fn check_code(field: &'static str, code: u16) -> Result<(), FaultError> {
    if (400..=599).contains(&code) {
        return Ok(());
    }
    Err(FaultError::new(
        field,
        format!("{code} is no error code; they lie between 400 and 599"),
    ))
}

fn list(places: &[Direction]) -> String {
    let names: Vec<_> = places
        .iter()
        .map(|place| match place {
            Direction::FromDevice => "`from_device`",
            Direction::ToDevice => "`to_device`",
            Direction::Connect => "`connect`",
        })
        .collect();
    names.join(", ")
}
