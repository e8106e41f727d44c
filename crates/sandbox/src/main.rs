//! `wagate-sandbox`: a simulated WhatsApp network with a gateway attached to it, and first steps.
//!
//! Built with the engine's unsafe feature: this gateway links to the simulated network and to nothing
//! else. Everything stays on this machine.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the first steps are told on the terminal"
)]

mod gateway;
mod say;
mod steps;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use wagate::client::Client;
use wagate_network::network::{Network, NetworkOptions};
use wagate_network::world::AccountSpec;

/// A simulated WhatsApp network with a gateway attached to it: try everything with no phone and no
/// internet. Starts both, walks through the first steps, prints what to call, and stays up.
#[derive(Debug, Parser)]
#[command(name = "wagate-sandbox", version, about)]
struct Cli {
    /// End after the first steps: exit code 0, or 1 with the reason.
    #[arg(long, conflicts_with = "network_only")]
    once: bool,
    /// Run just the network, for other WhatsApp clients.
    #[arg(long)]
    network_only: bool,
    /// The gateway's port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,
    /// The network's port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    network_port: u16,
    /// Where the gateway's database and the network's keys go; what an earlier run left there is
    /// replaced. Without it they are in a temporary folder that goes when the program ends.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Log filter of the gateway and the network, such as `info` or `wagate_worker=debug`.
    #[arg(long, default_value = "error", value_name = "FILTER")]
    log: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("wagate-sandbox: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nwagate-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    gateway::log_to_stderr(&cli.log)?;
    let folder = gateway::Folder::prepare(cli.folder.clone())?;
    let network = start_network(&cli, &folder).await?;
    if cli.network_only {
        println!("The simulated WhatsApp network is up.");
        tell_network(&network);
        println!("\nCtrl-C ends it.");
        gateway::until_interrupted().await?;
        network.stop().await;
        return Ok(());
    }
    let gateway = gateway::start(&network, &folder, local(cli.port)).await?;
    let result = walk_and_stay(&cli, &network, &gateway).await;
    gateway.stop().await;
    network.stop().await;
    result
}

async fn start_network(cli: &Cli, folder: &gateway::Folder) -> Result<Network> {
    let options = NetworkOptions {
        listen: local(cli.network_port),
        folder: Some(folder.path().join("network")),
        ..NetworkOptions::default()
    };
    Network::start(options).await.with_context(|| {
        format!(
            "the network cannot start on port {}; try --network-port 0",
            cli.network_port
        )
    })
}

async fn walk_and_stay(cli: &Cli, network: &Network, gateway: &gateway::Running) -> Result<()> {
    println!("wagate sandbox: a simulated WhatsApp network and a gateway, both on this machine.");
    let client = Client::new(gateway.url(), gateway.api_key())?;
    let owner = account(network, "+6281100000001", "Ayu")?;
    let friend = account(network, "+6281100000002", "Budi")?;
    friend.read_after(std::time::Duration::from_millis(400));
    steps::walk(&client, &owner, &friend).await?;
    if cli.once {
        println!("\nAll first steps succeeded.");
        return Ok(());
    }
    tell_gateway(&client, &friend.number());
    tell_network(network);
    println!("\nAyu's and Budi's phones stay on. Ctrl-C ends it.");
    gateway::until_interrupted().await
}

fn account(
    network: &Network,
    number: &str,
    name: &str,
) -> Result<wagate_network::handle::PhoneHandle> {
    network.create_account(AccountSpec {
        phone: number.to_owned(),
        push_name: Some(name.to_owned()),
        ..AccountSpec::default()
    })?;
    Ok(network.phone(number)?)
}

fn tell_gateway(client: &Client, friend: &str) {
    let (url, key, session) = (client.base(), client.key(), steps::SESSION);
    println!("\nThe gateway    {url}   (API page: {url}/docs)");
    println!("The API key    {key}");
    println!("\nThree calls to try:\n");
    println!("curl -s {url}/api/v1/sessions/{session}/status -H 'x-api-key: {key}'\n");
    println!(
        "curl -s {url}/api/v1/sessions/{session}/messages -H 'x-api-key: {key}' \\\n  \
         -H 'content-type: application/json' -d '{{\"to\":\"{friend}\",\"type\":\"text\",\"message\":\"Hi\"}}'\n"
    );
    println!("curl -s '{url}/api/v1/events?after=0' -H 'x-api-key: {key}'\n");
}

fn tell_network(network: &Network) {
    println!(
        "The network    {}   {}",
        network.ws_url(),
        network.wss_url()
    );
    println!(
        "Its control    {}/control/v1/accounts   (OpenAPI: {}/control/openapi.json)",
        network.http_url(),
        network.http_url()
    );
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
