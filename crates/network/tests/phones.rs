//! Phones through the Rust API of a running network: they talk with each other through the world, with
//! no client between. Each test ends with the checkers' judgement over the transcript.
#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test's helper fails the test"
)]

use std::time::Duration;

use wagate_network::faults::{Action, FaultRule, Match};
use wagate_network::handle::{HandleError, PhoneHandle};
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::phone::{
    Answer, Behaviour, LinkError, Outgoing, PhoneError, ScriptRule, Target,
};
use wagate_network::phones::PhonesOptions;
use wagate_network::transcript::Note;
use wagate_network::world::{AccountPatch, AccountSpec};

const A: &str = "6281100000001";
const B: &str = "6281100000002";

struct Town {
    network: Network,
    ana: PhoneHandle,
    budi: PhoneHandle,
}

async fn town() -> Town {
    town_with(NetworkOptions::default()).await
}

async fn town_with(options: NetworkOptions) -> Town {
    let network = Network::start(options).await.unwrap();
    let add = |number: &str, name: &str| {
        let spec = AccountSpec {
            phone: format!("+{number}"),
            push_name: Some(name.to_owned()),
            ..AccountSpec::default()
        };
        network.add_phone(spec).unwrap()
    };
    let (ana, budi) = (add(A, "Ana"), add(B, "Budi"));
    Town { network, ana, budi }
}

impl Town {
    /// Ends a test: every promise of the network must have been kept.
    async fn judge(&self) {
        self.network.phones().idle().await;
        let report = self.network.with_world(|world, _, _| world.check());
        assert!(report.ok, "{report}");
        self.network.stop().await;
    }
}

#[tokio::test]
async fn two_phones_exchange_texts_that_are_shown_once_and_confirmed() {
    let town = town().await;
    for round in 0..10 {
        let out = format!("out {round}");
        let id = town.ana.send(B, &out).await.unwrap();
        let shown = town.budi.expect_text(&out).await.unwrap();
        assert_eq!((shown.id.as_str(), shown.wire_copies), (id.as_str(), 1));
        assert_eq!(shown.push_name.as_deref(), Some("Ana"));
        town.ana.expect_receipt(&id, "delivered").await.unwrap();
        assert_eq!(town.budi.read(A).await.unwrap(), 1);
        town.ana.expect_receipt(&id, "read").await.unwrap();
        let back = town.budi.send(A, &format!("back {round}")).await.unwrap();
        town.budi.expect_receipt(&back, "delivered").await.unwrap();
    }
    assert_eq!(town.budi.texts().len(), 10);
    assert_eq!(town.ana.chat(B).unwrap().len(), 20);
    town.judge().await;
}

#[tokio::test]
async fn writing_to_a_lid_arrives_in_the_same_chat() {
    let town = town().await;
    let lid = town.budi.lid().unwrap().to_string();
    town.ana.send(&lid, "by lid").await.unwrap();
    town.ana.send(B, "by number").await.unwrap();
    town.budi.expect_count(2).await.unwrap();
    let chat: Vec<_> = town
        .budi
        .chat(A)
        .unwrap()
        .into_iter()
        .filter_map(|m| m.text)
        .collect();
    assert_eq!(chat, ["by lid", "by number"]);
    town.judge().await;
}

#[tokio::test]
async fn migrated_accounts_write_by_lid_and_keep_their_chats() {
    let town = town().await;
    town.ana.send(B, "before").await.unwrap();
    town.budi.expect_text("before").await.unwrap();
    for phone in [&town.ana, &town.budi] {
        let migrated = AccountPatch {
            migrated_to_lid: Some(true),
            ..AccountPatch::default()
        };
        phone.patch(migrated).unwrap();
    }
    let id = town.ana.send(B, "after").await.unwrap();
    town.budi.expect_text("after").await.unwrap();
    town.ana.expect_receipt(&id, "delivered").await.unwrap();
    assert_eq!(town.budi.read(A).await.unwrap(), 2);
    town.ana.expect_receipt(&id, "read").await.unwrap();
    assert_eq!(town.budi.chat(A).unwrap().len(), 2);
    let lid = town.ana.lid().unwrap().to_string();
    let by_lid = town.network.with_world(|world, _, _| {
        let entries = world.transcript.entries(0);
        let lines = entries.filter_map(|entry| serde_json::to_string(entry).ok());
        lines
            .filter(|line| line.contains("<message") && line.contains(&lid))
            .count()
    });
    assert!(by_lid > 0, "nothing went by LID");
    town.judge().await;
}

