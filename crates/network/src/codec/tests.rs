//! Round trips in both dictionaries, agreement with `wacore-binary` in dictionary 3, and no panic on
//! anything.

use std::borrow::Cow;

use proptest::prelude::*;
use wacore_binary::node as theirs;

use super::*;
use crate::jid::{Jid, Server};
use crate::node::{Content, Value};

fn bytes_of(node: &Node, dictionary: &Dictionary) -> Vec<u8> {
    let mut out = Vec::new();
    encode(node, dictionary, &mut out).unwrap();
    out
}

fn round_trip(node: &Node, dictionary: &Dictionary) -> Node {
    decode(bytes_of(node, dictionary).into(), dictionary).unwrap()
}

#[test]
fn tables_are_complete() {
    for dictionary in [&*v2::DICTIONARY, &*v3::DICTIONARY] {
        assert_eq!(dictionary.tokens.len(), SINGLE_TOKENS + 4 * DOUBLE_TOKENS);
        assert_eq!(dictionary.single(3), Some("s.whatsapp.net"));
        assert_eq!(dictionary.single(0), None);
        assert_eq!(dictionary.single(236), None);
        for (text, place) in &dictionary.places {
            let back = match place {
                Token::Single(index) => dictionary.single(*index),
                Token::Double(table, index) => dictionary.double(*table, *index),
            };
            assert_eq!(back, Some(*text));
        }
    }
    let differing = (1..=235)
        .filter(|index| v2::DICTIONARY.single(*index) != v3::DICTIONARY.single(*index))
        .count();
    assert_eq!(differing, 223);
}

#[test]
fn dictionary_3_is_the_one_of_wacore() {
    use wacore_binary::token;
    for index in 1..=235 {
        assert_eq!(v3::DICTIONARY.single(index), token::get_single_token(index));
    }
    for table in 0..4 {
        for index in 0..=255 {
            assert_eq!(
                v3::DICTIONARY.double(table, index),
                token::get_double_token(table, index)
            );
        }
    }
}

#[test]
fn addresses_have_tokens_of_their_own() {
    let node = Node::new("iq")
        .attr("to", Jid::SERVER)
        .attr("from", Jid::pn("6281", 0))
        .attr("jid", Jid::lid("77", 12))
        .attr(
            "recipient",
            Jid {
                user: "5".into(),
                server: Server::HostedLid,
                device: 99,
            },
        );
    let bytes = bytes_of(&node, &v3::DICTIONARY);
    assert!(bytes.contains(&tag::JID_PAIR));
    assert!(
        bytes
            .windows(3)
            .any(|window| window == [tag::DEVICE_JID, 1, 12])
    );
    assert!(
        bytes
            .windows(3)
            .any(|window| window == [tag::DEVICE_JID, 129, 99])
    );
    assert_eq!(round_trip(&node, &v3::DICTIONARY), node);
    assert_eq!(round_trip(&node, &v2::DICTIONARY), node);
}

#[test]
fn messenger_addresses_carry_wide_devices() {
    let jid = Jid {
        user: "81".into(),
        server: Server::Messenger,
        device: 3365,
    };
    let node = Node::new("iq").attr("to", jid);
    assert_eq!(round_trip(&node, &v3::DICTIONARY), node);
    let bytes = bytes_of(&node, &v3::DICTIONARY);
    let read = wacore_binary::marshal::unmarshal_ref(&bytes[1..])
        .unwrap()
        .to_owned();
    let their = read.attrs().optional_jid("to").unwrap();
    assert_eq!(their.device, 3365);
}

#[test]
fn devices_beyond_a_byte_travel_as_text() {
    let node = Node::new("iq").attr("to", Jid::pn("6281", 300));
    let back = round_trip(&node, &v3::DICTIONARY);
    assert_eq!(
        back.value("to"),
        Some(&Value::Str("6281:300@s.whatsapp.net".into()))
    );
    assert_eq!(back.jid("to"), Some(Jid::pn("6281", 300)));
}

#[test]
fn compressed_stanzas_are_read() {
    let node = Node::new("message").child(Node::new("enc").bytes(vec![7; 5000]));
    for dictionary in [&*v2::DICTIONARY, &*v3::DICTIONARY] {
        let packed = compress(&bytes_of(&node, dictionary)).unwrap();
        assert!(packed.len() < 500);
        assert_eq!(decode(packed.into(), dictionary).unwrap(), node);
    }
}

#[test]
fn a_compressed_bomb_is_refused() {
    let packed = compress(&vec![0; MAX_STANZA + 10]).unwrap();
    assert_eq!(
        decode(packed.into(), &v3::DICTIONARY),
        Err(CodecError::Compression)
    );
}

#[test]
fn deep_nesting_is_refused() {
    let mut node = Node::new("a");
    for _ in 0..200 {
        node = Node::new("a").child(node);
    }
    let bytes = bytes_of(&node, &v3::DICTIONARY);
    assert_eq!(
        decode(bytes.into(), &v3::DICTIONARY),
        Err(CodecError::TooDeep)
    );
}

#[test]
fn addresses_inside_addresses_are_refused() {
    let mut bytes = vec![0, tag::LIST_8, 1];
    bytes.extend(std::iter::repeat_n(tag::JID_PAIR, 1_000_000));
    let error = decode(bytes.into(), &v3::DICTIONARY).unwrap_err();
    assert_eq!(error, CodecError::Unexpected(tag::JID_PAIR));
}

#[test]
fn what_follows_a_stanza_is_refused() {
    let mut bytes = bytes_of(&Node::new("ib"), &v3::DICTIONARY);
    bytes.push(0);
    assert_eq!(
        decode(bytes.into(), &v3::DICTIONARY),
        Err(CodecError::Leftover(1))
    );
}

