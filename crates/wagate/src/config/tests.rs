//! Goal: every key works from every layer, and whatever is wrong is named with key, value and what is
//! allowed, all at once. Method: real layers, no process environment.

use super::*;

fn env(pairs: &[(&str, &str)]) -> Layers {
    let environment = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Layers {
        environment,
        ..Layers::default()
    }
}

fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wagate.toml");
    std::fs::write(&path, text).unwrap();
    (
        folder,
        Layers {
            file: Some(path),
            ..Layers::default()
        },
    )
}

fn problems(layers: &Layers) -> String {
    load(layers).unwrap_err().to_string()
}

#[test]
fn every_key_of_the_default_file_parses_and_is_read() {
    let mut reader = Reader::new(&Layers::default());
    let config = read(&mut reader);
    assert_eq!(reader.problems, []);
    assert_eq!(reader.unread(), Vec::<String>::new());
    assert_eq!(config.server.port, 8080);
    assert_eq!(config.worker.concurrency, 3);
    assert!(reader.effective.iter().all(|e| e.source == "default"));
}

#[test]
fn every_key_can_be_set_by_its_environment_variable() {
    for effective in load(&Layers::default()).unwrap().effective {
        let name = format!("WAGATE_{}", effective.key.to_uppercase().replace('.', "__"));
        let value = match effective.value.strip_prefix('[') {
            Some(list) => list.trim_end_matches(']').replace('"', ""),
            None => effective.value.trim_matches('"').to_owned(),
        };
        let loaded = load(&env(&[(&name, &value)])).unwrap();
        let found = loaded
            .effective
            .iter()
            .find(|e| e.key == effective.key)
            .unwrap();
        assert_eq!(found.source, format!("environment variable {name}"));
        assert_eq!(found.value, effective.value, "{name}");
    }
}

#[test]
fn stronger_layers_win_and_the_source_is_named() {
    let (_folder, mut layers) =
        file("[server]\nport = 1\nhost = \"0.0.0.0\"\n[log]\nlevel = \"warn\"");
    layers.environment = env(&[("PORT", "2"), ("LOG_LEVEL", "debug")]).environment;
    layers.flags = vec![("server.port".into(), "3".into(), "flag --port".into())];
    let loaded = load(&layers).unwrap();
    assert_eq!(loaded.config.server.port, 3);
    assert_eq!(loaded.config.server.host, "0.0.0.0");
    assert_eq!(loaded.config.log.level, "debug");
    let source = |key: &str| {
        loaded
            .effective
            .iter()
            .find(|e| e.key == key)
            .unwrap()
            .source
            .clone()
    };
    assert_eq!(source("server.port"), "flag --port");
    assert!(source("server.host").ends_with("wagate.toml"));
    assert_eq!(source("log.level"), "environment variable LOG_LEVEL");
    assert_eq!(source("log.format"), "default");
}

