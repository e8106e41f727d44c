//! The command line.
//!
//! The only place that reads the process's environment. Commands that touch tenants and keys go through
//! `wagate-app`, as the API does, and may run beside a gateway that serves.

mod args;
mod operator;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{self, Config, DEFAULT_FILE, Layers, Loaded, Problems};
use crate::serve::{Gateway, StartError};
use crate::shutdown::Signals;
use crate::{doctor, serve, telemetry};

use args::{Arguments, Command, ConfigCommand, ServeFlags};

/// The file that is read when it is there.
const USUAL_FILE: &str = "wagate.toml";
/// Names the file by environment.
const FILE_VARIABLE: &str = "WAGATE_CONFIG";

/// A command failed. Printed with its chain, and the process ends with code 1.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The operator corrects the configuration.
    #[error(transparent)]
    Config(#[from] Problems),
    #[error("the gateway cannot start")]
    Start(#[from] StartError),
    /// The database of a command on tenants, keys or the schema cannot be used as it is.
    #[error(transparent)]
    Database(StartError),
    /// What was asked for is refused, or the database is away.
    #[error("{what}")]
    Refused {
        what: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("the process cannot be set up")]
    Process(#[from] io::Error),
}

/// Runs the command line; every binary that carries the gateway enters here.
pub fn main_from<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // A closed output leaves nobody to tell.
            return if error.print().is_ok() {
                ExitCode::from(code)
            } else {
                ExitCode::from(2)
            };
        }
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            let text = format!("error: {}\n", telemetry::chain(&error));
            let told = io::stderr().write_all(text.as_bytes());
            ExitCode::from(if told.is_ok() { 1 } else { 2 })
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    if let Command::Openapi = arguments.command {
        return print_openapi();
    }
    if let Command::Config {
        command: Some(command),
    } = &arguments.command
    {
        let text = match command {
            ConfigCommand::Default => Some(DEFAULT_FILE.to_owned()),
            ConfigCommand::Document => Some(config::document()),
            ConfigCommand::Print => None,
        };
        if let Some(text) = text {
            say(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut layers = layers(&arguments);
    if let Command::Serve(flags) = &arguments.command {
        layers.flags.extend(flags_of(flags));
    }
    let loaded = match (config::load(&layers), &arguments.command) {
        (Err(problems), Command::Doctor) => return doctor::refuse(&problems).map_err(Into::into),
        (loaded, _) => loaded?,
    };
    if let Command::Config { .. } = arguments.command {
        print_config(&loaded)?;
        return Ok(ExitCode::SUCCESS);
    }
    serve::install_tls_provider();
    telemetry::init(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(dispatch(arguments.command, loaded.config));
    // What still runs is not waited for: every command that must finish something has done so.
    runtime.shutdown_background();
    code
}

async fn dispatch(command: Command, config: Config) -> Result<ExitCode, CliError> {
    match command {
        Command::Serve(_) => serve_until_signal(config).await,
        Command::Migrate => operator::migrate(&config).await,
        Command::Tenant { command } => operator::tenant(&config, command).await,
        Command::Key { command } => operator::key(&config, command).await,
        Command::Doctor => Ok(doctor::run(&config).await?),
        // Answered before there was a configuration.
        Command::Config { .. } | Command::Openapi => Ok(ExitCode::SUCCESS),
    }
}

async fn serve_until_signal(config: Config) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let prepared = tokio::select! {
        prepared = Box::pin(Gateway::prepare(config)) => prepared?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the start was over");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut told = Ok(());
    let opened = prepared.open(|secret| {
        // Not through the log: logs are kept and shipped, and this must not be.
        told = say(&format!(
            "made the first tenant and its API key; the key is shown this once, keep it:\n  {secret}\n"
        ));
    });
    // A signal does not interrupt this: the key would be made, and seen by nobody.
    let gateway = Box::pin(opened).await?;
    told?;
    say(&format!(
        "wagate serves on http://{}\nthe API is described at /docs; Ctrl-C stops\n",
        gateway.address()
    ))?;

    let signal = signals.next().await;
    tracing::info!(signal, "stopping, the same signal again stops at once");
    tokio::select! {
        in_time = Box::pin(gateway.stop()) => {
            Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
        _ = signals.next() => Ok(ExitCode::from(130)),
    }
}

/// Where the settings come from.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is where the environment is read"
)]
fn layers(arguments: &Arguments) -> Layers {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let file = arguments.config.clone().or_else(|| {
        std::env::var(FILE_VARIABLE)
            .ok()
            .filter(|f| !f.is_empty())
            .map(PathBuf::from)
    });
    let file_if_present = file.is_none().then(|| PathBuf::from(USUAL_FILE));
    let flags = arguments
        .set
        .iter()
        .map(|(key, value)| (key.clone(), value.clone(), "flag --set".to_owned()))
        .collect();
    Layers {
        file,
        file_if_present,
        environment,
        flags,
    }
}

fn flags_of(flags: &ServeFlags) -> Vec<(String, String, String)> {
    let given = [
        ("server.host", "--host", flags.host.clone()),
        (
            "server.port",
            "--port",
            flags.port.map(|port| port.to_string()),
        ),
        ("store.url", "--database", flags.database.clone()),
        ("log.level", "--log", flags.log.clone()),
    ];
    given
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key.to_owned(), value?, format!("flag {flag}"))))
        .collect()
}

fn print_openapi() -> Result<ExitCode, CliError> {
    let document = wagate_api::openapi()
        .to_pretty_json()
        .map_err(|error| CliError::Refused {
            what: "the description of the API cannot be written".to_owned(),
            source: Some(Box::new(error)),
        })?;
    say(&format!("{document}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the effective configuration as a file that `--config` would take, but for the secrets.
fn print_config(loaded: &Loaded) -> Result<(), CliError> {
    let mut text = String::new();
    let mut section = "";
    for effective in &loaded.effective {
        let (in_section, key) = effective
            .key
            .split_once('.')
            .unwrap_or(("", &effective.key));
        if in_section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = in_section;
            text.push_str(&format!("{gap}[{section}]\n"));
        }
        text.push_str(&format!(
            "{key} = {}  # {}\n",
            effective.value, effective.source
        ));
    }
    say(&text)?;
    Ok(())
}

/// Prints what a person asked for.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `wagate config | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests;