/// Text of every kind that the format treats differently.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9_:]{1,12}",
        "[0-9.-]{1,140}",
        "[0-9A-F]{1,140}",
        "[^@]{1,40}",
        "[a-z ]{250,400}",
        (1_u8..=235).prop_map(|at| v3::DICTIONARY.single(at).unwrap().to_owned()),
        (1_u8..=235).prop_map(|at| v2::DICTIONARY.single(at).unwrap().to_owned()),
        (0_u8..4, any::<u8>()).prop_map(|(t, i)| v3::DICTIONARY.double(t, i).unwrap().to_owned()),
    ]
}

fn any_jid() -> impl Strategy<Value = Jid> {
    let user = "[0-9]{1,16}";
    let device = prop_oneof![
        Just(Server::Pn),
        Just(Server::Lid),
        Just(Server::Hosted),
        Just(Server::HostedLid)
    ];
    let plain = prop_oneof![
        Just(Server::Group),
        Just(Server::Broadcast),
        Just(Server::Newsletter),
        Just(Server::Legacy),
        Just(Server::Call),
        Just(Server::Bot),
        Just(Server::Messenger)
    ];
    prop_oneof![
        Just(Jid::SERVER),
        (user, device, 0_u16..256).prop_map(|(user, server, device)| Jid {
            user: user.into(),
            server,
            device
        }),
        (user, plain).prop_map(|(user, server)| Jid {
            user: user.into(),
            server,
            device: 0
        }),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_text().prop_map(|text| Value::Str(Cow::Owned(text))),
        any_jid().prop_map(Value::Jid),
        Just(Value::Str(Cow::Borrowed(""))),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    let attrs = || prop::collection::vec((any_text().prop_map(Cow::Owned), any_value()), 0..6);
    let content = prop_oneof![
        Just(Content::None),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(|bytes| Content::Bytes(bytes.into())),
        any_text().prop_map(|text| Content::Str(Cow::Owned(text))),
    ];
    let leaf = (any_text(), attrs(), content).prop_map(|(tag, attrs, content)| Node {
        tag: tag.into(),
        attrs,
        content,
    });
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (any_text(), attrs(), prop::collection::vec(inner, 1..6)).prop_map(|(tag, attrs, nodes)| {
            Node {
                tag: tag.into(),
                attrs,
                content: Content::Nodes(nodes),
            }
        })
    })
}

/// Text content that is neither a token nor packed comes back as bytes: the wire has no difference.
fn wire_form(mut node: Node) -> Node {
    node.content = match node.content {
        Content::Str(text) => Content::Bytes(text.into_owned().into()),
        Content::Nodes(nodes) => Content::Nodes(nodes.into_iter().map(wire_form).collect()),
        other => other,
    };
    node
}

fn to_theirs(node: &Node) -> theirs::Node {
    let mut attrs = theirs::Attrs::new();
    for (key, value) in &node.attrs {
        match value {
            Value::Str(text) => attrs.push(key.to_string(), text.to_string()),
            Value::Jid(jid) => {
                let mut their: wacore_binary::Jid = jid.bare().to_string().parse().unwrap();
                their.device = jid.device;
                attrs.push(key.to_string(), their);
            }
        }
    }
    let content = match &node.content {
        Content::None => None,
        Content::Nodes(nodes) => Some(theirs::NodeContent::Nodes(
            nodes.iter().map(to_theirs).collect(),
        )),
        Content::Bytes(bytes) => Some(theirs::NodeContent::Bytes(bytes.to_vec())),
        Content::Str(text) => Some(theirs::NodeContent::String(text.to_string().into())),
    };
    theirs::Node::new(node.tag.to_string(), attrs, content)
}

/// Addresses compared as text, because `wacore-binary` turns text that looks like one into one.
fn plain(mut node: Node) -> Node {
    for (_, value) in &mut node.attrs {
        if let Value::Jid(jid) = value {
            *value = Value::Str(Cow::Owned(jid.to_string()));
        }
    }
    node.content = match node.content {
        Content::Nodes(nodes) => Content::Nodes(nodes.into_iter().map(plain).collect()),
        other => other,
    };
    wire_form(node)
}

proptest! {
    #[test]
    fn what_was_written_is_read(node in any_node()) {
        for dictionary in [&*v2::DICTIONARY, &*v3::DICTIONARY] {
            prop_assert_eq!(wire_form(round_trip(&node, dictionary)), wire_form(node.clone()));
        }
    }

    #[test]
    fn wacore_reads_what_we_write(node in any_node()) {
        let bytes = bytes_of(&node, &v3::DICTIONARY);
        let read = wacore_binary::marshal::unmarshal_ref(&bytes[1..]).unwrap().to_owned();
        let again = wacore_binary::marshal(&read).unwrap();
        let back = decode(again.into(), &v3::DICTIONARY).unwrap();
        prop_assert_eq!(plain(back), plain(node));
    }

    #[test]
    fn we_read_what_wacore_writes(node in any_node()) {
        let bytes = wacore_binary::marshal(&to_theirs(&node)).unwrap();
        let back = decode(bytes.into(), &v3::DICTIONARY).unwrap();
        prop_assert_eq!(plain(back), plain(node));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for dictionary in [&*v2::DICTIONARY, &*v3::DICTIONARY] {
            drop(decode(bytes.clone().into(), dictionary));
        }
    }

    #[test]
    fn damaged_stanzas_never_panic(node in any_node(), at in any::<prop::sample::Index>(), by in 1_u8..) {
        let mut bytes = bytes_of(&node, &v3::DICTIONARY);
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        drop(decode(bytes.clone().into(), &v3::DICTIONARY));
        bytes.truncate(at);
        drop(decode(bytes.into(), &v3::DICTIONARY));
    }
}
