//! The managed side: everything that one `kubectl apply` installs, so that the agent runs and is admitted under the
//! restricted pod security level.
//!
//! As elsewhere in two steps: [`Written`] is what somebody typed, [`Install`] what it means; [`Manifest`] adds what is one
//! cluster's own. All forms of output (`form`) are made from the same [`Install`].

mod connection;
mod network;
mod objects;
mod parse;
mod services;
mod workload;

use std::collections::BTreeMap;

use moorline_impersonation::Narrowing;
use moorline_model::ClusterName;

pub use self::{
    connection::definition as connection_definition,
    parse::{Address, Cidr, InvalidAddress, Toleration, Unfit},
};
use crate::{problem::Problem, rbac, yaml::Node};
use services::Offered;

/// The namespace, unless another is named.
pub const NAMESPACE: &str = "moorline";
/// The Secret with the agent's certificate, key and authorities.
pub const CERTIFICATES: &str = "moorline-agent-certs";
/// The keys of that Secret, which are the files of a certificate directory: authorities, certificate, key.
pub const FILES: [&str; 3] = ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"];
/// The key of that Secret with the token by which the agent joins, where it does.
pub const JOIN_TOKEN: &str = "join-token";
/// Where the agent's probes and metrics are.
pub const ADMIN_PORT: u16 = 9092;

/// Sessions that a server takes of one cluster, unless it is told otherwise (`--max-sessions-per-cluster`).
const MOST_SESSIONS: u8 = 4;

/// What somebody wants of the installation, as typed; what is left out has a default.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// `--namespace`.
    pub namespace: Option<String>,
    /// `--image`.
    pub image: Option<String>,
    /// `--image-pull-secret`.
    pub image_pull_secrets: Vec<String>,
    /// `--replicas`.
    pub replicas: Option<u8>,
    /// `--sessions`, of each replica.
    pub sessions: Option<u8>,
    /// `--proxy`: `http[s]://HOST:PORT`.
    pub proxy: Option<String>,
    /// `--proxy-secret`: the Secret whose key `HTTPS_PROXY` has the proxy's URL with its password.
    pub proxy_secret: Option<String>,
    /// `--kube-apiserver-cidr`.
    pub apiserver_cidrs: Vec<String>,
    /// `--kube-apiserver-port`.
    pub apiserver_ports: Vec<u16>,
    /// `--service`: `NAME=:PORT`, a service of the management cluster that programs of this one reach there.
    pub services: Vec<String>,
    /// `--http-service`: the same for one that speaks HTTP.
    pub http_services: Vec<String>,
    /// `--node-selector`: `KEY=VALUE`.
    pub node_selector: Vec<String>,
    /// `--toleration`: `KEY[=VALUE][:EFFECT]`.
    pub tolerations: Vec<String>,
    /// `--cpu-request`.
    pub cpu_request: Option<String>,
    /// `--memory-request`.
    pub memory_request: Option<String>,
    /// `--memory-limit`.
    pub memory_limit: Option<String>,
}

/// Whom the server may act as: as arguments of the agent, and as what its roles are made from. The two must say the same.
#[derive(Clone, Debug)]
pub struct Acting {
    /// The agent's arguments.
    pub arguments: Vec<String>,
    /// What they mean.
    pub narrowing: Narrowing,
}

/// What is wanted of the installation, as meant.
#[derive(Clone, Debug)]
pub struct Install {
    namespace: String,
    image: String,
    image_pull_secrets: Vec<String>,
    replicas: u8,
    sessions: u8,
    proxy: Option<Proxy>,
    apiserver_cidrs: Vec<Cidr>,
    apiserver_ports: Vec<u16>,
    services: Vec<Offered>,
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    cpu_request: String,
    memory_request: String,
    memory_limit: String,
    acting: Acting,
}

#[derive(Clone, Debug)]
struct Proxy {
    url: String,
    address: Address,
    secret: Option<String>,
}

