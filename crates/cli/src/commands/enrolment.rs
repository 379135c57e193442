//! What an agent needs to connect, written where it was wanted: files in a directory, or a Kubernetes Secret.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use moorline_api::Enrolment;
use moorline_manifest::Node;
use moorline_model::ClusterName;
use moorline_process::private_file::{create_private, private_dir};

use crate::{failure::Failure, printer::Printer};

/// The files of an agent's certificate directory.
const FILES: [&str; 3] = ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"];
/// The address that the agent dials, beside them.
const ADDRESS_FILE: &str = "management-cluster-addr";

/// The Secret that the agent's Deployment mounts.
const SECRET: &str = "moorline-agent-certs";

/// Where an enrolment goes.
pub(super) enum Target {
    Directory(PathBuf),
    Secret { namespace: String },
}

impl Target {
    /// A directory, made if need be, that holds no enrolment yet.
    pub(super) fn directory(dir: &Path) -> Result<Self, Failure> {
        private_dir(dir).map_err(|error| Failure::because("--output-dir", &error))?;
        let there = FILES.into_iter().chain([ADDRESS_FILE]).find(|name| dir.join(name).exists());
        match there {
            Some(name) => Err(Failure::bad_input([format!("--output-dir: {} already has {name}", dir.display())])
                .hint("name an empty or a new directory: the key of another cluster would be lost")),
            None => Ok(Self::Directory(dir.to_owned())),
        }
    }

    /// Whether the directory holds a whole enrolment.
    pub(super) fn is_complete(dir: &Path) -> bool {
        FILES.into_iter().all(|name| dir.join(name).is_file())
    }

    pub(super) fn secret(namespace: &str) -> Self {
        Self::Secret { namespace: namespace.to_owned() }
    }

    pub(super) fn write(
        &self,
        name: &ClusterName,
        enrolment: &Enrolment,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Directory(dir) => write_files(dir, name, enrolment, printer),
            Self::Secret { namespace } => {
                let yaml = secret(namespace, name, enrolment).to_yaml();
                printer.text(&yaml.map_err(|error| Failure::because("cannot write the Secret", &error))?)
            }
        }
    }
}

fn write_files(
    dir: &Path,
    name: &ClusterName,
    enrolment: &Enrolment,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    for (file, content) in files(enrolment) {
        write(&dir.join(file), content, name)?;
    }
    let address = &enrolment.management_cluster_addr;
    write(&dir.join(ADDRESS_FILE), address, name)?;
    printer.line(&format!("{} written to {}", FILES.join(", "), dir.display()))?;
    printer.note(&format!(
        "start the agent: moorline-agent --cert-dir {} --management-cluster-addr {address}",
        dir.display()
    ));
    Ok(())
}

fn write(path: &Path, content: &str, name: &ClusterName) -> Result<(), Failure> {
    create_private(path, content.as_bytes()).map_err(|error| {
        Failure::because("the enrolment is lost, since its key is handed out once", &error)
            .hint(format!("moorline cluster delete {name}, then add it again"))
    })
}

fn secret(namespace: &str, name: &ClusterName, enrolment: &Enrolment) -> Node {
    let data = files(enrolment).map(|(file, content)| (file, Node::text(BASE64_STANDARD.encode(content))));
    Node::map([
        ("apiVersion", Node::text("v1")),
        ("kind", Node::text("Secret")),
        (
            "metadata",
            Node::map([
                ("name", Node::text(SECRET)),
                ("namespace", Node::text(namespace)),
                ("labels", Node::map([("app.kubernetes.io/name", Node::text("moorline-agent"))])),
                (
                    "annotations",
                    Node::map([
                        ("moorline.io/cluster", Node::text(name.as_str())),
                        ("moorline.io/management-cluster-addr", Node::text(&enrolment.management_cluster_addr)),
                    ]),
                ),
            ]),
        ),
        ("type", Node::text("Opaque")),
        ("data", Node::map(data)),
    ])
}

fn files(enrolment: &Enrolment) -> [(&'static str, &str); 3] {
    let [authorities, certificate, key] = FILES;
    [
        (authorities, &enrolment.management_cluster_crt),
        (certificate, &enrolment.managed_cluster_crt),
        (key, enrolment.managed_cluster_key.expose()),
    ]
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::json;

    use super::*;

    fn enrolment() -> Enrolment {
        let json = json!({"managementClusterAddr": "gw.example:9449", "management-cluster.crt": "CA\n",
                          "managed-cluster.crt": "CERT\n", "managed-cluster.key": "KEY\n"});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_secret_is_what_the_agent_mounts() {
        let yaml = secret("moorline", &"west".parse().unwrap(), &enrolment()).to_yaml().unwrap();
        assert_eq!(
            yaml,
            "\
apiVersion: v1
kind: Secret
metadata:
  name: moorline-agent-certs
  namespace: moorline
  labels:
    app.kubernetes.io/name: moorline-agent
  annotations:
    moorline.io/cluster: west
    moorline.io/management-cluster-addr: gw.example:9449
type: Opaque
data:
  management-cluster.crt: Q0EK
  managed-cluster.crt: Q0VSVAo=
  managed-cluster.key: S0VZCg==
"
        );
    }

    #[test]
    fn files_are_private_and_never_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("west");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let target = Target::directory(&dir).unwrap();
        target.write(&"west".parse().unwrap(), &enrolment(), &mut Printer::new(&mut out, &mut err)).unwrap();
        for (file, content) in [("managed-cluster.key", "KEY\n"), (ADDRESS_FILE, "gw.example:9449")] {
            assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), content);
            assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Target::directory(&dir).is_err());
        assert!(!String::from_utf8(out).unwrap().contains("KEY\n"));
    }
}
