//! The stanza tree that crosses the wire: a tag, attributes and content.
//!
//! Independent of `wacore-binary` on purpose: this side must not share the gateway's bugs. The codec
//! turns it into bytes and back ([`crate::codec`]); the world reads and builds it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::jid::Jid;

/// Text that is usually a dictionary token and then costs no allocation.
pub type Str = Cow<'static, str>;

/// One XML-like element of WhatsApp's binary protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub tag: Str,
    pub attrs: Vec<(Str, Value)>,
    pub content: Content,
}

/// An attribute's value. Addresses travel as their own token, never as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Str(Str),
    Jid(Jid),
}

/// What an element holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    #[default]
    None,
    Nodes(Vec<Node>),
    Bytes(Bytes),
    Str(Str),
}

impl Node {
    pub fn new(tag: impl Into<Str>) -> Self {
        Self {
            tag: tag.into(),
            attrs: Vec::new(),
            content: Content::None,
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, key: impl Into<Str>, value: impl Into<Value>) -> Self {
        self.attrs.push((key.into(), value.into()));
        self
    }

    /// Adds an attribute where there is a value for it.
    #[must_use]
    pub fn attr_opt(self, key: impl Into<Str>, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.attr(key, value),
            None => self,
        }
    }

    /// Appends a child.
    #[must_use]
    pub fn child(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    /// Appends children.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        for child in children {
            self.push(child);
        }
        self
    }

    /// Sets binary content.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.content = Content::Bytes(bytes.into());
        self
    }

    pub fn push(&mut self, child: Self) {
        match &mut self.content {
            Content::Nodes(nodes) => nodes.push(child),
            _ => self.content = Content::Nodes(vec![child]),
        }
    }

    /// Sets or replaces an attribute.
    pub fn set(&mut self, key: impl Into<Str>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.attrs.iter_mut().find(|(k, _)| *k == key) {
            Some(slot) => slot.1 = value,
            None => self.attrs.push((key, value)),
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.attrs.iter().position(|(k, _)| k == key)?;
        Some(self.attrs.remove(at).1)
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.attrs.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The attribute as text; an address is printed.
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.value(key).map(|value| match value {
            Value::Str(text) => Cow::Borrowed(text.as_ref()),
            Value::Jid(jid) => Cow::Owned(jid.to_string()),
        })
    }

    /// The attribute as an address, whether it came as a token or as text.
    pub fn jid(&self, key: &str) -> Option<Jid> {
        match self.value(key)? {
            Value::Jid(jid) => Some(jid.clone()),
            Value::Str(text) => text.parse().ok(),
        }
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    pub fn is(&self, tag: &str) -> bool {
        self.tag == tag
    }

    pub fn nodes(&self) -> &[Self] {
        match &self.content {
            Content::Nodes(nodes) => nodes,
            _ => &[],
        }
    }

    pub fn nodes_mut(&mut self) -> &mut [Self] {
        match &mut self.content {
            Content::Nodes(nodes) => nodes,
            _ => &mut [],
        }
    }

    /// The first child, which for `iq` and `ib` is the one that says what the stanza means.
    pub fn first(&self) -> Option<&Self> {
        self.nodes().first()
    }

    /// The first child with this tag.
    pub fn find(&self, tag: &str) -> Option<&Self> {
        self.nodes().iter().find(|node| node.tag == tag)
    }

    /// All children with this tag.
    pub fn all<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a Self> {
        self.nodes().iter().filter(move |node| node.tag == tag)
    }

    /// Follows first children by tag.
    pub fn path(&self, tags: &[&str]) -> Option<&Self> {
        tags.iter().try_fold(self, |node, tag| node.find(tag))
    }

    /// The content as bytes, whether it came as text or as binary.
    pub fn data(&self) -> Option<Bytes> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes.clone()),
            Content::Str(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Content::None | Content::Nodes(_) => None,
        }
    }

    /// The content as UTF-8 text.
    pub fn text(&self) -> Option<String> {
        String::from_utf8(self.data()?.to_vec()).ok()
    }
}

/// Prints the element as XML for transcripts and logs; binary content as its length only.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.tag)?;
        for (key, value) in &self.attrs {
            match value {
                Value::Str(text) => write!(f, " {key}=\"{}\"", text.escape_debug())?,
                Value::Jid(jid) => write!(f, " {key}=\"{jid}\"")?,
            }
        }
        match &self.content {
            Content::None => f.write_str("/>"),
            Content::Nodes(nodes) => {
                f.write_str(">")?;
                for node in nodes {
                    write!(f, "{node}")?;
                }
                write!(f, "</{}>", self.tag)
            }
            Content::Bytes(bytes) => write!(f, ">[{} bytes]</{}>", bytes.len(), self.tag),
            Content::Str(text) => write!(f, ">{}</{}>", text.escape_debug(), self.tag),
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Str(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(Cow::Owned(text))
    }
}

impl From<Str> for Value {
    fn from(text: Str) -> Self {
        Self::Str(text)
    }
}

impl From<Jid> for Value {
    fn from(jid: Jid) -> Self {
        Self::Jid(jid)
    }
}

impl From<&Jid> for Value {
    fn from(jid: &Jid) -> Self {
        Self::Jid(jid.clone())
    }
}

macro_rules! number_value {
    ($($number:ty),*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Str(Cow::Owned(number.to_string()))
            }
        }
    )*};
}
number_value!(u8, u16, u32, u64, usize, i64);
