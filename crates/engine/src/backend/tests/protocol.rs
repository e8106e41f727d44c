//! Mappings, device lists, tokens, sent and pending messages, secrets.

use wacore::store::Device;
use wagate_domain::{Content, Jid, WaMessageId};
use wagate_store::device_state;
use wagate_store::messages::{self, Message, NewInbound, NewOutbound, Priority};
use wagate_store::queue;

use super::*;
use crate::outbound;

#[tokio::test]
async fn lid_mappings_are_found_from_both_sides() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .put_lid_mapping(&mapping("100", "62811"))
        .await
        .unwrap();
    store
        .put_lid_mappings(&[mapping("200", "62822"), mapping("300", "62833")])
        .await
        .unwrap();
    // The number got another LID; then a LID moved to another number.
    store
        .put_lid_mapping(&mapping("101", "62811"))
        .await
        .unwrap();
    store
        .put_lid_mapping(&mapping("200", "62899"))
        .await
        .unwrap();
    // The old LID of a number moves on, and must not take the number's newer LID along.
    store
        .put_lid_mapping(&mapping("100", "62877"))
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert_eq!(
        store.get_pn_mapping("62811").await.unwrap().unwrap().lid,
        "101"
    );
    assert_eq!(
        store
            .get_lid_mapping("200")
            .await
            .unwrap()
            .unwrap()
            .phone_number,
        "62899"
    );
    assert!(store.get_pn_mapping("62822").await.unwrap().is_none());
    assert_eq!(
        store.get_pn_mapping("62899").await.unwrap().unwrap().lid,
        "200"
    );
    assert_eq!(store.get_all_lid_mappings().await.unwrap().len(), 4);
}

#[tokio::test]
async fn device_lists_and_group_rows_round_trip() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    assert!(store.get_devices("1").await.unwrap().is_none());
    store
        .update_device_lists(vec![device_list("1", 2), device_list("2", 1)])
        .await
        .unwrap();
    store.update_device_list(device_list("1", 3)).await.unwrap();
    assert_eq!(
        store.get_devices("1").await.unwrap().unwrap().devices.len(),
        3
    );
    store.delete_devices("2").await.unwrap();
    store.put_group_metadata("g@g.us", b"blob").await.unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    let list = store.get_devices("1").await.unwrap().unwrap();
    assert_eq!(
        (list.devices.len(), list.raw_id, list.phash.as_deref()),
        (3, Some(9), Some("2:abc"))
    );
    assert!(store.get_devices("2").await.unwrap().is_none());
    assert_eq!(
        store.get_group_metadata("g@g.us").await.unwrap().as_deref(),
        Some(b"blob".as_slice())
    );
    store.delete_group_metadata("g@g.us").await.unwrap();
    assert_eq!(store.get_group_metadata("g@g.us").await.unwrap(), None);
}

#[tokio::test]
async fn sender_key_devices_are_tracked_per_group() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .set_sender_key_status("g", &[("a", true), ("b", true)])
        .await
        .unwrap();
    store
        .set_sender_key_status("g", &[("b", false), ("c", true)])
        .await
        .unwrap();
    store
        .set_sender_key_status("h", &[("a", true)])
        .await
        .unwrap();
    let all = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
        pairs
            .iter()
            .map(|(jid, has)| ((*jid).to_owned(), *has))
            .collect()
    };
    let found = store.get_sender_key_devices("g").await.unwrap();
    assert_eq!(found, all(&[("a", true), ("b", false), ("c", true)]));
    store
        .delete_sender_key_device_rows(&["a", "c"])
        .await
        .unwrap();
    assert_eq!(
        store.get_sender_key_devices("g").await.unwrap(),
        all(&[("b", false)])
    );
    assert!(store.get_sender_key_devices("h").await.unwrap().is_empty());
    store.clear_sender_key_devices("g").await.unwrap();
    assert!(store.get_sender_key_devices("g").await.unwrap().is_empty());
    store
        .set_sender_key_status("h", &[("a", true)])
        .await
        .unwrap();
    store.clear_all_sender_key_devices().await.unwrap();
    assert!(store.get_sender_key_devices("h").await.unwrap().is_empty());
}

