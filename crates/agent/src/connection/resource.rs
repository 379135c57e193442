//! `ManagementClusterConnection` in Kubernetes' shape, as far as the agent reads it. What it does not know it leaves
//! alone.

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    kubernetes::{Metadata, Object},
    tunnel::{Address, Trust},
};

/// The resource.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Connection {
    pub(super) metadata: Metadata,
    spec: Spec,
    pub(super) status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    management_cluster_addr: String,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Tls {
    ca: Option<String>,
}

/// Whatever conditions there are; those of others are written back as they were.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) conditions: Vec<Value>,
}

/// Why a spec says nothing of use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum InvalidSpec {
    #[error("spec.managementClusterAddr is missing; write HOST or HOST:PORT")]
    NoAddress,
    #[error("spec.managementClusterAddr {0}; write HOST or HOST:PORT without a scheme, an IPv6 address in brackets")]
    Address(String),
    #[error("spec.tls.ca {0:?} is unknown; write Moorline or Public")]
    Trust(String),
}

impl Connection {
    /// Where it says the server is, and who is to be believed there.
    pub(super) fn wanted(&self) -> Result<(Address, Trust), InvalidSpec> {
        let text = self.spec.management_cluster_addr.trim();
        if text.is_empty() {
            return Err(InvalidSpec::NoAddress);
        }
        let address = text.parse::<Address>().map_err(|error| InvalidSpec::Address(error.to_string()))?;
        let ca = self.spec.tls.as_ref().and_then(|tls| tls.ca.as_deref()).unwrap_or("Moorline");
        let trust = match ca {
            "Moorline" => Trust::Moorline,
            "Public" => Trust::Public,
            other => return Err(InvalidSpec::Trust(other.chars().take(64).collect())),
        };
        Ok((address, trust))
    }

    /// The resource that names a server, to be made.
    pub(super) fn to_make(object: &Object, server: &Address) -> Value {
        json!({
            "apiVersion": object.kind.api_version(),
            "kind": "ManagementClusterConnection",
            "metadata": {
                "name": object.name.as_str(),
                "labels": { "app.kubernetes.io/managed-by": "moorline-agent" },
            },
            "spec": { "managementClusterAddr": server.to_string() },
        })
    }

    /// Counts the changes of the spec.
    pub(super) fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::CONNECTIONS;

    fn wanted(spec: &Value) -> Result<(Address, Trust), InvalidSpec> {
        let connection: Connection =
            serde_json::from_value(json!({ "metadata": { "name": "default" }, "spec": spec })).unwrap();
        connection.wanted()
    }

    #[test]
    fn what_is_made_reads_back() {
        let object = Object::of_cluster(CONNECTIONS, "default".parse().unwrap());
        let server = "[2001:db8::1]:443".parse().unwrap();
        let made = Connection::to_make(&object, &server);
        assert_eq!(
            (&made["apiVersion"], &made["metadata"]["name"]),
            (&json!("moorline.io/v1alpha1"), &json!("default"))
        );
        let connection: Connection = serde_json::from_value(made).unwrap();
        assert_eq!(connection.wanted(), Ok((server, Trust::Moorline)));
    }

    #[test]
    fn a_spec_names_a_server_or_says_what_is_wrong() {
        let (address, trust) = wanted(&json!({ "managementClusterAddr": "hub.example.com" })).unwrap();
        assert_eq!((address.to_string().as_str(), trust), ("hub.example.com:9449", Trust::Moorline));
        let spec = json!({ "managementClusterAddr": "[fd00::1]:443", "tls": { "ca": "Public" } });
        let (address, trust) = wanted(&spec).unwrap();
        assert_eq!((address.to_string().as_str(), trust), ("[fd00::1]:443", Trust::Public));
        for (spec, words) in [
            (json!({}), "managementClusterAddr is missing"),
            (json!({ "managementClusterAddr": "https://hub" }), "is no address"),
            (json!({ "managementClusterAddr": "hub", "tls": { "ca": "Tigera" } }), "\"Tigera\" is unknown"),
        ] {
            let error = wanted(&spec).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