#[tokio::test]
async fn an_echo_types_reads_and_answers() {
    let town = town().await;
    town.budi.set_behaviour(Behaviour {
        read_after_ms: Some(20),
        answer: Answer::Echo {
            delay_ms: 60,
            typing: true,
        },
        ..Behaviour::default()
    });
    let mut events = town.network.subscribe();
    let id = town.ana.send(B, "ping").await.unwrap();
    let from = town
        .ana
        .expect_chat_state(&mut events, "composing")
        .await
        .unwrap();
    assert_eq!(from, town.budi.jid().to_string());
    town.ana.expect_receipt(&id, "read").await.unwrap();
    let answer = town.ana.expect("the echo", |m| !m.from_me).await.unwrap();
    assert_eq!(answer.text.as_deref(), Some("ping"));
    town.judge().await;
}

#[tokio::test]
async fn a_phone_that_lost_its_keys_asks_again_and_shows_the_message_once() {
    let town = town().await;
    for text in ["one", "two"] {
        let id = town.ana.send(B, text).await.unwrap();
        town.ana.expect_receipt(&id, "delivered").await.unwrap();
        let id = town.budi.send(A, text).await.unwrap();
        town.budi.expect_receipt(&id, "delivered").await.unwrap();
    }
    assert_eq!(town.budi.lose_keys(A).unwrap(), 1);
    assert_eq!(town.budi.lose_keys(A).unwrap(), 0);
    let id = town.ana.send(B, "three").await.unwrap();
    town.ana.expect_receipt(&id, "delivered").await.unwrap();
    let asked_again = town.network.with_world(|world, _, _| {
        let mut entries = world.transcript.entries(0);
        entries.any(|entry| matches!(entry.note, Note::Undecryptable { .. }))
    });
    assert!(asked_again);
    let texts = town.budi.texts();
    assert_eq!(texts.iter().filter(|text| *text == "three").count(), 1);
    assert!(town.budi.lose_keys("").is_err());
    town.judge().await;
}

#[tokio::test]
async fn a_jump_of_the_networks_time_brings_what_was_planned() {
    let town = town().await;
    let rules = vec![
        ScriptRule {
            contains: "price".into(),
            reply: "10".into(),
            delay_ms: 3_600_000,
        },
        ScriptRule {
            contains: String::new(),
            reply: "what?".into(),
            delay_ms: 0,
        },
    ];
    town.budi.answer(Answer::Script { rules });
    town.ana.send(B, "The PRICE please").await.unwrap();
    town.budi.expect_count(1).await.unwrap();
    town.network.advance(3_600_000);
    town.ana.expect_text("10").await.unwrap();
    town.ana.send(B, "thanks").await.unwrap();
    town.ana.expect_text("what?").await.unwrap();
    town.judge().await;
}

#[tokio::test]
async fn a_phone_that_was_away_gets_what_waited() {
    let town = town().await;
    town.budi.go_offline().unwrap();
    let ids: Vec<_> = {
        let mut ids = Vec::new();
        for number in 0..5 {
            ids.push(town.ana.send(B, &format!("queued {number}")).await.unwrap());
        }
        ids
    };
    town.ana.expect_receipt(&ids[4], "server").await.unwrap();
    assert!(town.budi.screen().is_empty());
    town.budi.go_online().unwrap();
    let texts = town.budi.expect_count(5).await.unwrap();
    assert_eq!(
        texts,
        ["queued 0", "queued 1", "queued 2", "queued 3", "queued 4"]
    );
    town.ana.expect_receipt(&ids[4], "delivered").await.unwrap();
    town.judge().await;
}

#[tokio::test]
async fn replies_reactions_edits_and_deletions_arrive() {
    let town = town().await;
    let id = town.ana.send(B, "helo").await.unwrap();
    let edit = Outgoing::Edit {
        id: id.clone(),
        text: "hello".into(),
    };
    town.ana.send_message(B, edit).await.unwrap();
    town.budi
        .expect("the edit", |m| m.id == id && m.edited)
        .await
        .unwrap();
    let quoted = Target {
        id: id.clone(),
        from_me: false,
        author: Some(town.ana.jid().to_string()),
    };
    let reply = Outgoing::Reply {
        text: "hi".into(),
        quoted: quoted.clone(),
    };
    town.budi.send_message(A, reply).await.unwrap();
    let shown = town.ana.expect_text("hi").await.unwrap();
    assert_eq!(shown.quoted.as_deref(), Some(id.as_str()));
    let reaction = Outgoing::Reaction {
        emoji: "👍".into(),
        target: quoted,
    };
    town.budi.send_message(A, reaction).await.unwrap();
    town.ana
        .expect("the reaction", |m| m.kind == "reaction")
        .await
        .unwrap();
    town.ana
        .send_message(B, Outgoing::Delete { id: id.clone() })
        .await
        .unwrap();
    town.budi
        .expect("the deletion", |m| m.id == id && m.deleted)
        .await
        .unwrap();
    town.judge().await;
}

