//! The managed side in `deploy/`: the definition of its resource, and the agent as a base for kustomize.

use anyhow::{Context, Result, anyhow};
use moorline_impersonation::Narrowing;
use moorline_manifest::agent::{Acting, Address, Written, connection_definition};

/// Where a reader is to write their own.
const ADDRESS: &str = "moorline.example.org:9449";

/// Paths and contents.
pub(super) fn files() -> Result<Vec<(String, String)>> {
    let acting = Acting { arguments: Vec::new(), narrowing: Narrowing::default() };
    let install = Written::default().resolve(env!("CARGO_PKG_VERSION"), acting);
    let install = install.map_err(|problems| anyhow!("the defaults of a manifest: {problems:?}"))?;
    let base = install.base(&Address::parse(ADDRESS, 0)?).context("writing the base of an agent")?;
    let mut files: Vec<_> =
        base.into_iter().map(|(name, content)| (format!("deploy/kustomize/agent/{name}"), content)).collect();
    files.push(("deploy/crds/managementclusterconnections.yaml".to_owned(), connection_definition().to_yaml()?));
    Ok(files)
}
