//! Namespace, service account, rights and Secret of the agent.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{CERTIFICATES, Certificates, Credential, FILES, Install, JOIN_TOKEN, Manifest, connection};
use crate::{
    object::{AGENT, list, map, object},
    rbac,
    yaml::Node,
};

/// A namespace in which Kubernetes admits only pods of the restricted level.
pub(super) fn namespace(install: &Install) -> Node {
    let mut namespace = object("v1", "Namespace", &install.namespace, None);
    if let Some(labels) = namespace.entry("metadata").and_then(|metadata| metadata.entry("labels")) {
        for mode in ["enforce", "audit", "warn"] {
            labels.set(&format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
        }
    }
    namespace
}

/// Its token is mounted by the Deployment alone.
pub(super) fn account(install: &Install) -> Node {
    let mut account = object("v1", "ServiceAccount", AGENT, Some(&install.namespace));
    account.set("automountServiceAccountToken", false.into());
    account
}

/// The rights to act as others, and what they cannot say.
pub(super) fn impersonation(install: &Install) -> (Vec<Node>, Vec<String>) {
    // Only the constrained grammar can be unable to say something, and it is not what is wanted here.
    let rendered = rbac::render(&install.acting.narrowing, &install.wanted());
    rendered.map_or_else(|_unsayable| Default::default(), |rendered| (rendered.objects, rendered.remarks))
}

/// The rights that have nothing to do with users: its own Secret, and its own connection.
pub(super) fn rights(install: &Install) -> [Node; 4] {
    let account = (install.namespace.as_str(), AGENT);
    let secret = list![map! {
        "apiGroups" => list![""],
        "resources" => list!["secrets"],
        "resourceNames" => list![CERTIFICATES],
        "verbs" => list!["get", "update"],
    }];
    let of_connection = |resource: &str, verbs: Node| {
        map! {
            "apiGroups" => list![connection::GROUP],
            "resources" => list![resource],
            "resourceNames" => list![connection::NAME],
            "verbs" => verbs,
        }
    };
    let connection = list![
        // Rights to make something cannot be bound to a name; the definition admits no other.
        map! {
            "apiGroups" => list![connection::GROUP],
            "resources" => list![connection::PLURAL],
            "verbs" => list!["create"],
        },
        of_connection(connection::PLURAL, list!["get", "list", "watch"]),
        of_connection(&format!("{}/status", connection::PLURAL), list!["get", "patch"]),
    ];
    let [secret_role, secret_binding] =
        rbac::pair(&format!("{AGENT}-certificates"), account, Some(&install.namespace), secret);
    let [role, binding] = rbac::pair(&format!("{AGENT}-connection"), account, None, connection);
    [secret_role, secret_binding, role, binding]
}

/// What the server gave once.
pub(super) fn secret(manifest: &Manifest<'_>) -> Node {
    let mut secret = object("v1", "Secret", CERTIFICATES, Some(&manifest.install.namespace));
    let annotations = map! {
        "moorline.io/cluster" => manifest.cluster.as_str(),
        "moorline.io/management-cluster-addr" => manifest.address.to_string(),
    };
    if let Some(metadata) = secret.entry("metadata") {
        metadata.set("annotations", annotations);
    }
    secret.set("type", "Opaque".into());
    let contents = match manifest.credential {
        Credential::Certificates(Certificates { authorities, certificate, key }) => {
            FILES.into_iter().zip([authorities, certificate, key]).collect()
        }
        Credential::JoinToken(token) => vec![(JOIN_TOKEN, token)],
    };
    let data = contents.into_iter().map(|(file, text)| (file.to_owned(), BASE64_STANDARD.encode(text).into()));
    secret.set("data", Node::Map(data.collect()));
    secret
}