#[tokio::test]
async fn a_phone_without_decryption_confirms_all_the_same() {
    let phones = PhonesOptions {
        decrypt: false,
        ..PhonesOptions::default()
    };
    let town = town_with(NetworkOptions {
        phones,
        ..NetworkOptions::default()
    })
    .await;
    let id = town.ana.send(B, "secret").await.unwrap();
    town.ana.expect_receipt(&id, "delivered").await.unwrap();
    let shown = town.budi.screen();
    assert_eq!(
        (shown[0].kind.as_str(), shown[0].text.as_deref()),
        ("encrypted", None)
    );
    town.network.stop().await;
}

#[tokio::test]
async fn prekeys_are_topped_up_and_none_is_given_twice() {
    let town = town().await;
    for number in 0..40_u64 {
        let spec = AccountSpec {
            phone: (6_281_200_000_000 + number).to_string(),
            ..AccountSpec::default()
        };
        let friend = town.network.add_phone(spec).unwrap();
        friend.send(A, &format!("from {number}")).await.unwrap();
        town.network.phones().idle().await;
    }
    town.ana.expect_count(40).await.unwrap();
    let counters = town
        .network
        .with_world(|world, _, _| world.counters.prekeys_exhausted);
    assert_eq!(counters, 0);
    town.judge().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let town = town().await;
    let refused = town.ana.send("6281999999999", "?").await;
    let nobody = PhoneError::NotOnWhatsApp("6281999999999@s.whatsapp.net".to_owned());
    assert_eq!(refused, Err(HandleError::Phone(nobody)));
    town.budi.unregister().unwrap();
    assert!(town.ana.send(B, "?").await.is_err());
    assert!(matches!(
        town.network.phone("123"),
        Err(HandleError::NoSuchPhone(_))
    ));
    let scanned = town.ana.scan("not a code").await;
    assert!(
        matches!(scanned, Err(HandleError::Link(LinkError::NotAQrCode(_)))),
        "{scanned:?}"
    );
    let late = town
        .ana
        .within(Duration::from_millis(10))
        .expect_text("never")
        .await;
    let text = late.unwrap_err().to_string();
    assert!(
        text.contains("the text \"never\"") && text.contains("shows nothing"),
        "{text}"
    );
    town.network.stop().await;
}

#[tokio::test]
async fn a_thousand_accounts_are_made_quickly() {
    let town = town().await;
    let started = tokio::time::Instant::now();
    for number in 0..1_000_u64 {
        let spec = AccountSpec {
            phone: (6_281_300_000_000 + number).to_string(),
            ..AccountSpec::default()
        };
        town.network.create_account(spec).unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    town.network.stop().await;
}

/// Lets the next message to Budi's phone go wrong.
fn trouble(town: &Town, action: Action) {
    let rule = FaultRule::new(Match::to_device("message").account(B).device(0), action).once();
    town.network
        .with_world(|world, _, _| world.faults.add(rule))
        .unwrap();
}

#[tokio::test]
async fn a_copy_damaged_on_the_way_is_asked_for_again_and_shown_once() {
    let town = town().await;
    // Both directions, so that the session is past its first messages.
    town.ana.send(B, "one").await.unwrap();
    town.budi.expect_text("one").await.unwrap();
    town.budi.send(A, "two").await.unwrap();
    town.ana.expect_text("two").await.unwrap();
    trouble(&town, Action::Corrupt);
    let id = town.ana.send(B, "three").await.unwrap();
    let shown = town.budi.expect_text("three").await.unwrap();
    assert_eq!((shown.id.as_str(), shown.wire_copies), (id.as_str(), 1));
    town.ana.expect_receipt(&id, "delivered").await.unwrap();
    town.ana.send(B, "four").await.unwrap();
    town.budi.expect_text("four").await.unwrap();
    assert_eq!(town.network.counters().retries, 1);
    town.judge().await;
}

#[tokio::test]
async fn a_stanza_that_comes_twice_is_shown_once() {
    let town = town().await;
    trouble(&town, Action::Duplicate);
    town.ana.send(B, "once").await.unwrap();
    let shown = town
        .budi
        .expect("both copies", |m| m.wire_copies == 2)
        .await
        .unwrap();
    assert_eq!(shown.text.as_deref(), Some("once"));
    assert_eq!(town.budi.texts(), ["once"]);
    town.judge().await;
}

#[tokio::test]
async fn stanzas_in_the_wrong_order_are_all_opened() {
    let town = town().await;
    trouble(&town, Action::Reorder { ms: 2_000 });
    for number in 0..5 {
        town.ana.send(B, &number.to_string()).await.unwrap();
    }
    let texts = town.budi.expect_count(5).await.unwrap();
    assert_eq!(texts, ["1", "0", "2", "3", "4"]);
    town.judge().await;
}