#[test]
fn all_problems_are_reported_at_once_with_key_value_and_what_is_allowed() {
    let (_folder, mut layers) = file(
        "[server]\nport = \"eighty\"\nhots = \"x\"\n[worker]\nlease_ttl = \"soon\"\n\
         [retention]\nevents = [[1]]\n[log]\nformat = \"xml\"\n[nonsense]\na = 1",
    );
    layers.environment =
        env(&[("MAX_SESSIONS", "0"), ("WAGATE_STORE__URL", "mysql://h")]).environment;
    let text = problems(&layers);
    for expected in [
        "server.port = \"eighty\" (from ",
        "must be a whole number from 0 to 65535",
        "server.hots (from ",
        "did you mean server.host?",
        "worker.lease_ttl = \"soon\"",
        "must be a duration from 2s to 10m",
        "log.format = \"xml\"",
        "one of: text, json",
        "nonsense.a (from ",
        "the sections are: log, pacing, retention,",
        "worker.sessions_max = \"0\" (from environment variable MAX_SESSIONS)",
        "store.url = \"mysql://h\"",
        "sqlite:<file> or postgres://",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[test]
fn an_alias_and_its_key_may_agree_but_not_differ() {
    let agree = env(&[("PORT", "9"), ("WAGATE_SERVER__PORT", "9")]);
    assert_eq!(load(&agree).unwrap().config.server.port, 9);
    let text = problems(&env(&[("PORT", "9"), ("WAGATE_SERVER__PORT", "10")]));
    assert!(
        text.contains("WAGATE_SERVER__PORT and PORT both set server.port"),
        "{text}"
    );
}

#[test]
fn an_empty_alias_counts_as_unset() {
    assert_eq!(
        load(&env(&[("PORT", "")])).unwrap().config.server.port,
        8080
    );
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    for name in ["RABBITMQ_URL", "BACKEND_URL"] {
        let text = problems(&env(&[(name, "amqp://user:secret@host")]));
        assert!(text.contains(name) && !text.contains("secret"), "{text}");
    }
}

#[test]
fn a_variable_with_one_underscore_is_not_silently_ignored() {
    let text = problems(&env(&[("WAGATE_SERVER_PORT", "9")]));
    assert!(text.contains("WAGATE_SERVER_PORT"), "{text}");
    assert!(text.contains("WAGATE_SERVER__PORT"), "{text}");
}

#[test]
fn a_file_that_is_not_toml_names_the_place() {
    let (_folder, layers) = file("[server\nport = 1");
    let text = problems(&layers);
    assert!(
        text.contains("wagate.toml") && text.contains("line 1"),
        "{text}"
    );
    let missing = Layers {
        file: Some("/nowhere/wagate.toml".into()),
        ..Layers::default()
    };
    assert!(problems(&missing).contains("/nowhere/wagate.toml: cannot be read"));
    let absent = Layers {
        file_if_present: Some("/nowhere/wagate.toml".into()),
        ..missing
    };
    assert!(
        load(&Layers {
            file: None,
            ..absent
        })
        .is_ok()
    );
}

#[test]
fn secrets_are_in_no_output() {
    let layers = env(&[
        ("DATABASE_URL", "postgres://wagate:hunter2@db/wagate"),
        ("BACKEND_AUTH_TOKEN", "hunter2hunter2hunter2"),
        ("WAGATE_SECURITY__MASTER_KEY", "hunter2"),
    ]);
    let loaded = load(&layers).unwrap();
    assert!(!format!("{:?}", loaded.effective).contains("hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    let url = loaded
        .effective
        .iter()
        .find(|e| e.key == "store.url")
        .unwrap();
    assert_eq!(url.value, "\"postgres://wagate:********@db/wagate\"");
    let text = problems(&env(&[
        ("BACKEND_AUTH_TOKEN", "hunter2"),
        ("DATABASE_URL", "my://u:hunter2@h"),
    ]));
    assert!(
        text.contains("security.worker_token") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let layers = env(&[
        ("WAGATE_WORKER__TICK", "10s"),
        ("WAGATE_SECURITY__MASTER_KEY_FILE", ""),
        ("WAGATE_TESTING__ABORT_AT", "nowhere"),
    ]);
    let text = problems(&layers);
    assert!(text.contains("three times worker.tick"), "{text}");
    assert!(text.contains("are both empty"), "{text}");
    assert!(text.contains("written_not_acked"), "{text}");
}

#[test]
fn the_page_about_the_configuration_is_up_to_date() {
    let page = include_str!("../../../../docs/configuration.md");
    assert!(
        page == document(),
        "run: cargo run -p wagate -- config document > docs/configuration.md"
    );
}

#[test]
fn an_origin_that_no_browser_sends_is_refused() {
    for origin in [
        "https://app.example/",
        "https://app.example:443",
        "https://APP.example",
        "https://user@app.example",
        "https://app.example?x",
        "ftp://app.example",
        "*,https://app.example",
        "https://app.example,*",
    ] {
        let problems = problems(&env(&[("WAGATE_SERVER__CORS_ORIGINS", origin)]));
        assert!(problems.contains("server.cors_origins"), "{problems}");
    }
    let good = "https://app.example,http://localhost:3000";
    let loaded = load(&env(&[("WAGATE_SERVER__CORS_ORIGINS", good)])).unwrap();
    assert_eq!(loaded.config.server.cors_origins.len(), 2);
    let all = load(&env(&[("WAGATE_SERVER__CORS_ORIGINS", "*")])).unwrap();
    assert_eq!(all.config.server.cors_origins, ["*"]);
}