#[tokio::test]
async fn base_keys_are_compared() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store.save_base_key("1@lid.0", "M", b"key").await.unwrap();
    assert!(
        store
            .has_same_base_key("1@lid.0", "M", b"key")
            .await
            .unwrap()
    );
    assert!(
        !store
            .has_same_base_key("1@lid.0", "M", b"other")
            .await
            .unwrap()
    );
    store.delete_base_key("1@lid.0", "M").await.unwrap();
    assert!(
        !store
            .has_same_base_key("1@lid.0", "M", b"key")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn tokens_merge_by_field() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let token = async |jid: &str| store.get_tc_token(jid).await.unwrap();
    store
        .touch_tc_token_sender_timestamp("1@lid", 50)
        .await
        .unwrap();
    store
        .touch_tc_token_sender_timestamp("1@lid", 40)
        .await
        .unwrap();
    assert_eq!(token("1@lid").await.unwrap().sender_timestamp, Some(50));
    // A placeholder never blocks the first real token, whatever its time.
    store
        .store_received_tc_token("1@lid", b"real", 10)
        .await
        .unwrap();
    store
        .store_received_tc_token("1@lid", b"stale", 9)
        .await
        .unwrap();
    let merged = token("1@lid").await.unwrap();
    assert_eq!(
        (merged.token.as_slice(), merged.token_timestamp),
        (b"real".as_slice(), 10)
    );
    assert_eq!(merged.sender_timestamp, Some(50));
    store
        .store_received_tc_token("1@lid", b"newer", 11)
        .await
        .unwrap();
    assert_eq!(token("1@lid").await.unwrap().token, b"newer");

    let entry = |token_timestamp, sender_timestamp| TcTokenEntry {
        token: b"t".to_vec(),
        token_timestamp,
        sender_timestamp,
    };
    store
        .put_tc_token("2@lid", &entry(5, Some(100)))
        .await
        .unwrap();
    store
        .put_tc_token("3@lid", &entry(5, Some(5)))
        .await
        .unwrap();
    store
        .put_tc_token("4@lid", &entry(100, None))
        .await
        .unwrap();
    store.put_tc_token("5@lid", &entry(5, None)).await.unwrap();
    assert!(token("3@lid").await.is_some());
    assert_eq!(store.delete_expired_tc_tokens(50, 50).await.unwrap(), 2);
    assert!(token("3@lid").await.is_none());
    let mut left = store.get_all_tc_token_jids().await.unwrap();
    left.sort();
    assert_eq!(left, ["1@lid", "2@lid", "4@lid"]);
    store.delete_tc_token("4@lid").await.unwrap();
    assert!(
        bench
            .reopened()
            .await
            .backend
            .get_tc_token("4@lid")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_sent_message_is_taken_once() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .store_sent_message("1@lid", "M", b"first")
        .await
        .unwrap();
    // Sent again later: it sits in two spokes and is still one message.
    bench.clock.advance(Duration::from_secs(1200));
    store
        .store_sent_message("1@lid", "M", b"again")
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = Arc::new(bench.backend);
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        takers.spawn(async move { store.take_sent_message("1@lid", "M").await.unwrap() });
    }
    let mut taken = 0;
    while let Some(result) = takers.join_next().await {
        taken += usize::from(result.unwrap().is_some());
    }
    assert_eq!(taken, 1);
    assert_eq!(store.take_sent_message("2@lid", "M").await.unwrap(), None);
}

/// A message of the queue that is on its way.
async fn going_out(bench: &Bench) -> Message {
    let lease = bench.lease.clone();
    let accepted = bench.db.write(move |tx| {
        let new = NewOutbound {
            session: lease.session.clone(),
            chat: Jid::pn("6281234567890"),
            content: Content::Text {
                text: "hello".to_owned(),
            },
            priority: Priority::Normal,
            not_before: None,
            expires_at: None,
            idempotency: None,
        };
        let message = messages::accept(tx, &lease.tenant, new, NOW)?.message;
        queue::claim(tx, &lease, 1, NOW)?;
        Ok(message)
    });
    accepted.await.unwrap()
}

#[tokio::test]
async fn a_queued_message_is_not_written_twice_and_can_be_asked_for() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let message = going_out(&bench).await;
    let id = message.wa_id.as_str();
    let secret = store.own_secret(id).await.unwrap();
    let wire = outbound::message(&message.content, secret).unwrap();
    let queued = store.queued.begin(&message.wa_id);
    store
        .store_sent_message("1@lid", id, b"ignored")
        .await
        .unwrap();
    drop(queued);
    store
        .put_lid_mapping(&mapping("1", "6281234567890"))
        .await
        .unwrap();
    // Not by somebody else who knows its id: it is nobody's business, and nothing is watched for that.
    for stranger in ["2@lid", "6289999999999@s.whatsapp.net", "nobody"] {
        assert_eq!(store.take_sent_message(stranger, id).await.unwrap(), None);
    }
    let worker = WorkerId::parse("one").unwrap();
    let watched = bench.db.read(move |tx| {
        let later = NOW.plus(RESEND_AFTER);
        messages::sessions_to_resend(tx, &worker, later, RESEND_AFTER)
    });
    assert_eq!(watched.await.unwrap(), []);
    // However often, and by whatever address of the chat.
    for chat in ["1@lid", "6281234567890@s.whatsapp.net"] {
        let found = store.take_sent_message(chat, id).await.unwrap();
        assert_eq!(found, Some(waproto::codec::message_to_vec(&wire)));
    }
    // It is watched from now on.
    let worker = WorkerId::parse("one").unwrap();
    let watched = bench.db.read(move |tx| {
        let (later, longest) = (NOW.plus(RESEND_AFTER), RESEND_AFTER);
        Ok((
            messages::sessions_to_resend(tx, &worker, NOW, longest)?.len(),
            messages::sessions_to_resend(tx, &worker, later, longest)?.len(),
        ))
    });
    assert_eq!(watched.await.unwrap(), (0, 1));
}

