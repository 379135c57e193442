//! The managed side in `deploy/`: the definition of its resource, and the agent as a base for kustomize.

use anyhow::{Context, Result, anyhow};
use moorline_impersonation::Narrowing;
use moorline_manifest::agent::{Acting, Address, Written, connection_definition};

/// Where a reader is to write their own.
const ADDRESS: &str = "moorline.example.org:9449";

/// The defaults of the agent's chart.
const CHART_VALUES: &str = "deploy/helm/moorline-agent/values.yaml";
const CHART_REMARK: &str = "\
# An agent of defaults, without its Secret moorline-agent-certs. `moorline cluster add NAME --output helm` writes values for
# one cluster, its Secret and its choices included: flags, roles and what may be dialled are made to fit each other there.
";

/// Paths and contents.
pub(super) fn files() -> Result<Vec<(String, String)>> {
    let acting = Acting { arguments: Vec::new(), narrowing: Narrowing::default() };
    let install = Written::default().resolve(env!("CARGO_PKG_VERSION"), acting);
    let install = install.map_err(|problems| anyhow!("the defaults of a manifest: {problems:?}"))?;
    let address = Address::parse(ADDRESS, 0)?;
    let base = install.base(&address).context("writing the base of an agent")?;
    let mut files: Vec<_> =
        base.into_iter().map(|(name, content)| (format!("deploy/kustomize/agent/{name}"), content)).collect();
    for directory in ["deploy/crds", "deploy/helm/moorline-agent/crds"] {
        files.push((format!("{directory}/managementclusterconnections.yaml"), connection_definition().to_yaml()?));
    }
    files.push((CHART_VALUES.to_owned(), format!("{}{}", CHART_REMARK, install.default_values(&address)?)));
    Ok(files)
}
