//! The custom resource definition of `ManagedCluster`, generated from its Rust types.
//!
//! Called by `cargo xtask generate`, which writes it below `deploy/`, and by tests that apply it.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::resource::ManagedCluster;

/// The definition as JSON, in the form that `kubectl apply` takes.
#[must_use]
pub fn managed_cluster_definition() -> Value {
    let mut definition = serde_json::to_value(ManagedCluster::crd()).unwrap_or_default();
    if let Some(schema) = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties") {
        // A cluster needs nothing but a name: everything that can be asked for has a default.
        schema["spec"]["default"] = json!({});
        let conditions = &mut schema["status"]["properties"]["conditions"];
        conditions["x-kubernetes-list-type"] = json!("map");
        conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not in a structural schema is dropped by kube-apiserver without a word, and what is not bounded makes its
    /// rules too dear; the real one is asked in the tests of the whole house.
    #[test]
    fn says_what_a_schema_alone_cannot() {
        let text = managed_cluster_definition().to_string();
        for said in [
            r#""shortNames":["mcl"]"#,
            r#""scope":"Cluster""#,
            "self.metadata.name != 'management'",
            r#""subresources":{"status":{}}"#,
            r#""default":"moorline""#,
        ] {
            assert!(text.contains(said), "{said}");
        }
    }
}
