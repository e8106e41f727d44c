//! Proof by a client that nobody here wrote: Baileys 6.17.16 (dictionary 2) and 7.0.0-rc14 (dictionary
//! 3, certificate chain verified) link, exchange texts, drain their queues, confirm and reconnect.
//! Each test ends with the checkers' judgement over the network's transcript.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say why"
)]

#[path = "whatsapp_rust/companion.rs"]
#[expect(dead_code, reason = "the tests of whatsapp-rust itself use more of it")]
mod companion;
#[path = "clients/driver.rs"]
mod driver;

use companion::{Companion, Store};
use driver::{Driver, Generation, is};
use serde_json::{Value, json};
use wagate_network::faults::{Action, FaultRule, Match, StreamErrorDetail};
use wagate_network::handle::PhoneHandle;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::{AccountPatch, AccountSpec};
use whatsapp_rust::types::presence::ReceiptType;

const A: &str = "6281100000001";
const B: &str = "6281100000002";
const C: &str = "6281100000003";

/// Makes `six::name` and `seven::name` of each test.
macro_rules! for_both {
    ($($name:ident),* $(,)?) => {
        mod six {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs Node packages"]
                async fn $name() {
                    super::$name(super::Generation::Six).await;
                }
            )*
        }
        mod seven {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs Node packages"]
                async fn $name() {
                    super::$name(super::Generation::Seven).await;
                }
            )*
        }
    };
}

for_both!(
    links_by_qr,
    links_by_code,
    a_wrong_code_does_not_link,
    texts_go_both_ways_and_are_confirmed,
    the_owners_phone_and_the_companion_see_each_others_messages,
    a_queue_is_drained_in_order,
    comes_back_after_every_stream_error,
    a_refused_login_has_its_reason,
    notices_a_silent_network,
    duplicates_and_reordered_messages_arrive_once,
    accounts_that_moved_to_lids_write_to_each_other,
    logs_out_by_itself,
    is_unlinked_from_the_phone,
    a_refused_message_is_an_error_at_the_sender,
    finds_out_who_is_on_whatsapp,
);

async fn start() -> Network {
    let network = Network::start(NetworkOptions::default()).await.unwrap();
    for (phone, name) in [(A, "Ana"), (B, "Budi"), (C, "Citra")] {
        let spec = AccountSpec {
            phone: phone.into(),
            push_name: Some(name.into()),
            ..AccountSpec::default()
        };
        network.create_account(spec).unwrap();
    }
    network
}

fn phone(network: &Network, number: &str) -> PhoneHandle {
    network.phone(number).unwrap()
}

fn jid(number: &str) -> String {
    format!("{number}@s.whatsapp.net")
}

/// Version 7 goes over TLS and verifies the Noise chain up to the network's root.
fn options(network: &Network, generation: Generation) -> Value {
    match generation {
        Generation::Six => json!({"url": network.ws_url()}),
        Generation::Seven => json!({
            "url": network.wss_url(),
            "ca": network.tls_ca_pem(),
            "root": hex::encode(network.noise_root_public()),
        }),
    }
}

/// A client that is linked by QR, open and online.
async fn linked(network: &Network, generation: Generation, number: &str) -> Driver {
    let mut client = Driver::start(generation).await;
    client.must("start", options(network, generation)).await;
    link(network, &client, number).await;
    client.must("available", json!({"name": "Client"})).await;
    client
}

/// Scans a started client's code with a phone.
async fn link(network: &Network, client: &Driver, number: &str) {
    let qr = client.wait("a QR code", |event| is(event, "qr")).await;
    phone(network, number)
        .scan(qr["qr"].as_str().unwrap())
        .await
        .unwrap();
    client.wait("the link", |event| is(event, "open")).await;
}

/// Lets a client go away without a word.
async fn leave(network: &Network, client: &mut Driver, number: &str) {
    let mark = client.mark();
    client.must("leave", json!({})).await;
    client
        .wait_after(mark, "its end", |event| is(event, "close"))
        .await;
    phone(network, number)
        .expect_companions_online(0)
        .await
        .unwrap();
}

/// Ends a test: the client must not have crashed, and every promise must have been kept.
fn judge(network: &Network, clients: &[&Driver]) {
    for client in clients {
        assert!(client.events("crash").is_empty(), "{}", client.story());
    }
    let report = network.with_world(|world, _, _| world.check());
    assert!(report.ok, "{report}");
}