#[tokio::test]
async fn sent_messages_expire_but_never_early() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .store_sent_message("1@lid", "OLD", b"old")
        .await
        .unwrap();
    // Any write takes along what was posted before it.
    assert_eq!(store.take_sent_message("1@lid", "X").await.unwrap(), None);
    bench.clock.advance(Duration::from_secs(7200));
    let cutoff = bench.clock.now().as_secs() - 7200;
    assert_eq!(store.delete_expired_sent_messages(cutoff).await.unwrap(), 0);
    store
        .store_sent_message("1@lid", "NEW", b"new")
        .await
        .unwrap();
    bench.clock.advance(Duration::from_secs(700));
    assert_eq!(
        store
            .delete_expired_sent_messages(cutoff + 700)
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.take_sent_message("1@lid", "OLD").await.unwrap(), None);
    assert!(
        store
            .take_sent_message("1@lid", "NEW")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn pending_inbound_is_kept_until_its_commit() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    store
        .store_pending_inbound_batch(&[row("A"), row("B")])
        .await
        .unwrap();
    store
        .store_pending_inbound("1@lid", "1:3@lid", "C", b"body")
        .await
        .unwrap();

    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert!(is_pending(store, "A").await);
    assert_eq!(
        store
            .get_pending_inbound("2@lid", "1:3@lid", "A")
            .await
            .unwrap(),
        None
    );
    // A committed message is gone at once, though its row goes with a later write.
    let done = ["A", "B"].map(|id| PendingInboundKey {
        chat: "1@lid",
        sender: "1:3@lid",
        id,
    });
    store.delete_pending_inbound_batch(&done).await.unwrap();
    assert!(!is_pending(store, "A").await);
    store
        .store_pending_inbound_batch(&[row("B")])
        .await
        .unwrap();
    assert!(is_pending(store, "B").await);
    store
        .delete_pending_inbound("1@lid", "1:3@lid", "C")
        .await
        .unwrap();
    store.flush().await;

    let bench = bench.reopened().await;
    let store = &bench.backend;
    assert!(is_pending(store, "B").await);
    let rows = store
        .rows
        .read(|tx, session| device_state::keys(tx, session, kind::PENDING_INBOUND, ""));
    assert_eq!(rows.await.unwrap(), ["1@lid|1:3@lid|B"]);
    let now = NOW.as_secs();
    assert_eq!(store.delete_expired_pending_inbound(now).await.unwrap(), 0);
    assert_eq!(
        store.delete_expired_pending_inbound(now + 1).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_duplicate_that_is_neither_buffered_nor_stored_is_missing() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let mut device = Device::new();
    device.pn = Some("628110:4@s.whatsapp.net".parse().unwrap());
    device.lid = Some("900:4@lid".parse().unwrap());
    store.save(&device).await.unwrap();
    store.put_lid_mapping(&mapping("1", "62811")).await.unwrap();
    let known = |id: &str, chat: Jid, sender: Jid| NewInbound {
        wa_id: WaMessageId::parse(id).unwrap(),
        chat,
        sender,
        from_me: false,
        push_name: None,
        content: Content::Text { text: "x".into() },
        at: NOW,
    };
    let stored = vec![
        known("KNOWN", Jid::pn("62811"), Jid::pn("62811")),
        known("GROUP", "120@g.us".parse().unwrap(), Jid::pn("62811")),
    ];
    let lease = bench.lease.clone();
    let insert = move |tx: &mut Tx<'_>| messages::insert_inbound(tx, &lease, stored, NOW);
    bench.db.write(insert).await.unwrap();
    store
        .delete_pending_inbound("1@lid", "1:3@lid", "FOR DEVICES")
        .await
        .unwrap();
    store.flush().await;

    let is_missing = async |chat: &str, sender: &str, id: &str| {
        let answer = store.get_pending_inbound(chat, sender, id).await;
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
        answer.is_err()
    };
    // Stored, under whichever address it comes again; committed and not for people; one's own.
    assert!(!is_missing("1@lid", "1:3@lid", "KNOWN").await);
    assert!(!is_missing("62811@s.whatsapp.net", "62811:3@s.whatsapp.net", "KNOWN").await);
    assert!(!is_missing("120@g.us", "1:3@lid", "GROUP").await);
    assert!(!is_missing("1@lid", "1:3@lid", "FOR DEVICES").await);
    assert!(!is_missing("628110@s.whatsapp.net", "628110:0@s.whatsapp.net", "OWN").await);
    assert!(!is_missing("1@lid", "900:0@lid", "OWN").await);
    assert!(store.missing.take().is_empty());
    // Another message, chat, writer.
    assert!(is_missing("1@lid", "1:3@lid", "LOST").await);
    assert!(is_missing("1@lid", "1:3@lid", "LOST").await);
    assert!(is_missing("2@lid", "2:3@lid", "KNOWN").await);
    assert!(is_missing("120@g.us", "2:3@lid", "GROUP").await);
    let asked = store.missing.take();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].sender.to_string(), "1:3@lid");
    // Nobody sends it again.
    store.missing.give_up(&asked[0]);
    assert!(!is_missing("1@lid", "1:3@lid", "LOST").await);
}

