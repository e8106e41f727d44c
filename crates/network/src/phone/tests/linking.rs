//! Linking by QR and by code, with the other side played by the Signal library.

use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngExt as _;
use sha2::Sha256;
use wacore_libsignal::crypto::aes_256_gcm_encrypt;
use wacore_libsignal::protocol::{KeyPair, PublicKey};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::{Companion, Street};
use crate::jid::Jid;
use crate::node::Node;
use crate::phone::link_code::{unwrap, wrap};
use crate::phone::{LinkError, Phone, PhoneEvent, PhoneOptions, verify_device_signature};

#[test]
fn a_scanned_companion_accepts_the_container_and_its_countersignature_holds() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    let mut companion = Companion::new(1);
    let qr = companion.qr("2@ref");
    let device = street
        .with(account, |phone, now, port| phone.scan(now, &qr, port))
        .unwrap();
    assert_eq!(device, 1);
    let (reference, accepted) = street.directory.completed[0].clone();
    assert_eq!(reference, "2@ref");

    let (blob, key_index) = companion.countersign(&accepted.container);
    assert_eq!((key_index, accepted.key_index), (1, 1));
    let phone = street.phones[0].identity();
    verify_device_signature(&blob, &companion.identity_bytes(), &phone).unwrap();

    let list = wa::ADVSignedKeyIndexList::decode_from_slice(&accepted.key_index_list).unwrap();
    let list = wa::ADVKeyIndexList::decode_from_slice(&list.details.unwrap()).unwrap();
    assert_eq!((list.valid_indexes, list.current_index), (vec![1], Some(1)));
}

#[test]
fn forged_device_signatures_are_refused() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    let mut companion = Companion::new(1);
    let qr = companion.qr("ref");
    street
        .with(account, |phone, now, port| phone.scan(now, &qr, port))
        .unwrap();
    let container = street.directory.completed[0].1.container.clone();
    let (blob, _) = companion.countersign(&container);
    let (phone, identity) = (street.phones[0].identity(), companion.identity_bytes());

    let mut other = wa::ADVSignedDeviceIdentity::decode_from_slice(&blob).unwrap();
    other.device_signature.as_mut().unwrap()[5] ^= 1;
    let refused = verify_device_signature(&other.encode_to_vec(), &identity, &phone);
    assert_eq!(
        refused,
        Err(LinkError::Bad("the companion's signature does not hold"))
    );

    let stranger = Companion::new(2).identity_bytes();
    let refused = verify_device_signature(&blob, &stranger, &phone);
    assert_eq!(
        refused,
        Err(LinkError::Bad("the phone's signature does not hold"))
    );
    assert!(verify_device_signature(&blob, &identity, &stranger).is_err());
    assert!(verify_device_signature(b"nonsense", &identity, &phone).is_err());
}

#[test]
fn key_indexes_of_a_companion_that_left_are_not_listed() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    for number in 1..=3 {
        let qr = Companion::new(number).qr("ref");
        street
            .with(account, |phone, now, port| phone.scan(now, &qr, port))
            .unwrap();
    }
    let list = street
        .with(account, |phone, now, _| phone.forget(now, 2))
        .unwrap();
    let list = wa::ADVSignedKeyIndexList::decode_from_slice(&list.bytes).unwrap();
    let list = wa::ADVKeyIndexList::decode_from_slice(&list.details.unwrap()).unwrap();
    assert_eq!(
        (list.valid_indexes, list.current_index),
        (vec![1, 3], Some(3))
    );
}

#[test]
fn what_is_no_qr_code_is_refused() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    for text in ["", "a,b", "ref,AAAA,AAAA,AAAA", "ref,?,?,?"] {
        let refused = street.with(account, |phone, now, port| phone.scan(now, text, port));
        assert!(
            matches!(refused, Err(LinkError::NotAQrCode(_))),
            "{text}: {refused:?}"
        );
    }
    let gone = Companion::new(1).qr("gone");
    let refused = street.with(account, |phone, now, port| phone.scan(now, &gone, port));
    assert_eq!(refused, Err(LinkError::Refused("expired".to_owned())));
}

