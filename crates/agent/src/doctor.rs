//! What is wrong with this agent's surroundings: looks at everything that a working agent needs, and says of each how it
//! is and what to do. Starts nothing and changes nothing.
//!
//! Called by `moorline-agent doctor` and `moorline agent doctor`, with the flags of the agent itself, in the place where
//! it runs.

mod cluster;
mod rights;
mod services;
mod way;

use std::sync::Arc;

use moorline_model::{Finding, Report};
use moorline_process::Registry;

use crate::{
    config::{Config, RawConfig, Surroundings},
    credentials::Credentials,
    identity::Identity,
    kubernetes::Client,
    metrics::Metrics,
    serve::upstream::Upstream,
};

const CONFIGURATION: &str = "configuration";
const CERTIFICATE: &str = "certificate-expiry";
const CLOCK: &str = "clock";

/// The checks that need a configuration, in the order in which they are made.
const LATER: [&str; 4] = ["kube-apiserver", "permissions", "connection", "tunnel"];

/// A certificate that ends sooner than this should have been renewed.
const SOON: std::time::Duration = std::time::Duration::from_secs(14 * 24 * 60 * 60);

/// Looks at everything, with the environment of this process.
pub async fn examine(raw: &RawConfig) -> Report {
    examined(raw, Config::from_raw(raw)).await
}

/// As [`examine`], in given surroundings.
pub async fn examine_in(raw: &RawConfig, surroundings: &Surroundings<'_>) -> Report {
    examined(raw, Config::resolve(raw, surroundings)).await
}

async fn examined(raw: &RawConfig, config: Result<Config, crate::ConfigError>) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let told = error.problems().iter();
            let mut findings: Vec<_> = told
                .map(|wrong| Finding::fail(CONFIGURATION, format!("{}: {}", wrong.field, wrong.what), &wrong.remedy))
                .collect();
            findings.extend(LATER.map(|check| Finding::skipped(check, "the configuration cannot be used")));
            return Report { findings };
        }
    };
    let mut findings = vec![Finding::ok(CONFIGURATION, "the flags and files can be used")];
    findings.extend(config.warnings.iter().map(|warning| Finding::warn(CONFIGURATION, warning, "see there")));
    services::examine(&config.services, &mut findings);
    let metrics = Arc::new(Metrics::new(&Registry::new("moorline-agent", env!("CARGO_PKG_VERSION"))));
    let credentials = match Credentials::new(config.token, Arc::clone(&metrics)) {
        Ok(credentials) => Arc::new(credentials),
        Err(error) => {
            findings.push(Finding::fail(LATER[0], format!("the token {error}"), "look at the token's file"));
            findings.extend(LATER.into_iter().skip(1).map(|check| Finding::skipped(check, "there is no token")));
            return Report { findings };
        }
    };
    let client = Client::new(Arc::new(Upstream::new(config.upstream, credentials, Arc::clone(&metrics))));
    if let Some(secret) = &config.secret {
        secret.attach(client.clone(), metrics);
    }
    let reached = cluster::examine(&client, &mut findings).await;
    if reached {
        rights::examine(&client, raw, &config.serve.narrowing, &mut findings).await;
    } else {
        findings.push(Finding::skipped(LATER[1], "the kube-apiserver cannot be asked"));
    }
    identity(&config.tunnel.identity, &mut findings).await;
    let route = way::route(&client, &config.connection, reached, &mut findings).await;
    match route {
        Some(route) => way::examine(&route, &mut findings).await,
        None => findings.push(Finding::skipped(LATER[3], "it is not known where the management cluster is")),
    }
    Report { findings }
}

/// The certificate in use, which is the Secret's where there is one.
async fn identity(identity: &Identity, findings: &mut Vec<Finding>) {
    identity.refresh().await;
    let (keys, now) = (identity.keys().current(), crate::config::now());
    let not_after = keys.not_after();
    let remedy = "an agent that is connected renews it; otherwise register the cluster anew (moorline cluster add)";
    findings.push(match keys.check_validity(now) {
        Err(time) => Finding::fail(CERTIFICATE, format!("the agent's certificate is {time}"), remedy),
        Ok(()) if not_after.saturating_sub(SOON) <= now => {
            Finding::warn(CERTIFICATE, format!("the agent's certificate ends {not_after}"), remedy)
        }
        Ok(()) => Finding::ok(CERTIFICATE, format!("the agent's certificate is good until {not_after}")),
    });
}