#[tokio::test]
async fn the_secret_of_a_queued_message_needs_no_row() {
    let bench = Bench::new().await;
    let message = going_out(&bench).await;
    let id = message.wa_id.as_str();
    let own = bench.backend.own_secret(id).await.unwrap();
    assert_ne!(own, bench.backend.own_secret("ANOTHER").await.unwrap());
    let kept = MsgSecretEntry {
        secret: own,
        ..secret(id, 0, NOW.as_secs() + 60, 5)
    };
    let made_up = secret("MADEUP", 9, NOW.as_secs() + 60, 5);
    let entries = vec![kept, made_up];
    assert_eq!(bench.backend.put_msg_secrets(entries).await.unwrap(), 2);
    let session = bench.lease.session.clone();
    let rows = bench.db.read(move |tx| {
        let kinds = (0..32).map(|spoke| StateKind(kind::MSG_SECRET_FIRST + spoke));
        let mut rows = Vec::new();
        for kind in kinds.chain([kind::MSG_SECRET_KEPT]) {
            rows.extend(device_state::load_all(tx, &session, kind)?);
        }
        Ok(rows.len())
    });
    assert_eq!(rows.await.unwrap(), 1, "the one that was made up");
    // It is the same after a restart, for whoever asks; not for ids that nobody sent.
    let bench = bench.reopened().await;
    let get = async |id| {
        let found = bench.backend.get_msg_secret_with_ts("1@lid", "1@lid", id);
        found.await.unwrap()
    };
    assert_eq!(get(id).await, Some((own.to_vec(), NOW.as_secs())));
    assert_eq!(get("MADEUP").await, Some((vec![9; 32], 5)));
    assert_eq!(get("ANOTHER").await, None);
}

#[tokio::test]
async fn secrets_merge_and_expire() {
    let bench = Bench::new().await;
    let store = &bench.backend;
    let now = NOW.as_secs();
    let day = 24 * 3600;
    let entries = vec![
        secret("SHORT", 1, now + day, 11),
        secret("EVER", 2, 0, 0),
        secret("LONG", 3, now + 90 * day, 13),
    ];
    assert_eq!(store.put_msg_secrets(entries).await.unwrap(), 3);
    // A later write with a nearer deadline and an unknown time shortens and loses nothing.
    store
        .put_msg_secrets(vec![secret("LONG", 3, now + day, 0)])
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let store = &bench.backend;
    let get = async |id| {
        store
            .get_msg_secret_with_ts("1@lid", "1@lid", id)
            .await
            .unwrap()
    };
    assert_eq!(get("SHORT").await, Some((vec![1; 32], 11)));
    assert_eq!(get("LONG").await, Some((vec![3; 32], 13)));
    assert_eq!(get("NONE").await, None);
    assert_eq!(
        store
            .get_msg_secret("1@lid", "1@lid", "EVER")
            .await
            .unwrap(),
        Some(vec![2; 32])
    );
    store.delete_expired_msg_secrets(now).await.unwrap();
    assert!(get("SHORT").await.is_some());
    store
        .delete_expired_msg_secrets(now + 20 * day)
        .await
        .unwrap();
    assert!(get("SHORT").await.is_none());
    assert!(get("LONG").await.is_some());
    store
        .delete_expired_msg_secrets(now + 100 * day)
        .await
        .unwrap();
    assert!(get("LONG").await.is_none());
    assert!(get("EVER").await.is_some());
}
