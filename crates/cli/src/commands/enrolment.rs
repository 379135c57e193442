//! What an agent needs to connect, handed on as it was wanted: a manifest to be applied, or files in a directory.

use std::path::{Path, PathBuf};

use moorline_api::{CreatedJoinToken, Enrolment};
use moorline_manifest::agent::{Acting, Address, Certificates, Credential, FILES, Install, Manifest, Written};
use moorline_model::ClusterName;
use moorline_process::private_file::{create_private, private_dir};

use crate::{
    args::{Form, GuardianArgs, ManifestArgs},
    failure::Failure,
    printer::Printer,
};

/// The address that the agent dials, beside its certificate.
pub(super) const ADDRESS_FILE: &str = "management-cluster-addr";

/// The port of a tunnel that names none.
const TUNNEL_PORT: u16 = 9449;

/// Where an enrolment goes, and in which form.
pub(super) enum Target {
    Files(PathBuf),
    Kustomization(Box<Install>, PathBuf),
    Stream(Box<Install>),
    Values(Box<Install>),
    Secret(Box<Install>),
}

impl Target {
    /// As it was typed. Nothing is made yet.
    pub(super) fn resolve(args: ManifestArgs) -> Result<Self, Failure> {
        let ManifestArgs { output, output_dir, install, acting, guardian } = args;
        let form = form(output, output_dir.as_deref());
        if guardian != GuardianArgs::default() {
            let what = "--operator-namespace, --key: are for clusters whose agent is Guardian; leave them out";
            return Err(Failure::bad_input([what.to_owned()]));
        }
        let narrowing =
            acting.narrowing().map_err(|error| Failure::bad_input(error.problems().iter().map(ToString::to_string)));
        let acting = narrowing.map(|narrowing| Acting { arguments: acting.arguments(), narrowing });
        let install = acting.and_then(|acting| {
            let resolved = Written::from(install).resolve(env!("CARGO_PKG_VERSION"), acting);
            resolved.map(Box::new).map_err(|problems| Failure::bad_input(problems.iter().map(ToString::to_string)))
        });
        let (install, ()) = Failure::together(install, place(form, output_dir.as_deref()))?;
        let dir = output_dir.unwrap_or_default();
        Ok(match form {
            Form::Files => Self::Files(dir),
            Form::Kustomize => Self::Kustomization(install, dir),
            Form::Yaml => Self::Stream(install),
            Form::Helm => Self::Values(install),
            Form::Secret => Self::Secret(install),
        })
    }

    /// The same for a manifest that holds a join token: there is no certificate to be written into files.
    pub(super) fn for_a_token(args: ManifestArgs) -> Result<Self, Failure> {
        let target = Self::resolve(args)?;
        if matches!(target, Self::Files(_)) {
            let what = "--output: with --join there is no certificate yet; choose yaml, kustomize, helm or secret";
            return Err(Failure::bad_input([what.to_owned()]));
        }
        Ok(target)
    }

    /// Files in a directory that holds no enrolment yet; it is made if need be.
    pub(super) fn directory(dir: &Path) -> Result<Self, Failure> {
        let target = Self::Files(dir.to_owned());
        target.prepare()?;
        Ok(target)
    }

    /// Makes the directory, if it goes into one, and makes sure that nothing would be overwritten.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let (dir, names) = match self {
            Self::Files(dir) => (dir, &[FILES[0], FILES[1], FILES[2], ADDRESS_FILE][..]),
            Self::Kustomization(_, dir) => (dir, &["kustomization.yaml", "secret.yaml"][..]),
            Self::Stream(_) | Self::Values(_) | Self::Secret(_) => return Ok(()),
        };
        make(dir, names)
    }

    /// Whether the directory holds a whole enrolment.
    pub(super) fn is_complete(dir: &Path) -> bool {
        FILES.into_iter().all(|name| dir.join(name).is_file())
    }

    pub(super) fn write(
        &self,
        name: &ClusterName,
        enrolment: &Enrolment,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        if let Self::Files(dir) = self {
            return write_files(dir, name, enrolment, printer);
        }
        let credential = Credential::Certificates(certificates(enrolment));
        self.render(name, (&enrolment.management_cluster_addr, credential), printer)
    }

    /// The same with a join token in the place of certificate and key.
    pub(super) fn write_token(
        &self,
        name: &ClusterName,
        created: &CreatedJoinToken,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let credential = Credential::JoinToken(created.token.expose());
        self.render(name, (&created.management_cluster_addr, credential), printer)?;
        printer.note(&format!("its join token works once, until {}", created.join_token.spec.expires));
        Ok(())
    }

    fn render(
        &self,
        name: &ClusterName,
        (dialled, credential): (&str, Credential<'_>),
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let address = address(dialled)?;
        let manifest = |install| Manifest { install, cluster: name, address: &address, credential };
        let unwritable = |error| Failure::because("cannot write the manifest", &error);
        match self {
            // Files are of certificates, and written before.
            Self::Files(_) => Ok(()),
            Self::Kustomization(install, dir) => {
                let files = manifest(install).kustomization().map_err(unwritable)?;
                for (file, content) in &files {
                    write(&dir.join(file), content, name)?;
                }
                remarks(install, printer);
                printer.line(&format!("kustomization written to {}", dir.display()))?;
                printer.note(&format!("apply it: kubectl apply -k {}", dir.display()));
                Ok(())
            }
            Self::Stream(install) => {
                remarks(install, printer);
                printer.text(&manifest(install).stream().map_err(unwritable)?)
            }
            Self::Values(install) => {
                remarks(install, printer);
                printer.text(&manifest(install).values().map_err(unwritable)?)
            }
            Self::Secret(install) => printer.text(&manifest(install).secret().to_yaml().map_err(unwritable)?),
        }
    }
}

