//! What a cluster needs whose agent is Calico's Guardian: a manifest for Calico's operator, or files for one that is started
//! by hand; and the certificates that their owners bring, whose keys are read here and never sent.

use std::path::{Path, PathBuf};

use moorline_api::{BroughtCluster, Enrolled};
use moorline_manifest::{
    agent::{Certificates, FILES},
    guardian::{Credential, Install, Manifest, Written},
};
use moorline_model::ClusterName;
use moorline_pki::{CertificateInfo, certificates_from_pem, private_key_from_pem};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use zeroize::Zeroizing;

use super::enrolment::{ADDRESS_FILE, address, certificates, form, make, place, write};
use crate::{
    args::{Form, GuardianArgs, ManifestArgs},
    failure::Failure,
    printer::Printer,
};

/// Where it goes, and in which form.
enum Place {
    Stream,
    Secret,
    Files(PathBuf),
}

/// What is to be handed on, and how. No `Debug`: it may hold a key.
pub(super) struct Target {
    place: Place,
    install: Install,
    key: Option<Zeroizing<String>>,
}

impl Target {
    /// As it was typed; `namespace` is that of Calico's operator as the cluster's record says it. Nothing is made yet.
    pub(super) fn resolve(args: ManifestArgs, namespace: Option<String>) -> Result<Self, Failure> {
        let ManifestArgs { output, output_dir, install, acting, guardian } = args;
        let GuardianArgs { operator_namespace, key } = guardian;
        let form = form(output, output_dir.as_deref());
        let mut problems = Vec::new();
        if install != Default::default() {
            let what = "is for Moorline's own agent: Calico's operator installs Guardian; leave all of it out";
            problems.push(format!("what is under \"Installation\": {what}"));
        }
        for argument in acting.arguments() {
            let flag = argument.split('=').next().unwrap_or_default();
            if !["--allow-user", "--allow-group"].contains(&flag) {
                let what = "Guardian changes and refuses nothing by itself, and Kubernetes' roles can only name who may \
                            be acted as; use --allow-user and --allow-group";
                problems.push(format!("{flag}: {what}"));
            }
        }
        let written = Written {
            operator_namespace: operator_namespace.or(namespace),
            allow_users: acting.allow_users,
            allow_groups: acting.allow_groups,
        };
        let resolved = written.resolve().map_err(|wrong| problems.extend(wrong.iter().map(ToString::to_string))).ok();
        let dir = output_dir.clone().unwrap_or_default();
        let to = match form {
            Form::Yaml => Place::Stream,
            Form::Secret => Place::Secret,
            Form::Files => Place::Files(dir),
            Form::Kustomize | Form::Helm => {
                problems.push("--output: for Guardian there are yaml, secret and files; choose one".to_owned());
                Place::Stream
            }
        };
        let checked = match resolved {
            Some(install) if problems.is_empty() => Ok(install),
            _wrong => Err(Failure::bad_input(problems)),
        };
        let key = key.map(|file| read("--key", &file)).transpose();
        let ((install, ()), key) =
            Failure::together(Failure::together(checked, place(form, output_dir.as_deref())), key)?;
        Ok(Self { place: to, install, key })
    }

