//! Registers clusters of this dialect over the management API, and keeps what their Guardians need.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, paths};
use serde_json::{Value, json};

use crate::client::{Client, LIMIT, full};
use crate::eventually;
use crate::house;

/// What Guardian calls the authority that it trusts, its certificate, and its key.
const FILES: [&str; 3] = ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"];

/// Registers a cluster whose agent is Guardian, with a certificate that the server signs.
///
/// # Errors
/// When the server refuses.
pub async fn create(client: &Client, name: &str) -> Result<CreatedCluster> {
    Ok(serde_json::from_value(ask(client, &json!({ "name": name, "dialect": "guardian" })).await?)?)
}

/// Registers a cluster whose agent is Guardian, and writes its files, with a token that it shows upstream.
///
/// # Errors
/// When the server refuses, or the files cannot be written.
pub async fn enrol(client: &Client, name: &str, directory: &Path) -> Result<()> {
    house::write_enrolment(&create(client, name).await?, directory)
}

/// The same with a certificate that its owner brings, and its key, which stays here.
///
/// # Errors
/// When the server refuses, or the files cannot be written.
pub async fn enrol_brought(
    client: &Client,
    name: &str,
    (certificate, key): (&str, &str),
    directory: &Path,
) -> Result<()> {
    let created = ask(client, &json!({ "name": name, "dialect": "guardian", "certificate": certificate })).await?;
    let authority = created[FILES[0]].as_str().context("no authority in the answer")?;
    for (name, text) in FILES.into_iter().zip([authority, certificate, key]) {
        moorline_process::write_private(&directory.join(name), text.as_bytes())?;
    }
    // A scripted kube-apiserver looks at it no further.
    Ok(moorline_process::write_private(&directory.join("token"), b"the-agent's-own-token")?)
}

/// Waits until requests get through to a cluster.
///
/// # Errors
/// When they do not in time.
pub async fn connected(client: &Client, name: &str) -> Result<()> {
    // What Guardian passes on, and a kube-apiserver answers everybody.
    let path = format!("/clusters/{name}/api/v1");
    let through = async || client.get(&path).await.ok().filter(|answer| answer.code == StatusCode::OK);
    if eventually(LIMIT, through).await.is_ok() {
        return Ok(());
    }
    anyhow::bail!("{name} does not connect: {:?}", client.get(&path).await)
}

async fn ask(client: &Client, body: &Value) -> Result<Value> {
    let answer = client.ask(client.request_with(Method::POST, paths::CLUSTERS, full(body.to_string()))).await?;
    ensure!(answer.code == StatusCode::CREATED, "{}", answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}
