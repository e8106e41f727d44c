//! Who writes to whom: accounts with their phones, and the linking of sessions to them. What tests, soak
//! and benchmarks share.

use anyhow::{Context, Result};
use serde_json::json;
use wagate::client::Client;
use wagate_network::handle::PhoneHandle;
use wagate_network::network::Network;
use wagate_network::world::AccountSpec;

/// The number that owns session `n`.
pub fn owner_number(n: usize) -> String {
    format!("+62811{n:07}")
}

/// The number of contact `n`.
pub fn contact_number(n: usize) -> String {
    format!("+62812{n:07}")
}

/// Makes an account and its phone.
pub fn account(network: &Network, number: &str, name: &str) -> Result<PhoneHandle> {
    let spec = AccountSpec {
        phone: number.to_owned(),
        push_name: Some(name.to_owned()),
        ..AccountSpec::default()
    };
    Ok(network.add_phone(spec)?)
}

/// Creates a session and has the phone scan its QR code; it connects soon after.
pub async fn link(client: &Client, session: &str, phone: &PhoneHandle) -> Result<()> {
    client
        .post("/api/v1/sessions", &json!({ "id": session }))
        .await?;
    link_again(client, session, phone).await
}

/// The same for a session that exists.
pub async fn link_again(client: &Client, session: &str, phone: &PhoneHandle) -> Result<()> {
    let connect = format!("/api/v1/sessions/{session}/connect");
    client.post(&connect, &json!({ "method": "qr" })).await?;
    let qr = client
        .get(&format!("/api/v1/sessions/{session}/qr"))
        .await?;
    let text = qr.data()["qrString"]
        .as_str()
        .context("no QR code in the answer")?;
    phone.scan(text).await?;
    Ok(())
}
