//! Goal: the commands that an operator uses work on a fresh folder and say what to do.
//! Method: run the program as a person would; read what it prints and its exit code.

use wagate_e2e::process::Program;

use crate::support::{GATEWAY, harness};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_folder_is_migrated_and_gets_tenants_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(GATEWAY.as_ref(), folder.path(), "ws://127.0.0.1:9/ws/chat");
    let (code, text) = program.run(&["migrate"]).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = program.run(&["tenant", "create", "acme"]).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ten_"), "{text}");
    let (code, text) = program
        .run(&["key", "create", "--tenant", "acme"])
        .await
        .unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("wg_"), "{text}");
    let (code, text) = program.run(&["tenant", "create", "acme"]).await.unwrap();
    assert_ne!(code, Some(0), "a name that is taken: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_setting_stops_the_start_with_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::new(GATEWAY.as_ref(), folder.path(), "ws://127.0.0.1:9/ws/chat");
    program.set("WAGATE_SERVER__PORT", "seventy");
    program.set("WAGATE_STORE__READERS", "0");
    let (code, text) = program.run(&["serve"]).await.unwrap();
    assert_ne!(code, Some(0));
    for word in ["server.port", "seventy", "store.readers"] {
        assert!(text.contains(word), "{word} is not named: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_printed_with_its_sources_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::new(GATEWAY.as_ref(), folder.path(), "ws://127.0.0.1:9/ws/chat");
    program.set(
        "WAGATE_SECURITY__WORKER_TOKEN",
        "do-not-show-this-to-anybody",
    );
    let (code, text) = program.run(&["config"]).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("WAGATE_SECURITY__WORKER_TOKEN"), "{text}");
    assert!(!text.contains("do-not-show-this"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_what_is_wrong() {
    let harness = harness().await;
    let (code, text) = harness.program.run(&["doctor"]).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    let mut lost = harness.program.clone();
    lost.set("WAGATE_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat");
    let (code, text) = lost.run(&["doctor"]).await.unwrap();
    assert_ne!(code, Some(0), "{text}");
    assert!(text.to_lowercase().contains("whatsapp"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_to_do_about_a_database_that_is_away() {
    let harness = harness().await;
    let mut lost = harness.program.clone();
    lost.set(
        "WAGATE_STORE__URL",
        "postgres://wagate:never-shown@127.0.0.1:9/wagate",
    );
    let (code, text) = lost.run(&["doctor"]).await.unwrap();
    assert_ne!(code, Some(0), "{text}");
    assert!(text.contains("FAIL database"), "{text}");
    assert!(text.contains("see that the database runs"), "{text}");
    assert!(text.contains("1 thing(s) stand in the way"), "{text}");
    assert!(!text.contains("never-shown"), "{text}");
}
