//! How a manifest is handed on: one stream of YAML, a kustomize directory, or values of the Helm chart.

use crate::{
    agent::{Address, Document, Install, Manifest},
    object::{AGENT, map},
    yaml::{InvalidYaml, Node},
};

impl Manifest<'_> {
    /// Everything in one stream, for `kubectl apply --filename -`.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn stream(&self) -> Result<String, InvalidYaml> {
        joined(self.documents().iter().map(|document| &document.object))
    }

    /// Values of the chart `deploy/helm/moorline-agent`.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn values(&self) -> Result<String, InvalidYaml> {
        let mut values = values(&self.install.objects(self.address, self.joins()));
        let secret = self.secret();
        let annotations = secret.at("metadata").and_then(|metadata| metadata.at("annotations"));
        let part = |node: Option<&Node>| node.cloned().unwrap_or_default();
        values.set("secret", map! { "annotations" => part(annotations), "data" => part(secret.at("data")) });
        values.to_yaml()
    }

    /// The files of a directory for `kubectl apply --kustomize`, by their names.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn kustomization(&self) -> Result<Vec<(String, String)>, InvalidYaml> {
        files(&self.documents())
    }
}

impl Install {
    /// The files of such a directory without the Secret: what is the same for many clusters.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn base(&self, address: &Address) -> Result<Vec<(String, String)>, InvalidYaml> {
        files(&self.objects(address, false))
    }
}

impl Install {
    /// The chart's values without a Secret: its defaults.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn default_values(&self, address: &Address) -> Result<String, InvalidYaml> {
        values(&self.objects(address, false)).to_yaml()
    }
}

/// What of the objects depends on what was wanted; the chart has the rest.
fn values(documents: &[Document]) -> Node {
    let of = |kind: &str, name: &str, part: &str| {
        let is = |object: &&Node| {
            let named = object.at("metadata").and_then(|metadata| metadata.at("name")).and_then(Node::as_text);
            object.at("kind").and_then(Node::as_text) == Some(kind) && named == Some(name)
        };
        let found = documents.iter().map(|document| &document.object).find(is);
        found.and_then(|object| object.at(part)).cloned().unwrap_or_default()
    };
    let named = |suffix: &str| format!("{AGENT}{suffix}");
    let mut namespaces = map! {};
    for Document { object, .. } in documents {
        let metadata = object.at("metadata");
        let text = |key: &str| metadata.and_then(|metadata| metadata.at(key)).and_then(Node::as_text);
        if let (Some("Role"), Some(AGENT), Some(namespace)) =
            (object.at("kind").and_then(Node::as_text), text("name"), text("namespace"))
        {
            namespaces.set(namespace, object.at("rules").cloned().unwrap_or_default());
        }
    }
    let mut values = map! {
        "impersonation" => map! { "rules" => of("ClusterRole", AGENT, "rules"), "namespaces" => namespaces },
        "rights" => map! {
            "certificates" => of("Role", &named("-certificates"), "rules"),
            "connection" => of("ClusterRole", &named("-connection"), "rules"),
        },
        "networkPolicy" => of("NetworkPolicy", AGENT, "spec"),
        "deployment" => of("Deployment", AGENT, "spec"),
    };
    let service = of("Service", AGENT, "spec");
    if service != Node::Null {
        values.set("service", service);
    }
    values
}

fn files(documents: &[Document]) -> Result<Vec<(String, String)>, InvalidYaml> {
    let mut names: Vec<&'static str> = Vec::new();
    for Document { file, .. } in documents {
        if !names.contains(file) {
            names.push(file);
        }
    }
    let kustomization = map! {
        "apiVersion" => "kustomize.config.k8s.io/v1beta1",
        "kind" => "Kustomization",
        "resources" => names.clone(),
    };
    let mut files = vec![("kustomization.yaml".to_owned(), kustomization.to_yaml()?)];
    for name in names {
        let of_it = documents.iter().filter(|document| document.file == name);
        files.push((name.to_owned(), joined(of_it.map(|document| &document.object))?));
    }
    Ok(files)
}

fn joined<'a>(objects: impl Iterator<Item = &'a Node>) -> Result<String, InvalidYaml> {
    let documents: Vec<String> = objects.map(Node::to_yaml).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}
