//! The table with everything that its services need: certificates, keys and authorities, read from the files it names.
//!
//! Read by `reload` at the start and whenever one of the files has changed. Blocks on the disk.

use std::{fs, path::Path, sync::Arc};

use moorline_ca::Zeroizing;
use moorline_model::Fingerprint;
use moorline_mtls::{GatewayAcceptor, HttpsConnector, HttpsTrust, KeyPair, Roots, RootsError};
use tokio::sync::Semaphore;

use super::table::{self, Mode, Service, Table, UpstreamTls};
use crate::{
    config::{KeyFiles, Problem, Problems},
    reload::{self, Read},
};

/// All services, ready to be reached.
pub(crate) type Catalog = Table<Arc<Offered>>;

/// A service that can be reached.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) service: Service,
    /// Does the handshake with programs that come with TLS, where that is ours to do.
    pub(crate) acceptor: Option<GatewayAcceptor>,
    /// Does the handshake with the service, where it speaks TLS.
    pub(crate) connector: Option<HttpsConnector>,
    /// Turns to look its name up.
    pub(crate) lookups: Arc<Semaphore>,
}

/// Times that the name of one service is looked up at once: fewer than all services may have together, so that a resolver
/// that does not know one of them keeps none of the others waiting.
const LOOKUPS: usize = 2;

impl AsRef<Service> for Arc<Offered> {
    fn as_ref(&self) -> &Service {
        &self.service
    }
}

/// Reads the table and every file that it names. Blocks.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(crate) fn load(path: &Path) -> Result<Read<Catalog>, Problems> {
    let text = reload::read(path)?;
    let mut files = Files { problems: Problems::default(), contents: text.clone().into_bytes(), system: None };
    let services = table::parse(&text).map_err(|problems| {
        let file = path.display();
        let each = problems.into_iter();
        Problems(
            each.map(|found| Problem { at: format!("{file}: {}", found.at), what: found.what, remedy: found.remedy })
                .collect(),
        )
    })?;
    let offered = services.into_iter().map(|service| files.offer(service)).collect();
    files.problems.into_result()?;
    Ok(Read::new(Catalog::new(offered), fingerprint(&files.contents)))
}

/// The files of a table: all that was in them, and all that is wrong with them.
struct Files {
    problems: Problems,
    /// One after the other, so that a change of any of them is a change of the whole. Certificates, and keys' own hashes.
    contents: Vec<u8>,
    /// What the operating system believes, read once for all services.
    system: Option<HttpsTrust>,
}

/// What to do about a certificate of a service.
const REMEDY: &str = "give a PEM chain, leaf first, by certificateFile and its PEM key by privateKeyFile";

impl Files {
    fn offer(&mut self, service: Service) -> Arc<Offered> {
        let (mut acceptor, mut connector) = (None, None);
        if let Mode::Http { shown, upstream } = &service.mode {
            let keys = shown.as_ref().and_then(|files| self.keys(&service, "tls", files));
            if let Some(keys) = keys {
                self.told_of(&service, &keys);
                let built = GatewayAcceptor::new(keys, None);
                acceptor = self.keep(built.map_err(|error| problem(&service, "tls", error.to_string(), REMEDY)));
            }
            connector = upstream.as_ref().and_then(|tls| self.connector(&service, tls));
        }
        Arc::new(Offered { service, acceptor, connector, lookups: Arc::new(Semaphore::new(LOOKUPS)) })
    }

    fn connector(&mut self, service: &Service, tls: &UpstreamTls) -> Option<HttpsConnector> {
        const AUTHORITIES: &str = "name a file with the certificates of one or several authorities in PEM";
        let trust = match &tls.ca {
            Some(path) => {
                let pem = self.read(service, "upstreamTLS", path, AUTHORITIES)?;
                Roots::from_pem(&pem).map(HttpsTrust::from)
            }
            None => self.system(),
        };
        let trust = trust.map_err(|error| problem(service, "upstreamTLS.caFile", error.to_string(), AUTHORITIES));
        let keys = match &tls.keys {
            Some(files) => Some(self.keys(service, "upstreamTLS", files)?.into()),
            None => None,
        };
        Some(HttpsConnector::new(self.keep(trust)?, keys, &[b"http/1.1"]))
    }

    fn system(&mut self) -> Result<HttpsTrust, RootsError> {
        if let Some(known) = &self.system {
            return Ok(known.clone());
        }
        Ok(self.system.insert(HttpsTrust::system()?).clone())
    }

