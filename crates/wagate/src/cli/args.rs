//! What may be said on the command line, and the help that explains it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use wagate_domain::Timestamp;

const AFTER_HELP: &str = "\
First steps:
  wagate serve                              starts with SQLite in ./data and prints the first API key
  curl -H 'x-api-key: KEY' localhost:8080/api/v1/sessions -d '{\"id\":\"me\"}' \\
       -H 'content-type: application/json'  creates a session; see /docs for the rest

Settings come from wagate.toml, from WAGATE_<SECTION>__<KEY> in the environment, and from flags.
`wagate config default` shows all of them with their meaning, `wagate config` those in effect.";

/// A self-hosted WhatsApp gateway.
#[derive(Debug, Parser)]
#[command(name = "wagate", version, about, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Arguments {
    /// Reads settings from this file instead of wagate.toml; the variable `WAGATE_CONFIG` does too
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one setting, such as server.port=9000; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the gateway: API, sessions, queue, events
    Serve(ServeFlags),
    /// Brings the database's schema up to date, and says from where to where
    Migrate,
    /// Shows the settings in effect and where each comes from; secrets are masked
    Config {
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Makes and lists tenants: each has its own sessions, messages and keys
    ///
    /// Works beside a running gateway. A database that is not there yet is made by `tenant create`; one
    /// with an older schema is left as it is and refused: `wagate migrate` brings it up to date.
    Tenant {
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Makes, lists and revokes API keys
    ///
    /// Works beside a running gateway. A database with an older schema is left as it is and refused:
    /// `wagate migrate` brings it up to date.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Looks for what keeps the gateway from working, and says what to do about it
    Doctor,
    /// Prints the description of the API (`OpenAPI` 3.1, JSON)
    Openapi,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeFlags {
    /// The address to listen on
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The port to listen on; 0 takes a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The database: sqlite:FILE or postgres://…
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// The log level or filter
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows the settings in effect (the same as without a word)
    Print,
    /// Shows the default settings, each with its meaning
    Default,
    /// Prints the page about the settings, in Markdown
    Document,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Makes a tenant and its first API key; the key is shown once
    Create { name: String },
    /// Lists all tenants
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes an API key; it is shown once
    Create {
        /// The tenant whose key it is
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What the key is for
        #[arg(long, default_value = "made on the command line")]
        name: String,
        /// When the key stops working, such as 2027-01-31T00:00:00Z; without this it works until it is
        /// revoked
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires: Option<Timestamp>,
    },
    /// Lists a tenant's keys, without their secrets
    List {
        /// The tenant whose keys they are
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Revokes a key: it works no longer, within seconds everywhere
    Revoke {
        /// The tenant whose key it is
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The key's id, as `wagate key list` shows it
        id: String,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write it as SECTION.KEY=VALUE, such as server.port=9000".to_owned()),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<Timestamp>();
    time.map_err(|_| "write date and time with a zone, as 2027-01-31T00:00:00Z".to_owned())
}