async fn links_by_qr(generation: Generation) {
    let network = start().await;
    let client = linked(&network, generation, A).await;
    let open = client.events("open");
    assert!(
        open[0]["jid"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{A}:1@")),
        "{open:?}"
    );
    judge(&network, &[&client]);
}

async fn links_by_code(generation: Generation) {
    let network = start().await;
    let mut client = Driver::start(generation).await;
    client.must("start", options(&network, generation)).await;
    let code = client.must("code", json!({"phone": A})).await;
    phone(&network, A)
        .enter_code(code.as_str().unwrap())
        .await
        .unwrap();
    client.wait("the link", |event| is(event, "open")).await;
    judge(&network, &[&client]);
}

async fn a_wrong_code_does_not_link(generation: Generation) {
    let network = start().await;
    let mut client = Driver::start(generation).await;
    client.must("start", options(&network, generation)).await;
    client.must("code", json!({"phone": A})).await;
    let refused = phone(&network, A).enter_code("WRNGC0DE").await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(client.events("open").is_empty());
}

async fn texts_go_both_ways_and_are_confirmed(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    let peer = phone(&network, B);
    for round in 0..3 {
        let out = client
            .must(
                "send",
                json!({"to": jid(B), "text": format!("out {round}")}),
            )
            .await;
        let out = out.as_str().unwrap();
        peer.expect_text(&format!("out {round}")).await.unwrap();
        client.status(out, 3).await;
        peer.read(A).await.unwrap();
        client.status(out, 4).await;

        let id = peer.send(A, &format!("in {round}")).await.unwrap();
        let event = client.text(&format!("in {round}")).await;
        assert_eq!(event["id"], id, "{event}");
        peer.expect_receipt(&id, "delivered").await.unwrap();
        client.must("read", json!({"id": id})).await;
        peer.expect_receipt(&id, "read").await.unwrap();
    }
    judge(&network, &[&client]);
}

async fn the_owners_phone_and_the_companion_see_each_others_messages(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    let own = phone(&network, A);
    client
        .must("send", json!({"to": jid(B), "text": "from the companion"}))
        .await;
    own.expect_text("from the companion").await.unwrap();
    own.send(B, "from the phone").await.unwrap();
    let event = client.text("from the phone").await;
    assert_eq!(event["from_me"], true, "{event}");
    phone(&network, B)
        .expect_text("from the phone")
        .await
        .unwrap();
    judge(&network, &[&client]);
}

async fn a_queue_is_drained_in_order(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    let peer = phone(&network, B);
    peer.send(A, "before").await.unwrap();
    client.text("before").await;
    leave(&network, &mut client, A).await;

    let texts: Vec<_> = (0..25).map(|number| format!("queued {number}")).collect();
    let mut last = String::new();
    for text in &texts {
        last = peer.send(A, text).await.unwrap();
    }
    client.must("reconnect", json!({})).await;
    client.text("queued 24").await;
    peer.expect_receipt(&last, "delivered").await.unwrap();
    let got: Vec<_> = client
        .events("message")
        .iter()
        .filter_map(|event| event["text"].as_str())
        .filter(|text| text.starts_with("queued"))
        .map(str::to_owned)
        .collect();
    assert_eq!(got, texts);
    judge(&network, &[&client]);
}

async fn comes_back_after_every_stream_error(generation: Generation) {
    use StreamErrorDetail::{Ack, ConflictDeviceRemoved, ConflictReplaced, XmlNotWellFormed};
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    let peer = phone(&network, B);
    let error = |code, detail, close| Action::StreamError {
        code,
        detail,
        close,
    };
    let faults = [
        (Action::Close { abrupt: true }, 428),
        (Action::Close { abrupt: false }, 428),
        (Action::StreamEnd, 428),
        (error(Some(515), None, true), 515),
        (error(Some(503), None, true), 503),
        (error(Some(503), None, false), 503),
        (error(Some(500), None, true), 500),
        (error(Some(401), None, true), 401),
        (error(Some(409), None, true), 409),
        (error(Some(429), None, true), 429),
        (error(Some(516), None, true), 516),
        (error(None, Some(ConflictReplaced), true), 440),
        (error(None, Some(ConflictDeviceRemoved), true), 440),
        (error(Some(401), Some(ConflictDeviceRemoved), true), 401),
        (error(None, Some(XmlNotWellFormed), true), 500),
        (error(None, Some(Ack), true), 500),
    ];
    for (round, (action, code)) in faults.into_iter().enumerate() {
        let mark = client.mark();
        // The fault meets the next message to the client, which stays queued and comes after all.
        let rule = FaultRule::new(Match::to_device("message").account(A), action.clone()).once();
        network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
        let text = format!("round {round}");
        peer.send(A, &text).await.unwrap();
        let close = client
            .wait_after(mark, "the close", |event| is(event, "close"))
            .await;
        assert_eq!(close["code"], code, "{action:?}: {close}");
        // The driver comes back by itself after 515, as applications do.
        if code != 515 {
            client.must("reconnect", json!({})).await;
        }
        client
            .wait_after(mark, "open again", |event| is(event, "open"))
            .await;
        client.text(&text).await;
    }
    judge(&network, &[&client]);
}

async fn a_refused_login_has_its_reason(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    for reason in [
        401, 402, 403, 405, 406, 409, 411, 413, 414, 415, 418, 429, 500, 503,
    ] {
        leave(&network, &mut client, A).await;
        let ban = reason == 402;
        let action = Action::Failure {
            reason,
            code: ban.then_some(101),
            expire: ban.then_some(60),
            location: Some("sandbox".into()),
            message: None,
            url: None,
        };
        let rule = FaultRule::new(Match::connect().account(A), action).once();
        network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
        let mark = client.mark();
        client.must("reconnect", json!({})).await;
        let close = client
            .wait_after(mark, "the refusal", |event| is(event, "close"))
            .await;
        assert_eq!(close["code"], reason, "{close}");
        client.must("reconnect", json!({})).await;
        client
            .wait_after(mark, "open", |event| is(event, "open"))
            .await;
    }
    judge(&network, &[&client]);
}

async fn notices_a_silent_network(generation: Generation) {
    let network = start().await;
    let mut client = Driver::start(generation).await;
    let mut options = options(&network, generation);
    options["keep_alive_ms"] = json!(1_000);
    client.must("start", options).await;
    link(&network, &client, A).await;
    let rule = FaultRule::new(Match::from_device("iq"), Action::Silence).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let mark = client.mark();
    let close = client
        .wait_after(mark, "the end", |event| is(event, "close"))
        .await;
    assert_eq!(close["code"], 408, "{close}");
    let text = "after the silence";
    phone(&network, B).send(A, text).await.unwrap();
    client.must("reconnect", json!({})).await;
    client.text(text).await;
    judge(&network, &[&client]);
}

async fn duplicates_and_reordered_messages_arrive_once(generation: Generation) {
    let network = start().await;
    let client = linked(&network, generation, A).await;
    let peer = phone(&network, B);
    peer.send(A, "opens the session").await.unwrap();
    client.text("opens the session").await;
    for action in [Action::Duplicate, Action::Reorder { ms: 10_000 }] {
        let rule = FaultRule::new(Match::to_device("message").account(A), action.clone()).once();
        network
            .with_world(|world, _, _| world.faults.add(rule))
            .unwrap();
        let texts: Vec<_> = (0..3).map(|n| format!("{} {n}", action.name())).collect();
        for text in &texts {
            peer.send(A, text).await.unwrap();
        }
        for text in &texts {
            client.text(text).await;
        }
    }
    peer.send(A, "the last").await.unwrap();
    client.text("the last").await;
    let mut got: Vec<_> = client
        .events("message")
        .iter()
        .filter_map(|event| event["text"].as_str().map(str::to_owned))
        .collect();
    let count = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), count, "{}", client.story());
    judge(&network, &[&client]);
}

