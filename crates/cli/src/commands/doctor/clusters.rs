//! The clusters that are not as they should be, as far as the gateway knows why.

use moorline_api::ServerStatus;
use moorline_model::Finding;
use serde_json::Value;

use crate::{
    client::Client,
    commands::{cluster, view},
};

/// Clusters that are told one by one; a hub that lost its whole fleet has one trouble, not thousands.
const TOLD: usize = 20;

/// Looks at all clusters.
pub(super) async fn examine(client: &Client, server: Option<&ServerStatus>, findings: &mut Vec<Finding>) {
    let list: Value = match cluster::list(client).await {
        Ok(list) => list,
        Err(failure) => return findings.push(Finding::skipped("clusters", failure.what.join("; "))),
    };
    let summary = view::summary(&list, server, view::now());
    if summary.is_well {
        return findings.push(Finding::ok("clusters", summary.line));
    }
    let remedy = "see moorline cluster describe NAME; in that cluster, moorline-agent doctor says what is wrong there";
    for warning in summary.warnings.iter().take(TOLD) {
        findings.push(Finding::warn("clusters", warning, remedy));
    }
    if let Some(more) = summary.warnings.len().checked_sub(TOLD).filter(|more| *more > 0) {
        findings.push(Finding::warn("clusters", format!("and {more} more"), "see moorline status"));
    }
}
