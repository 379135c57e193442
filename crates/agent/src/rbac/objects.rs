//! Roles and bindings in Kubernetes' shape.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Object, Wanted, rules::Rule};

const API_GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// A `ClusterRole` or `Role`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    rules: Vec<Rule>,
}

/// A `ClusterRoleBinding` or `RoleBinding`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    role_ref: Reference,
    subjects: [Subject; 1],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    labels: BTreeMap<&'static str, &'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_group: &'static str,
    kind: &'static str,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Subject {
    kind: &'static str,
    namespace: String,
    name: String,
}

/// A role with these rules, in a namespace or for the whole cluster, and its binding to the agent.
pub(super) fn pair(wanted: &Wanted, namespace: Option<&str>, rules: Vec<Rule>) -> [Object; 2] {
    let (role, binding) =
        if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
    let metadata = || Metadata {
        name: wanted.name.clone(),
        namespace: namespace.map(str::to_owned),
        labels: BTreeMap::from([("app.kubernetes.io/name", "moorline-agent")]),
    };
    let (account_namespace, account) = wanted.service_account.clone();
    [
        Object::Role(Role { api_version: API_VERSION, kind: role, metadata: metadata(), rules }),
        Object::Binding(Binding {
            api_version: API_VERSION,
            kind: binding,
            metadata: metadata(),
            role_ref: Reference { api_group: API_GROUP, kind: role, name: wanted.name.clone() },
            subjects: [Subject { kind: "ServiceAccount", namespace: account_namespace, name: account }],
        }),
    ]
}