async fn accounts_that_moved_to_lids_write_to_each_other(generation: Generation) {
    let network = start().await;
    for number in [A, B] {
        let patch = AccountPatch {
            migrated_to_lid: Some(true),
            ..AccountPatch::default()
        };
        phone(&network, number).patch(patch).unwrap();
    }
    let mut client = linked(&network, generation, A).await;
    let peer = phone(&network, B);
    for round in 0..2 {
        peer.send(A, &format!("in {round}")).await.unwrap();
        client.text(&format!("in {round}")).await;
        let text = format!("out {round}");
        let id = client
            .must("send", json!({"to": jid(B), "text": text}))
            .await;
        peer.expect_text(&text).await.unwrap();
        client.status(id.as_str().unwrap(), 3).await;
    }
    judge(&network, &[&client]);
}

async fn logs_out_by_itself(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    client.must("logout", json!({})).await;
    client
        .wait("the end", |event| {
            is(event, "close") && event["code"] == 401
        })
        .await;
    phone(&network, A).expect_companions(0).await.unwrap();
    let mark = client.mark();
    client.must("reconnect", json!({})).await;
    let refused = client
        .wait_after(mark, "the refusal", |event| is(event, "close"))
        .await;
    assert_eq!(refused["code"], 401, "{refused}");
    judge(&network, &[&client]);
}