/// The companion's side of a code: its bundle, and the ADV secret that it derives.
fn finish(
    companion: &mut Companion,
    ephemeral: &KeyPair,
    primary: [u8; 32],
    phone: [u8; 32],
) -> (Vec<u8>, [u8; 32]) {
    let key = |bytes: &[u8; 32]| PublicKey::from_djb_public_key_bytes(bytes).unwrap();
    let shared = ephemeral.calculate_agreement(&key(&primary)).unwrap();
    let identities = companion
        .identity
        .calculate_agreement(&key(&phone))
        .unwrap();
    let (random, salt, iv): ([u8; 32], [u8; 32], [u8; 12]) = companion.rng.random();
    let secret = derive(
        &[shared, identities, random].concat(),
        &[0; 32],
        b"adv_secret",
    );
    let sealing = derive(
        &shared,
        &salt,
        b"link_code_pairing_key_bundle_encryption_key",
    );
    let plain = [companion.identity_bytes(), phone, random].concat();
    let mut bundle = [salt.as_slice(), &iv].concat();
    aes_256_gcm_encrypt(&sealing, &iv, b"", &plain, &mut bundle).unwrap();
    (bundle, secret)
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mac = |key: &[u8], data: &[u8]| -> [u8; 32] {
        Hmac::<Sha256>::new_from_slice(key)
            .unwrap()
            .chain_update(data)
            .finalize()
            .into_bytes()
            .into()
    };
    mac(&mac(salt, secret), &[info, &[1]].concat())
}

fn finish_notice(reference: &str, bundle: &[u8], identity: [u8; 32]) -> Node {
    let data = |tag: &'static str, bytes: &[u8]| Node::new(tag).bytes(bytes.to_vec());
    Node::new("notification")
        .attr("from", Jid::SERVER)
        .attr("type", "link_code_companion_reg")
        .attr("id", "1")
        .child(
            Node::new("link_code_companion_reg")
                .attr("stage", "companion_finish")
                .child(data("link_code_pairing_wrapped_key_bundle", bundle))
                .child(data("companion_identity_public", &identity))
                .child(data("link_code_pairing_ref", reference.as_bytes())),
        )
}

#[test]
fn a_typed_code_leads_both_sides_to_the_same_secret() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    let mut companion = Companion::new(1);
    let ephemeral = KeyPair::generate(&mut companion.rng);
    let public: [u8; 32] = ephemeral.public_key.public_key_bytes().try_into().unwrap();
    let wrapped = wrap("ABCD1234", &public, &mut companion.rng).unwrap();

    let hello = street
        .with(account, |phone, _, _| {
            phone.enter_code("ref", "abcd-1234", &wrapped)
        })
        .unwrap();
    assert_eq!(hello.identity, street.phones[0].identity());
    let primary = unwrap("ABCD1234", &hello.wrapped_ephemeral).unwrap();
    let (bundle, secret) = finish(&mut companion, &ephemeral, primary, hello.identity);
    companion.adv_secret = secret;

    let notice = finish_notice("ref", &bundle, companion.identity_bytes());
    street.handle(account, &notice);
    let (reference, accepted) = street.directory.completed[0].clone();
    assert_eq!(reference, "ref");
    companion.countersign(&accepted.container);
}

#[test]
fn a_wrong_code_links_nobody() {
    let mut street = Street::new();
    let account = street.add("6281100001");
    let mut companion = Companion::new(1);
    let ephemeral = KeyPair::generate(&mut companion.rng);
    let public: [u8; 32] = ephemeral.public_key.public_key_bytes().try_into().unwrap();
    let wrapped = wrap("ABCD1234", &public, &mut companion.rng).unwrap();
    let hello = street
        .with(account, |phone, _, _| {
            phone.enter_code("ref", "WRONG123", &wrapped)
        })
        .unwrap();
    let primary = unwrap("ABCD1234", &hello.wrapped_ephemeral).unwrap();
    let (bundle, _) = finish(&mut companion, &ephemeral, primary, hello.identity);
    street.handle(
        account,
        &finish_notice("ref", &bundle, companion.identity_bytes()),
    );
    assert!(street.directory.completed.is_empty());
    let refused = street.events.iter().any(|event| {
        matches!(event, PhoneEvent::LinkRefused { reason, .. } if reason == "the pairing code is wrong")
    });
    assert!(refused, "{:?}", street.events);
}

#[test]
fn the_same_seed_makes_the_same_phone() {
    let keys = |seed, number: &str| Phone::new(PhoneOptions::new(seed, number)).unwrap().keys();
    let (one, same) = (keys(7, "6281"), keys(7, "6281"));
    assert_eq!(
        (one.identity, one.prekeys.clone()),
        (same.identity, same.prekeys)
    );
    assert_ne!(one.identity, keys(8, "6281").identity);
    assert_ne!(one.identity, keys(7, "6282").identity);
}
