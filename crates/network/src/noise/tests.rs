//! The responder against `wacore-noise`'s client states, which were not written with it in mind.

use wacore_libsignal::protocol::PublicKey;
use wacore_noise::{
    IkHandshakeState, IkServerHelloOutcome, XxFallbackHandshakeState, XxHandshakeState,
};

use super::*;

const HEADER: [u8; 4] = [b'W', b'A', 6, 3];
const NOW: i64 = 1_790_000_000_000;

fn client() -> KeyPair {
    KeyPair::generate(&mut rand::rng())
}

/// Sends one frame each way.
fn assert_session(session: &mut Session, write: &NoiseCipher, read: &NoiseCipher) {
    for counter in 0..3 {
        let mut frame = BytesMut::from(&write.encrypt_with_counter(counter, b"up").unwrap()[..]);
        session.receiving.open(&mut frame).unwrap();
        assert_eq!(&frame[..], b"up");

        let mut out = b"before".to_vec();
        out.extend_from_slice(b"down");
        session.sending.seal(&mut out, 6).unwrap();
        assert_eq!(&out[..6], b"before");
        let mut down = out.split_off(6);
        read.decrypt_in_place_with_counter(counter, &mut down)
            .unwrap();
        assert_eq!(down, b"down");
    }
}

#[test]
fn xx() {
    let identity = NoiseIdentity::generate(NOW).unwrap();
    let key = client();
    let mut state = XxHandshakeState::new(key.clone(), b"login".to_vec(), &HEADER).unwrap();
    let hello = state.build_client_hello().unwrap();
    let Answer::Waiting(reply, waiting) = answer(&identity, &HEADER, &hello, false).unwrap() else {
        panic!("XX needs a third message");
    };
    let Ok(finish) = state.read_server_hello_and_build_client_finish(&reply) else {
        // Without the unsafe feature the client knows WhatsApp's root only.
        return;
    };
    let outcome = state.finish().unwrap();
    let mut session = waiting.finish(&finish).unwrap();
    assert_eq!(session.payload, b"login");
    assert_eq!(session.client_key, public(&key));
    assert_session(&mut session, &outcome.write_cipher, &outcome.read_cipher);
}

#[test]
fn ik() {
    let identity = NoiseIdentity::generate(NOW).unwrap();
    let key = client();
    let server = identity.server_public();
    let mut state = IkHandshakeState::new(key.clone(), server, b"login".to_vec(), &HEADER).unwrap();
    let hello = state.build_client_hello().unwrap();
    let Answer::Finished(reply, mut session) = answer(&identity, &HEADER, &hello, false).unwrap()
    else {
        panic!("IK is over after the server's message");
    };
    assert_eq!(session.payload, b"login");
    assert_eq!(session.client_key, public(&key));
    let IkServerHelloOutcome::Continue(outcome) = state.read_server_hello(&reply).unwrap() else {
        panic!("the client understood a refusal");
    };
    assert_session(&mut session, &outcome.write_cipher, &outcome.read_cipher);
}

#[test]
fn ik_with_a_rotated_key_falls_back() {
    let identity = NoiseIdentity::generate(NOW).unwrap();
    assert_fallback(&identity, &identity.rotated().unwrap(), false);
    assert_fallback(&identity, &identity, true);
}

fn assert_fallback(known: &NoiseIdentity, actual: &NoiseIdentity, refuse: bool) {
    let key = client();
    let login = b"login".to_vec();
    let mut state = IkHandshakeState::new(key, known.server_public(), login, &HEADER).unwrap();
    let hello = state.build_client_hello().unwrap();
    let Answer::Waiting(reply, waiting) = answer(actual, &HEADER, &hello, refuse).unwrap() else {
        panic!("the server should have refused");
    };
    let IkServerHelloOutcome::Fallback(inputs) = state.read_server_hello(&reply).unwrap() else {
        panic!("the client did not see the refusal");
    };
    let mut state = XxFallbackHandshakeState::from_ik_failure(*inputs, &HEADER).unwrap();
    let Ok(finish) = state.build_client_finish() else {
        return;
    };
    let outcome = state.finish().unwrap();
    let mut session = waiting.finish(&finish).unwrap();
    assert_eq!(session.payload, b"login");
    assert_session(&mut session, &outcome.write_cipher, &outcome.read_cipher);
}

/// Checks a chain as a careful client does.
fn verify(chain: &[u8], root: [u8; 32], server: [u8; 32], now: u64) -> Result<(), &'static str> {
    let chain = CertChain::decode_from_slice(chain).unwrap();
    let check = |certificate: NoiseCertificate, issuer: [u8; 32], issuer_serial: u32| {
        let details = certificate.details.unwrap();
        let issuer = PublicKey::from_djb_public_key_bytes(&issuer).unwrap();
        if !issuer.verify_signature(&details, &certificate.signature.unwrap()) {
            return Err("signature");
        }
        let details = noise_certificate::Details::decode_from_slice(&details).unwrap();
        if details.issuer_serial != Some(issuer_serial) {
            return Err("issuer");
        }
        if !(details.not_before.unwrap()..details.not_after.unwrap()).contains(&now) {
            return Err("validity");
        }
        Ok((
            <[u8; 32]>::try_from(details.key.unwrap()).unwrap(),
            details.serial.unwrap(),
        ))
    };
    let (key, serial) = check(chain.intermediate.into_option().unwrap(), root, 0)?;
    let (key, _) = check(chain.leaf.into_option().unwrap(), key, serial)?;
    assert_eq!(key, server);
    Ok(())
}

#[test]
fn the_chain_is_signed_from_the_root_down() {
    let identity = NoiseIdentity::generate(NOW).unwrap();
    let (root, server) = (identity.root_public(), identity.server_public());
    let now = u64::try_from(NOW / 1000).unwrap();
    assert_eq!(verify(identity.chain(), root, server, now), Ok(()));
    for (fault, complaint) in [
        (ChainFault::Signature, "signature"),
        (ChainFault::Issuer, "issuer"),
        (ChainFault::Expired, "validity"),
    ] {
        let spoiled = identity.spoiled(fault).unwrap();
        assert_eq!(verify(spoiled.chain(), root, server, now), Err(complaint));
    }
}

#[test]
fn keys_are_kept_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = NoiseIdentity::load_or_generate(folder.path(), NOW).unwrap();
    let second = NoiseIdentity::load_or_generate(folder.path(), NOW + 1).unwrap();
    assert_eq!(first.root_public(), second.root_public());
    assert_eq!(first.server_public(), second.server_public());
    assert_eq!(first.not_after, second.not_after);
}

#[test]
fn garbage_is_refused() {
    let identity = NoiseIdentity::generate(NOW).unwrap();
    for bytes in [&b""[..], b"\x12\x00", b"\xff\xff\xff", &[0x12, 2, 0x0a, 0]] {
        assert!(answer(&identity, &HEADER, bytes, false).is_err());
    }
}
