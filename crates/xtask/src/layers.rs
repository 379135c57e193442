//! The layer table of ARCHITECTURE.md as a constant, held against `cargo metadata`.
//!
//! Arrows point down only. What the walls buy: the agent can never link the signer, the policy or a Kubernetes
//! client; the multiplexer never sees a user; only one crate can mint a permit.

use anyhow::{Result, bail};

use crate::workspace::{Metadata, Package};

/// Each crate and the crates of ours that it may depend on (normal and build dependencies).
const MAY_USE: &[(&str, &[&str])] = &[
    // L0: words
    ("model", &[]),
    // L1: decide and encode; no tokio, no clock, no files
    ("access", &["model"]),
    ("impersonation", &["model"]),
    ("wire", &["model"]),
    ("pki", &["model"]),
    ("ca", &["model", "pki"]),
    ("csr", &[]),
    ("api", &["model"]),
    ("audit", &["model", "access"]),
    // Roles say in Kubernetes' words what a narrowing says.
    ("manifest", &["model", "impersonation"]),
    // L2: touch the world, hold no policy, never see each other
    ("mux", &[]),
    ("mtls", &["model", "pki"]),
    ("process", &["model"]),
    ("store", &["model"]),
    // Its trait is of `access`, its connections are of `mtls`.
    ("oidc", &["model", "access", "mtls"]),
    ("demo", &["model"]),
    // Stands where `access` asks for an authenticator and an authorizer, so it knows those two traits.
    ("kube", &["model", "access"]),
    // L3: compose
    ("agent", &["model", "impersonation", "wire", "pki", "csr", "mux", "mtls", "process"]),
    (
        "server",
        &[
            "model",
            "access",
            "audit",
            "impersonation",
            "wire",
            "pki",
            "ca",
            "api",
            "kube",
            "mux",
            "mtls",
            "process",
            "store",
            "oidc",
        ],
    ),
    // The quickstart runs server, agent and demo API in one process: two edges sideways, named here.
    ("cli", &["model", "api", "manifest", "pki", "mtls", "process", "demo", "server", "agent"]),
];

/// Crates that see everything and that nothing may depend on except as a development dependency.
const DEVELOPMENT: &[&str] = &["testkit", "xtask", "tests", "benches"];

/// Outside crates and the only crates of ours that may use them.
const ONLY_USED_BY: &[(&str, &[&str])] = &[
    ("yamux", &["mux"]),
    ("rcgen", &["ca", "csr"]),
    ("x509-parser", &["pki"]),
    ("rustls-webpki", &["mtls"]),
    ("redb", &["store"]),
    ("kube", &["kube"]),
    ("k8s-openapi", &["kube"]),
    ("schemars", &["kube"]),
    ("jsonwebtoken", &["oidc"]),
    ("tracing-subscriber", &["process"]),
    ("clap_complete", &["cli"]),
];

/// Crates of the pure layers and the outside crates they must never link.
const PURE: &[&str] = &["model", "access", "audit", "impersonation", "wire", "pki", "ca", "csr", "api", "manifest"];
const IMPURE: &[&str] = &["tokio", "tokio-util", "hyper", "hyper-util", "rustls", "tokio-rustls", "tracing", "socket2"];

const PREFIX: &str = "moorline-";

/// Fails naming every edge that the table does not have.
pub(crate) fn run() -> Result<()> {
    let mut wrong = Vec::new();
    for package in &Metadata::read()?.packages {
        wrong.extend(violations(package));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("edges that the layer table does not allow:\n  {}", wrong.join("\n  "))
}

fn violations(package: &Package) -> Vec<String> {
    let Some(room) = package.name.strip_prefix(PREFIX) else {
        return vec![format!("{}: package names begin with {PREFIX}", package.name)];
    };
    if DEVELOPMENT.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{room}: not in the layer table")];
    };
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .filter_map(|dependency| forbidden(room, allowed, &dependency.name))
        .collect()
}

fn forbidden(room: &str, allowed: &[&str], dependency: &str) -> Option<String> {
    if let Some(ours) = dependency.strip_prefix(PREFIX) {
        return (!allowed.contains(&ours)).then(|| format!("{room} -> {ours}"));
    }
    if PURE.contains(&room) && IMPURE.contains(&dependency) {
        return Some(format!("{room} -> {dependency} (pure crates have no IO)"));
    }
    let (_, users) = ONLY_USED_BY.iter().find(|(name, _)| *name == dependency)?;
    (!users.contains(&room)).then(|| format!("{room} -> {dependency} (only {} may)", users.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{MAY_USE, forbidden};

    #[test]
    fn the_agent_links_no_signer_and_no_policy() {
        let (_, agent) = MAY_USE.iter().find(|(name, _)| *name == "agent").unwrap();
        for wall in ["ca", "access", "audit", "api", "kube", "oidc", "store", "server"] {
            assert!(forbidden("agent", agent, &format!("moorline-{wall}")).is_some(), "{wall}");
        }
    }

    #[test]
    fn outside_crates_stay_in_their_room() {
        assert!(forbidden("server", &[], "yamux").is_some());
        assert!(forbidden("mux", &[], "yamux").is_none());
        assert!(forbidden("wire", &[], "tokio").is_some());
    }
}