    /// Makes the directory, if it goes into one, and makes sure that nothing would be overwritten.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        match &self.place {
            Place::Files(dir) => make(dir, &[FILES[0], FILES[1], FILES[2], ADDRESS_FILE]),
            Place::Stream | Place::Secret => Ok(()),
        }
    }

    /// Whether the key, if there is one, is that of the certificate, if one was brought.
    pub(super) fn fits(&self, certificate: Option<&str>) -> Result<(), Failure> {
        match (&self.key, certificate) {
            (None, _) => Ok(()),
            (Some(key), Some(certificate)) => belongs(certificate, key),
            (Some(_), None) => {
                let what = "--key: is for a certificate that was brought, and none was; leave it out";
                Err(Failure::bad_input([what.to_owned()]))
            }
        }
    }

    /// Hands it on.
    pub(super) fn write(
        &self,
        name: &ClusterName,
        enrolled: &Enrolled,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let (dialled, credential) = match enrolled {
            Enrolled::Issued(created) => {
                (&created.enrolment.management_cluster_addr, Credential::Whole(certificates(&created.enrolment)))
            }
            Enrolled::Brought(brought) => (&brought.management_cluster_addr, self.completed(brought)?),
        };
        let address = address(dialled)?;
        let manifest = Manifest { install: &self.install, cluster: name, address: &address, credential };
        let unwritable = |error| Failure::because("cannot write the manifest", &error);
        match &self.place {
            Place::Files(dir) => return self.files(dir, &manifest, printer),
            Place::Stream => {
                for remark in self.install.remarks() {
                    printer.note(&format!("note: {remark}"));
                }
                printer.text(&manifest.stream().map_err(unwritable)?)?;
            }
            Place::Secret => printer.text(&manifest.secret().to_yaml().map_err(unwritable)?)?,
        }
        if matches!(credential, Credential::Authorities(_)) {
            printer
                .note("the Secret lacks certificate and key, which you have; when it is applied, put them there by:");
            printer.note(&format!("  {}", self.install.completion()));
        }
        Ok(())
    }

    fn completed<'a>(&'a self, brought: &'a BroughtCluster) -> Result<Credential<'a>, Failure> {
        let authorities = brought.management_cluster_crt.as_str();
        let certificate = brought.cluster.spec.certificate.as_deref();
        self.fits(certificate)?;
        Ok(match (certificate, &self.key) {
            (Some(certificate), Some(key)) => Credential::Whole(Certificates { authorities, certificate, key }),
            _incomplete => Credential::Authorities(authorities),
        })
    }

    fn files(&self, dir: &Path, manifest: &Manifest<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let contents = match manifest.credential {
            Credential::Whole(Certificates { authorities, certificate, key }) => vec![authorities, certificate, key],
            Credential::Authorities(authorities) => vec![authorities],
        };
        let names = FILES.into_iter().zip(&contents).map(|(file, content)| {
            write(&dir.join(file), content, manifest.cluster)?;
            Ok(file)
        });
        let names = names.collect::<Result<Vec<_>, Failure>>()?;
        let address = manifest.address.to_string();
        write(&dir.join(ADDRESS_FILE), &address, manifest.cluster)?;
        printer.line(&format!("{} written to {}", names.join(", "), dir.display()))?;
        if names.len() < FILES.len() {
            printer.note(&format!("put your certificate and its key beside it: {}, {}", FILES[1], FILES[2]));
        }
        printer.note(&format!(
            "start Guardian: GUARDIAN_CERT_PATH={} GUARDIAN_VOLTRON_URL={address} guardian",
            dir.display()
        ));
        Ok(())
    }
}

/// The certificate that somebody brings, from their file; never a key that is in it.
pub(super) fn brought(file: &Path) -> Result<String, Failure> {
    const FIELD: &str = "--certificate";
    let text = read(FIELD, file)?;
    let wrong = |what: &str| Failure::bad_input([format!("{FIELD}: {}: {what}", file.display())]);
    if text.contains("PRIVATE KEY") {
        return Err(wrong(
            "holds a private key, which is never sent; put it into a file of its own, and name it by --key",
        ));
    }
    match certificates_from_pem(text.as_bytes()) {
        Ok(certificates) if certificates.is_empty() => Err(wrong("holds no certificate in PEM")),
        Ok(_some) => Ok(text.to_string()),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

fn read(field: &str, file: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    text.map_err(|error| Failure::bad_input([format!("{field}: {}: {error}", file.display())]))
}

/// Whether a key is the one of a certificate.
fn belongs(certificate: &str, key: &str) -> Result<(), Failure> {
    let wrong = |what: String| Failure::bad_input([format!("--key: {what}")]);
    let chain = certificates_from_pem(certificate.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| wrong("there is no certificate that it could be of".to_owned()))?;
    let leaf = CertificateInfo::parse(leaf).map_err(|error| wrong(error.to_string()))?;
    let key = private_key_from_pem(key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let key = any_supported_type(&key).map_err(|error| wrong(format!("cannot be used: {error}")))?;
    match key.public_key() {
        Some(public) if public.as_ref() != leaf.public_key => {
            Err(wrong("is not the key of the certificate; Guardian would not start with the two".to_owned()))
        }
        _fits => Ok(()),
    }
}
