//! What the agent's own account may do in its cluster: asked of the kube-apiserver, about itself.

use std::collections::BTreeSet;

use moorline_impersonation::{Name, Narrowing};
use moorline_model::Finding;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    config::RawConfig,
    kubernetes::{CallError, Client},
    serve::Chain,
};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

const ROLES: &str = "apply the agent's manifest (moorline cluster manifest), or the roles of `moorline agent rbac`";

/// One right, as a review asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Right {
    verb: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'static str,
    resource: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

#[derive(Deserialize)]
struct Review {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    allowed: bool,
}

/// What must be allowed together for one check to be good.
struct Needed {
    check: &'static str,
    what: String,
    rights: Vec<Right>,
    /// Without them everything else still works.
    optional: bool,
}

pub(super) async fn examine(client: &Client, raw: &RawConfig, narrowing: &Narrowing, findings: &mut Vec<Finding>) {
    for needed in all(raw, narrowing) {
        let mut missing = Vec::new();
        let mut failed = None;
        for right in &needed.rights {
            match allowed(client, right).await {
                Ok(true) => {}
                Ok(false) => missing.push(right.words()),
                Err(error) => failed = Some(Chain(&error).to_string()),
            }
        }
        findings.push(match failed {
            Some(error) => Finding::fail(needed.check, format!("cannot be asked: {error}"), ROLES),
            None if missing.is_empty() => Finding::ok(needed.check, format!("the agent may {}", needed.what)),
            None => {
                let message = format!("the agent may not {}: {}", needed.what, missing.join(", "));
                if needed.optional {
                    Finding::warn(needed.check, message, ROLES)
                } else {
                    Finding::fail(needed.check, message, ROLES)
                }
            }
        });
    }
}

fn all(raw: &RawConfig, narrowing: &Narrowing) -> Vec<Needed> {
    let mut all = Vec::new();
    let impersonate = [
        ("permission-impersonate-users", "users", narrowing.possible_users()),
        ("permission-impersonate-groups", "groups", narrowing.possible_groups()),
    ];
    for (check, resource, names) in impersonate {
        if let Some(name) = asked_for(&names) {
            let right = Right { verb: "impersonate", resource, name, ..Right::default() };
            all.push(Needed { check, what: format!("act as {resource}"), rights: vec![right], optional: false });
        }
    }
    let kube_system = Right { verb: "get", resource: "namespaces", name: "kube-system".to_owned(), ..Right::default() };
    let what = "read which cluster this is".to_owned();
    all.push(Needed { check: "permission-cluster-uid", what, rights: vec![kube_system], optional: true });
    if let Some(name) = &raw.management_cluster_connection {
        let (group, resource) = ("moorline.io", "managementclusterconnections");
        let right =
            |verb, subresource| Right { verb, group, resource, subresource, name: name.clone(), ..Right::default() };
        let rights = vec![right("list", ""), right("watch", ""), right("patch", "status")];
        let what = "follow the connection resource and write its status".to_owned();
        all.push(Needed { check: "permission-connection", what, rights, optional: false });
    }
    if let Some((namespace, name)) = raw.identity_secret.as_deref().and_then(|secret| secret.split_once('/')) {
        let right = |verb| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Right { verb, resource: "secrets", namespace, name, ..Right::default() }
        };
        let what = "keep its certificate in its Secret".to_owned();
        all.push(Needed {
            check: "permission-secret",
            what,
            rights: vec![right("get"), right("update")],
            optional: false,
        });
    }
    all
}

/// The name to ask about: one of those that are possible, or none for all of them.
fn asked_for(names: &BTreeSet<Name>) -> Option<String> {
    if names.iter().any(|name| matches!(name, Name::Beginning(_))) {
        return Some(String::new());
    }
    names.iter().find_map(|name| match name {
        Name::Exactly(name) => Some(name.clone()),
        Name::Beginning(_) => None,
    })
}

async fn allowed(client: &Client, right: &Right) -> Result<bool, CallError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": right },
    });
    Ok(client.review::<Review>(REVIEWS, &review).await?.status.allowed)
}

impl Right {
    fn words(&self) -> String {
        let part = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", self.name) };
        format!("{} {}{part}{name}", self.verb, self.resource)
    }
}