/// What an agent shows and trusts, in PEM, as the server gave it once.
#[derive(Clone, Copy)]
pub struct Certificates<'a> {
    /// The tunnel's authorities.
    pub authorities: &'a str,
    /// The agent's certificate.
    pub certificate: &'a str,
    /// Its key.
    pub key: &'a str,
}

/// By what the agent is let in: handed out with the manifest, or asked for by the agent with a token that works once.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A certificate and its key.
    Certificates(Certificates<'a>),
    /// The text of a join token.
    JoinToken(&'a str),
}

/// The installation of one cluster. No `Debug`: it holds a secret.
#[derive(Clone, Copy)]
pub struct Manifest<'a> {
    /// What is wanted of it.
    pub install: &'a Install,
    /// Which cluster it is.
    pub cluster: &'a ClusterName,
    /// What its agent dials.
    pub address: &'a Address,
    /// By what its agent is let in.
    pub credential: Credential<'a>,
}

/// An object of a manifest.
pub struct Document {
    /// The file in which it is kept where there are several.
    pub file: &'static str,
    /// The object.
    pub object: Node,
}

impl Written {
    /// What it means.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn resolve(&self, version: &str, acting: Acting) -> Result<Install, Vec<Problem>> {
        let mut problems = Vec::new();
        let namespace = self.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
        Problem::unless_a_name("--namespace", &namespace, &mut problems);
        let image = self.image.clone().unwrap_or_else(|| format!("moorline/moorline-agent:{version}"));
        if image.is_empty() || image.contains(char::is_whitespace) {
            let what = format!("{image:?} is no image");
            problems.push(Problem::new("--image", what, "write REPOSITORY:TAG or REPOSITORY@DIGEST"));
        }
        for secret in &self.image_pull_secrets {
            Problem::unless_a_name("--image-pull-secret", secret, &mut problems);
        }
        let (replicas, sessions) = self.sessions(&mut problems);
        if self.apiserver_ports.contains(&0) {
            problems.push(Problem::new("--kube-apiserver-port", "0 is no port", "choose 1 to 65535"));
        }
        let mut or = |field, given: &Option<String>, default: &str| {
            let quantity = given.clone().unwrap_or_else(|| default.to_owned());
            parse::quantity(field, &quantity, &mut problems);
            quantity
        };
        let cpu_request = or("--cpu-request", &self.cpu_request, "50m");
        let memory_request = or("--memory-request", &self.memory_request, "64Mi");
        let memory_limit = or("--memory-limit", &self.memory_limit, "256Mi");
        let install = Install {
            namespace,
            image,
            image_pull_secrets: self.image_pull_secrets.clone(),
            replicas,
            sessions,
            proxy: self.proxy(&mut problems),
            apiserver_cidrs: parse::each("--kube-apiserver-cidr", &self.apiserver_cidrs, &mut problems),
            apiserver_ports: if self.apiserver_ports.is_empty() {
                vec![443, 6443]
            } else {
                self.apiserver_ports.clone()
            },
            services: services::resolve(&self.services, &self.http_services, &mut problems),
            node_selector: parse::pairs("--node-selector", &self.node_selector, &mut problems),
            tolerations: parse::each("--toleration", &self.tolerations, &mut problems),
            cpu_request,
            memory_request,
            memory_limit,
            acting,
        };
        if problems.is_empty() { Ok(install) } else { Err(problems) }
    }

    fn sessions(&self, problems: &mut Vec<Problem>) -> (u8, u8) {
        let (replicas, sessions) = (self.replicas.unwrap_or(1), self.sessions.unwrap_or(1));
        // While a Deployment rolls there is one replica more, so that none is missing.
        let most = replicas.saturating_add(1).saturating_mul(sessions);
        if replicas == 0 || sessions == 0 || most > MOST_SESSIONS {
            let what = format!("{replicas} replicas with {sessions} sessions each cannot be rolled");
            let remedy = format!(
                "a server takes {MOST_SESSIONS} sessions of a cluster, those of the replica that replaces another \
                 included: choose up to 3 replicas with one session, or one replica with two"
            );
            problems.push(Problem::new("--replicas", what, remedy));
        }
        (replicas, sessions)
    }

    fn proxy(&self, problems: &mut Vec<Problem>) -> Option<Proxy> {
        const FIELD: &str = "--proxy";
        if let Some(secret) = &self.proxy_secret {
            Problem::unless_a_name("--proxy-secret", secret, problems);
            if self.proxy.is_none() {
                let remedy = "give --proxy too, without the password: the NetworkPolicy needs the address";
                problems.push(Problem::new("--proxy-secret", "says nothing of where the proxy is", remedy));
            }
        }
        let url = self.proxy.as_deref()?;
        let (rest, port) = if let Some(rest) = url.strip_prefix("http://") {
            (rest, 80)
        } else if let Some(rest) = url.strip_prefix("https://") {
            (rest, 443)
        } else {
            problems.push(Problem::new(FIELD, "is neither http:// nor https://", "write http://HOST:PORT"));
            return None;
        };
        if rest.contains('@') {
            let remedy =
                "leave it out here, and name by --proxy-secret a Secret whose key HTTPS_PROXY has the whole URL";
            problems.push(Problem::new(FIELD, "holds a password, which anybody may read in a Deployment", remedy));
            return None;
        }
        match Address::parse(rest.trim_end_matches('/'), port) {
            Ok(address) => Some(Proxy { url: url.to_owned(), address, secret: self.proxy_secret.clone() }),
            Err(error) => {
                problems.push(Problem::new(FIELD, format!("{url:?}: {error}"), "write http://HOST:PORT"));
                None
            }
        }
    }
}

