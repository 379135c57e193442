//! The way to the management cluster, step by step: the same dial as the agent's own, judged by the same table.

use std::sync::Arc;

use moorline_model::Finding;

use super::LATER;
use crate::{
    connection::{self, Named},
    kubernetes::Client,
    serve::Chain,
    standing::Reason,
    tunnel::{DialError, Route},
};

/// The steps of a dial, in order.
const STEPS: [&str; 5] = ["dns", "tcp", "proxy", "tls-chain", "server-name"];

const DNS: usize = 0;
const TCP: usize = 1;
const PROXY: usize = 2;
const CHAIN: usize = 3;
const NAME: usize = 4;

/// The way that an agent would go: the resource's, or else the flag's.
pub(super) async fn route(
    client: &Client,
    config: &connection::Config,
    reached: bool,
    findings: &mut Vec<Finding>,
) -> Option<Arc<Route>> {
    let flag = config.routes.borrow().clone();
    let Some(resource) = &config.resource else {
        findings.push(Finding::skipped(LATER[2], "no resource is followed (--management-cluster-connection)"));
        return flag;
    };
    if !reached {
        findings.push(Finding::skipped(LATER[2], "the kube-apiserver cannot be asked"));
        return flag;
    }
    let remedy = "apply the agent's manifest (moorline cluster manifest), which holds it and its definition";
    match connection::named(client, resource).await {
        Ok(Named::Missing) => {
            findings.push(Finding::fail(LATER[2], format!("{resource} does not exist"), remedy));
            flag
        }
        Ok(Named::Invalid(why)) => {
            findings.push(Finding::fail(LATER[2], format!("{resource}: {why}"), "correct its spec"));
            flag
        }
        Ok(Named::Way(address, trust)) => match config.router.route(1, address, trust) {
            Ok(route) => {
                findings.push(Finding::ok(LATER[2], format!("{resource} names {}", route.address)));
                Some(Arc::new(route))
            }
            Err(error) => {
                findings.push(Finding::fail(LATER[2], format!("{resource}: {error}"), "correct its spec"));
                flag
            }
        },
        Err(error) => {
            findings.push(Finding::fail(LATER[2], Chain(&error).to_string(), remedy));
            flag
        }
    }
}

/// Dials once, shows the certificate, hears whether it is refused, and hangs up.
pub(super) async fn examine(route: &Route, findings: &mut Vec<Finding>) {
    let target = route.dialer.target();
    let proxied = route.dialer.proxy.is_some();
    let dialled = route.dialer.examine().await;
    let failed = dialled.as_ref().err().map(step);
    for (number, check) in STEPS.into_iter().enumerate() {
        findings.push(match (failed, &dialled) {
            _direct if number == PROXY && !proxied => Finding::skipped(check, "no proxy is in the way"),
            (Some(step), Err(error)) if number == step => {
                let reason = Reason::from(error);
                Finding::fail(check, format!("{reason}: {}", Chain(error)), error.remedy())
            }
            (Some(step), _) if number > step => Finding::skipped(check, "a step before failed"),
            _passed => Finding::ok(check, passed(number, &target)),
        });
    }
    if let Ok(refused) = dialled {
        findings.push(match refused {
            None => Finding::ok(LATER[3], format!("the server at {target} takes this agent's certificate in TLS")),
            Some(refused) => {
                let (reason, remedy) = (Reason::from(&refused), crate::tunnel::tls_remedy(&refused));
                Finding::fail(LATER[3], format!("{reason}: {refused}"), remedy)
            }
        });
    } else {
        findings.push(Finding::skipped(LATER[3], "a step before failed"));
    }
}

fn passed(step: usize, target: &str) -> String {
    match step {
        DNS => format!("{target} has an address"),
        TCP => "the connection is made".to_owned(),
        PROXY => format!("the proxy opens a way to {target}"),
        CHAIN => "the server's certificate is trusted and in its time".to_owned(),
        _name => "the server's certificate is for the name that is asked for".to_owned(),
    }
}

/// The step at which a dial failed.
fn step(error: &DialError) -> usize {
    match error {
        DialError::Tcp(_, error) | DialError::ProxyTcp(_, error) => {
            if Reason::from(error) == Reason::NameResolutionFailed { DNS } else { TCP }
        }
        DialError::ProxyTls(..) | DialError::Proxy(..) | DialError::ProxyTimeout(..) => PROXY,
        DialError::Tls(_, error) => {
            if Reason::from(error) == Reason::ServerNameMismatch {
                NAME
            } else {
                CHAIN
            }
        }
    }
}