/// The form that is wanted.
pub(super) fn form(typed: Option<Form>, dir: Option<&Path>) -> Form {
    typed.unwrap_or(if dir.is_some() { Form::Files } else { Form::Yaml })
}

/// Whether a form goes where it is to go.
pub(super) fn place(form: Form, dir: Option<&Path>) -> Result<(), Failure> {
    match (form, dir) {
        (Form::Files | Form::Kustomize, None) => {
            Err(Failure::bad_input(["--output: this form is a directory; name it by --output-dir".to_owned()]))
        }
        (Form::Yaml | Form::Helm | Form::Secret, Some(_)) => {
            let what = "--output-dir: this form is one stream; leave it out, or choose files or kustomize";
            Err(Failure::bad_input([what.to_owned()]))
        }
        _fitting => Ok(()),
    }
}

/// Makes a private directory that has none of these.
pub(super) fn make(dir: &Path, names: &[&str]) -> Result<(), Failure> {
    private_dir(dir).map_err(|error| Failure::because("--output-dir", &error))?;
    match names.iter().find(|name| dir.join(name).exists()) {
        Some(name) => Err(Failure::bad_input([format!("--output-dir: {} already has {name}", dir.display())])
            .hint("name an empty or a new directory: the key of another cluster would be lost")),
        None => Ok(()),
    }
}

/// What agents are to dial, as the server says.
pub(super) fn address(dialled: &str) -> Result<Address, Failure> {
    Address::parse(dialled, TUNNEL_PORT)
        .map_err(|error| Failure::because(&format!("the server says that agents are to dial {dialled:?}"), &error))
}

/// What the roles cannot say, to whoever narrowed them.
fn remarks(install: &Install, printer: &mut Printer<'_>) {
    if install.is_narrowed() {
        for remark in install.remarks() {
            printer.note(&format!("note: {remark}"));
        }
    }
}

fn write_files(
    dir: &Path,
    name: &ClusterName,
    enrolment: &Enrolment,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let Certificates { authorities, certificate, key } = certificates(enrolment);
    for (file, content) in FILES.into_iter().zip([authorities, certificate, key]) {
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

pub(super) fn write(path: &Path, content: &str, name: &ClusterName) -> Result<(), Failure> {
    create_private(path, content.as_bytes()).map_err(|error| {
        Failure::because("the enrolment is lost, since its key is handed out once", &error)
            .hint(format!("moorline cluster delete {name}, then add it again"))
    })
}

pub(super) fn certificates(enrolment: &Enrolment) -> Certificates<'_> {
    Certificates {
        authorities: &enrolment.management_cluster_crt,
        certificate: &enrolment.managed_cluster_crt,
        key: enrolment.managed_cluster_key.expose(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use clap::Parser as _;
    use moorline_manifest::Node;
    use serde_json::json;

    use super::*;
    use crate::args::{Cli, ClusterCommand, Command};

    fn enrolment() -> Enrolment {
        let json = json!({"managementClusterAddr": "gw.example:9449", "management-cluster.crt": "CA\n",
                          "managed-cluster.crt": "CERT\n", "managed-cluster.key": "KEY\n"});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_agent_takes_the_arguments_of_its_deployment() {
        let typed = [
            "moorline",
            "cluster",
            "add",
            "west",
            "--user-prefix=hub:",
            "--deny-user=x",
            "--replicas=3",
            "--service=store=:9200",
            "--http-service=logs=:8080",
        ];
        let Command::Cluster(ClusterCommand::Add(add)) = Cli::parse_from(typed).command else {
            panic!("what was typed")
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let target = Target::resolve(add.manifest).unwrap();
        target.write(&"west".parse().unwrap(), &enrolment(), &mut Printer::new(&mut out, &mut err)).unwrap();
        let stream = String::from_utf8(out).unwrap();
        let deployment = Node::parse(stream.rsplit("---\n").next().unwrap()).unwrap();
        let spec =
            ["spec", "template", "spec", "containers"].iter().fold(&deployment, |node, key| node.at(key).unwrap());
        let Node::List(containers) = spec else { panic!("containers") };
        let Some(Node::List(arguments)) = containers[0].at("args") else { panic!("arguments") };
        let arguments = arguments.iter().map(|argument| argument.as_text().unwrap());
        let read = Cli::parse_from(["moorline", "agent"].into_iter().chain(arguments));
        let Command::Agent(agent) = read.command else { panic!("{:?}", read.command) };
        assert_eq!(agent.config.management_cluster_addr.as_deref(), Some("gw.example:9449"));
        assert_eq!(
            (agent.config.services, agent.config.http_services),
            (vec!["store=:9200".to_owned()], vec!["logs=:8080".to_owned()])
        );
        assert_eq!(
            (agent.config.acting.user_prefix.as_deref(), agent.config.acting.deny_users.len()),
            (Some("hub:"), 1)
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