impl Install {
    /// The namespace of everything that lives in one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether anything was said of whom the server may act as.
    #[must_use]
    pub const fn is_narrowed(&self) -> bool {
        !self.acting.arguments.is_empty()
    }

    /// What the agent's roles cannot say, and the agent alone holds.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        objects::impersonation(self).1
    }

    fn wanted(&self) -> rbac::Wanted {
        let name = crate::object::AGENT.to_owned();
        rbac::Wanted { service_account: (self.namespace.clone(), name.clone()), name, constrained: None }
    }
}

impl Install {
    /// Every object but the Secret, each after those that it needs.
    pub(crate) fn objects(&self, address: &Address, joins: bool) -> Vec<Document> {
        let of = |file: &'static str| move |object: Node| Document { file, object };
        let mut all = vec![of("namespace.yaml")(objects::namespace(self))];
        all.push(of("crd.yaml")(connection::definition()));
        let rights = std::iter::once(objects::account(self)).chain(objects::impersonation(self).0);
        all.extend(rights.chain(objects::rights(self)).map(of("rbac.yaml")));
        all.push(of("network-policy.yaml")(network::policy(self, address)));
        all.extend(services::service(self).map(of("service.yaml")));
        all.extend(workload::budget(self).map(of("deployment.yaml")));
        all.push(of("deployment.yaml")(workload::deployment(self, address, joins)));
        all
    }
}

impl Manifest<'_> {
    /// Every object, each after those that it needs.
    #[must_use]
    pub fn documents(&self) -> Vec<Document> {
        let mut all = self.install.objects(self.address, self.joins());
        let before = all.iter().position(|document| document.file == "network-policy.yaml").unwrap_or(all.len());
        all.insert(before, Document { file: "secret.yaml", object: self.secret() });
        all
    }

    pub(crate) fn joins(&self) -> bool {
        matches!(self.credential, Credential::JoinToken(_))
    }

    /// The Secret alone.
    #[must_use]
    pub fn secret(&self) -> Node {
        objects::secret(self)
    }
}