async fn is_unlinked_from_the_phone(generation: Generation) {
    let network = start().await;
    let client = linked(&network, generation, A).await;
    phone(&network, A).unlink(1).await.unwrap();
    let close = client
        .wait("the end", |event| {
            is(event, "close") && event["code"] != 515
        })
        .await;
    assert_eq!(close["code"], 401, "{close}");
    judge(&network, &[&client]);
}

async fn a_refused_message_is_an_error_at_the_sender(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    let rule = FaultRule::new(Match::from_device("message"), Action::Nack { code: 479 }).once();
    network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
    let id = client
        .must("send", json!({"to": jid(B), "text": "refused"}))
        .await;
    client
        .wait("the error", |event| {
            is(event, "status") && event["id"] == id && event["status"] == 0
        })
        .await;
    client
        .must("send", json!({"to": jid(B), "text": "accepted"}))
        .await;
    phone(&network, B).expect_text("accepted").await.unwrap();
    judge(&network, &[&client]);
}

async fn finds_out_who_is_on_whatsapp(generation: Generation) {
    let network = start().await;
    let mut client = linked(&network, generation, A).await;
    assert_eq!(client.must("exists", json!({"phone": B})).await, true);
    assert_eq!(
        client
            .must("exists", json!({"phone": "6281199999999"}))
            .await,
        false
    );
    judge(&network, &[&client]);
}

/// whatsapp-rust, version 6 and version 7, each a companion of another account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node packages"]
async fn three_clients_write_in_all_six_directions() {
    let network = start().await;
    let mut rust = Companion::start(&network, &Store::new()).await;
    let qr = rust.qr().await;
    phone(&network, A).scan(&qr).await.unwrap();
    rust.connected().await;
    let mut six = linked(&network, Generation::Six, B).await;
    let mut seven = linked(&network, Generation::Seven, C).await;
    for round in 0..2 {
        for (to, peer) in [(B, &six), (C, &seven)] {
            let text = format!("rust to {to}, {round}");
            let id = rust.send(to, &text).await;
            peer.text(&text).await;
            rust.receipt(&id, ReceiptType::Delivered).await;
        }
        for (from, peer) in [(B, &mut six), (C, &mut seven)] {
            let text = format!("{from} to rust, {round}");
            let id = peer.must("send", json!({"to": jid(A), "text": text})).await;
            rust.text(&text).await;
            peer.status(id.as_str().unwrap(), 3).await;
        }
        let id = six
            .must(
                "send",
                json!({"to": jid(C), "text": format!("6 to 7, {round}")}),
            )
            .await;
        seven.text(&format!("6 to 7, {round}")).await;
        six.status(id.as_str().unwrap(), 3).await;
        let id = seven
            .must(
                "send",
                json!({"to": jid(B), "text": format!("7 to 6, {round}")}),
            )
            .await;
        six.text(&format!("7 to 6, {round}")).await;
        seven.status(id.as_str().unwrap(), 3).await;
    }
    judge(&network, &[&six, &seven]);
    rust.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node packages"]
async fn version_7_refuses_a_chain_that_its_root_did_not_sign() {
    let network = start().await;
    let mut client = Driver::start(Generation::Seven).await;
    let root = "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b";
    client
        .must("start", json!({"url": network.ws_url(), "root": root}))
        .await;
    let close = client.wait("the refusal", |event| is(event, "close")).await;
    assert!(client.events("qr").is_empty(), "{close}");
    let reason = close["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("signature") || reason.contains("certificate"),
        "{close}"
    );
}