    fn keys(&mut self, service: &Service, field: &str, files: &KeyFiles) -> Option<KeyPair> {
        let certificate = self.read(service, field, &files.certificate, REMEDY)?;
        let key = self.read(service, field, &files.key, REMEDY)?;
        let pair = KeyPair::from_pem(&certificate, &key);
        self.keep(pair.map_err(|error| problem(service, field, error.to_string(), REMEDY)))
    }

    fn read(&mut self, service: &Service, field: &str, path: &Path, remedy: &str) -> Option<Zeroizing<Vec<u8>>> {
        let size = fs::metadata(path).map_err(|error| error.to_string());
        let read = match size {
            Ok(size) if size.len() > reload::MAX_FILE => Err("it is too large".to_owned()),
            Ok(_fits) => fs::read(path).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let read = read
            .map_err(|error| problem(service, field, format!("{} cannot be read: {error}", path.display()), remedy));
        let content = Zeroizing::new(self.keep(read)?);
        self.contents.extend(fingerprint(&content).as_bytes());
        Some(content)
    }

    fn keep<T>(&mut self, outcome: Result<T, Problem>) -> Option<T> {
        self.problems.keep(outcome)
    }

    /// What does not keep a service from being offered, and will keep programs from using it.
    fn told_of(&self, service: &Service, keys: &KeyPair) {
        if let Err(error) = keys.check_validity(crate::clock::now()) {
            tracing::warn!(service = %service.name, "the certificate of a management service is {error}");
        }
        for name in &service.server_names {
            if !covers(&keys.info().dns_names, name) {
                tracing::warn!(
                    service = %service.name,
                    server_name = name,
                    "the certificate of a management service is not for a name that programs call it"
                );
            }
        }
    }
}

/// Whether one of a certificate's names, of which the first label may be a wildcard, is for this one.
fn covers(names: &[String], wanted: &str) -> bool {
    let parent = wanted.split_once('.').map(|(_, parent)| parent);
    names.iter().any(|name| {
        name.eq_ignore_ascii_case(wanted)
            || name.strip_prefix("*.").is_some_and(|of| parent.is_some_and(|parent| of.eq_ignore_ascii_case(parent)))
    })
}

fn fingerprint(bytes: &[u8]) -> Fingerprint {
    moorline_pki::fingerprint(bytes)
}

fn problem(service: &Service, field: &str, what: impl Into<String>, remedy: &str) -> Problem {
    Problem {
        at: format!("service {:?}, {field}", service.name.as_str()),
        what: what.into(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use moorline_ca::Authority;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn write(dir: &tempfile::TempDir, name: &str, content: &str) -> String {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn table(dir: &tempfile::TempDir, tls: &str) -> std::path::PathBuf {
        let text = format!(
            "apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n- name: logs\n  clusters: ['*']\n  \
             upstream: localhost:1\n  mode: HTTP\n{tls}"
        );
        write(dir, "services.yaml", &text).into()
    }

    #[test]
    fn a_change_of_any_file_is_a_change_and_what_is_wrong_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::clock::now();
        let authority = Authority::generate("test", now, DAY).unwrap();
        let issue = || {
            let issued = authority.issue_user("jane", &[], now, DAY).unwrap();
            (write(&dir, "tls.crt", &issued.certificate_pem), write(&dir, "tls.key", &issued.key_pem))
        };
        let (certificate, key) = issue();
        let ca = write(&dir, "ca.crt", authority.certificate_pem());
        let tls = format!(
            "  tls: {{certificateFile: {certificate}, privateKeyFile: {key}}}\n  upstreamTLS: {{caFile: {ca}}}\n"
        );
        let path = table(&dir, &tls);
        let first = load(&path).unwrap();
        let offered = first.value.by_name(&"logs".parse().unwrap()).unwrap();
        assert!(offered.acceptor.is_some() && offered.connector.is_some());
        assert_eq!(load(&path).unwrap().hash(), first.hash());
        issue();
        assert_ne!(load(&path).unwrap().hash(), first.hash());

        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        write(&dir, "tls.key", "no key");
        let problems = load(&path).unwrap_err().to_string();
        assert!(problems.contains("service \"logs\", tls: private key: "), "{problems}");
        assert!(
            problems.contains("service \"logs\", upstreamTLS: ") && problems.contains("ca.crt cannot be read"),
            "{problems}"
        );
        let problems = load(&table(&dir, "  mode: HTTP\n")).unwrap_err().to_string();
        assert!(problems.contains("services.yaml: file: "), "{problems}");
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["*.example.com".to_owned(), "Exact.example.org".to_owned()];
        for (name, is) in [
            ("a.example.com", true),
            ("a.b.example.com", false),
            ("example.com", false),
            ("exact.example.org", true),
            ("x.example.org", false),
            ("com", false),
        ] {
            assert_eq!(covers(&names, name), is, "{name}");
        }
    }
}
