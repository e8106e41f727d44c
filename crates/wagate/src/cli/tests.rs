//! Goal: the command line explains itself and means what it says. Method: parsed in process, no
//! environment.

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
