//! Goal: on a full disk nothing is accepted that cannot be kept, and with room again all goes on.
//! Method: the gateway's files may grow no further, by the bound that the system puts on a process.

use wagate_e2e::{Harness, Setup};

use crate::support::{FRIEND, GATEWAY, OWNER};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_before_accepted_and_recovered_from() {
    let setup = Setup {
        survive_full_disk: true,
        // Also how often the engine looks whether there is room again.
        settings: vec![("WAGATE_WORKER__ACK_TIMEOUT".to_owned(), "2s".to_owned())],
        ..Setup::default()
    };
    let mut harness = Harness::start(GATEWAY, setup).await.unwrap();
    let owner = harness.account(OWNER, "Ayu").unwrap();
    let friend = harness.account(FRIEND, "Budi").unwrap();
    harness.link("full", &owner).await.unwrap();
    let before = harness.send("full", &friend, "before").await.unwrap();
    harness.until_message(&before, "delivered").await.unwrap();
    // Its receipt comes while the disk is full.
    friend.go_offline().unwrap();
    let on_its_way = harness.send("full", &friend, "on its way").await.unwrap();
    harness.until_message(&on_its_way, "sent").await.unwrap();

    harness.gateway().bound_files(Some(4096)).await.unwrap();
    for n in 0..5 {
        let refused = harness
            .post_text("full", FRIEND, &format!("refused {n}"), "0")
            .await
            .unwrap_err();
        assert!(
            [Some(503), Some(507)].contains(&refused.status()),
            "{refused}"
        );
    }
    friend.go_online().unwrap();
    friend.expect_text("on its way").await.unwrap();
    // What is there can be read, and what comes in is not acknowledged, so that it is not lost.
    harness.message(&before).await.unwrap();
    friend.send(OWNER, "while it was full").await.unwrap();

    harness.gateway().bound_files(None).await.unwrap();
    let (after, _) = harness.insist("full", &friend, "after").await.unwrap();
    harness.until_message(&after, "delivered").await.unwrap();
    harness
        .until_message(&on_its_way, "delivered")
        .await
        .unwrap();
    assert_eq!(friend.texts(), ["before", "on its way", "after"]);
    let received = harness.until_received("full", 1).await.unwrap();
    assert_eq!(received[0]["text"], "while it was full");
    // The file is whole: another process reads it and goes on.
    harness.restart().await.unwrap();
    harness.until_session("full", "connected").await.unwrap();
    let id = harness.send("full", &friend, "restarted").await.unwrap();
    harness.until_message(&id, "delivered").await.unwrap();
    assert_eq!(harness.until_received("full", 1).await.unwrap().len(), 1);
    harness.check().unwrap();
}
