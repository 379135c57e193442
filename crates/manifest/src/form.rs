//! How a manifest is handed on: one stream of YAML, a kustomize directory, or values of the Helm chart.

use crate::{
    agent::{Address, Document, Install, Manifest},
    object::map,
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
        files(&self.objects(address))
    }
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
