//! Goal: the command line explains itself and means what it says. Method: parsed in process, no
//! environment.

use std::path::Path;

use clap::CommandFactory as _;

use super::*;
use crate::cli::args::{KeyCommand, TenantCommand};

fn parse(words: &str) -> Arguments {
    Arguments::try_parse_from(words.split_whitespace()).unwrap()
}

#[test]
fn the_definition_is_sound_and_help_names_every_command() {
    Arguments::command().debug_assert();
    let help = Arguments::command().render_long_help().to_string();
    for word in [
        "serve", "migrate", "config", "tenant", "key", "doctor", "openapi", "WAGATE_",
    ] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
}

#[test]
fn flags_of_serve_become_settings() {
    let arguments = parse("wagate --set worker.concurrency=5 serve --port 0 --log debug");
    assert_eq!(
        arguments.set,
        [("worker.concurrency".to_owned(), "5".to_owned())]
    );
    let Command::Serve(flags) = arguments.command else {
        panic!("not serve")
    };
    let keys: Vec<String> = flags_of(&flags)
        .into_iter()
        .map(|(key, value, _)| format!("{key}={value}"))
        .collect();
    assert_eq!(keys, ["server.port=0", "log.level=debug"]);
}

#[test]
fn a_setting_without_a_section_is_refused() {
    let words = ["wagate", "--set", "port=1", "serve"];
    let error = Arguments::try_parse_from(words).unwrap_err().to_string();
    assert!(error.contains("SECTION.KEY=VALUE"), "{error}");
}

#[test]
fn tenants_and_keys_have_their_commands() {
    assert!(matches!(
        parse("wagate tenant create acme").command,
        Command::Tenant { command: TenantCommand::Create { name } } if name == "acme"
    ));
    assert!(matches!(
        parse("wagate key revoke key_1 --tenant acme").command,
        Command::Key { command: KeyCommand::Revoke { tenant, .. } } if tenant == "acme"
    ));
    assert!(matches!(
        parse("wagate config").command,
        Command::Config { command: None }
    ));
}

#[test]
fn a_time_that_is_none_is_refused_with_an_example() {
    let words = ["wagate", "key", "create", "--expires", "tomorrow"];
    let error = Arguments::try_parse_from(words).unwrap_err().to_string();
    assert!(
        error.contains("'tomorrow' for '--expires <TIME>'"),
        "{error}"
    );
    assert!(error.contains("2027-01-31T00:00:00Z"), "{error}");
    let mut command = Arguments::command();
    let key = command.find_subcommand_mut("key").unwrap();
    let help = key.find_subcommand_mut("create").unwrap().render_help();
    let help = help.to_string();
    assert!(help.contains("until it is revoked"), "{help}");
    for group in ["tenant", "key"] {
        let help = Arguments::command()
            .find_subcommand_mut(group)
            .unwrap()
            .render_long_help();
        assert!(help.to_string().contains("wagate migrate"), "{help}");
    }
}

/// A database of its own that is not there yet.
fn config(folder: &Path) -> Config {
    let mut config = Config::defaults().unwrap();
    config.store.url = format!("sqlite:{}", folder.join("data/wagate.db").display()).into();
    config.security.master_key_file = folder.join("data/master.key");
    config
}

/// What the process would print.
async fn error_of(command: impl Future<Output = Result<ExitCode, CliError>>) -> String {
    format!("{}", telemetry::chain(&command.await.unwrap_err()))
}

fn create_key(tenant: &str, expires: Option<&str>) -> KeyCommand {
    KeyCommand::Create {
        tenant: tenant.to_owned(),
        name: "a key".to_owned(),
        expires: expires.map(|text| text.parse().unwrap()),
    }
}

#[tokio::test]
async fn only_the_first_tenant_makes_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let error = error_of(operator::tenant(&config, TenantCommand::List)).await;
    assert!(error.starts_with("there is no database at "), "{error}");
    assert!(error.contains("`wagate migrate`"), "{error}");
    error_of(operator::key(&config, create_key("default", None))).await;
    // Who migrates by hand does so here too.
    config.store.migrate = false;
    let create = || TenantCommand::Create {
        name: "acme".to_owned(),
    };
    let error = error_of(operator::tenant(&config, create())).await;
    assert!(error.contains("`wagate migrate`"), "{error}");
    assert!(!folder.path().join("data").exists());

    config.store.migrate = true;
    operator::tenant(&config, create()).await.unwrap();
    operator::tenant(&config, TenantCommand::List)
        .await
        .unwrap();
    operator::key(&config, create_key("acme", None))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_empty_database_is_left_empty() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/wagate.db"), "").unwrap();
    for _ in 0..2 {
        let error = error_of(operator::tenant(&config, TenantCommand::List)).await;
        assert!(error.starts_with("the database is empty: "), "{error}");
    }
    operator::migrate(&config).await.unwrap();
    operator::tenant(&config, TenantCommand::List)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_not_there_comes_with_the_command_that_lists_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let create = || TenantCommand::Create {
        name: "acme".to_owned(),
    };
    operator::tenant(&config, create()).await.unwrap();

    let error = error_of(operator::tenant(&config, create())).await;
    assert!(
        error.contains("`wagate key create --tenant acme`"),
        "{error}"
    );
    let error = error_of(operator::key(&config, create_key("acne", None))).await;
    assert_eq!(
        error,
        "there is no tenant acne: `wagate tenant list` shows those that there are"
    );
    let revoke = KeyCommand::Revoke {
        tenant: "acme".to_owned(),
        id: "key_01jd8w4qk3v5t9x2r7y6m1n0ba".to_owned(),
    };
    let error = error_of(operator::key(&config, revoke)).await;
    assert!(error.contains("`wagate key list --tenant acme`"), "{error}");
    let past = create_key("acme", Some("2020-01-31T00:00:00Z"));
    let error = error_of(operator::key(&config, past)).await;
    assert_eq!(error, "--expires is in the past");
    let nameless = TenantCommand::Create {
        name: String::new(),
    };
    let error = error_of(operator::tenant(&config, nameless)).await;
    assert!(error.starts_with("the name must have 1 to 100"), "{error}");
}
