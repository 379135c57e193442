//! Writes kubeconfig files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::ClientCertificate;

/// What a kubeconfig's user presents.
pub enum Credential<'a> {
    /// A bearer token.
    Token(&'a str),
    /// A client certificate.
    Certificate(&'a ClientCertificate),
}

/// Writes a kubeconfig with one cluster, one user and one context.
///
/// It is JSON, which is YAML too.
pub fn write(path: &Path, server: &str, ca_pem: &str, credential: &Credential<'_>) -> Result<()> {
    let user = match credential {
        Credential::Token(token) => json!({ "token": token }),
        Credential::Certificate(client) => json!({
            "client-certificate-data": STANDARD.encode(&client.certificate_pem),
            "client-key-data": STANDARD.encode(&client.key_pem),
        }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "users": [{ "name": "test", "user": user }],
        "clusters": [{ "name": "test", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        } }],
    });
    fs::write(path, serde_json::to_vec_pretty(&config)?).context("write a kubeconfig")?;
    // kubectl and helm warn about files that others can read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("protect a kubeconfig")
}
