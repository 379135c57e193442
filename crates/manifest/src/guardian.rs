//! The managed side of a cluster whose agent is Calico's Guardian: what Calico's operator needs to start it, and the right
//! to act as others, which the Guardian of open-source Calico does not have.
//!
//! As in [`crate::agent`], [`Written`] is what somebody typed, [`Install`] what it means, and [`Manifest`] adds what is one
//! cluster's own. Namespace, kinds and Deployment are the operator's: it must be installed before this is applied. Facts
//! from the operator's public source and documentation.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use moorline_impersonation::Narrowing;
use moorline_model::ClusterName;

use crate::{
    agent::{Address, Certificates, FILES},
    object::map,
    problem::Problem,
    rbac,
    yaml::{InvalidYaml, Node},
};

/// The namespace of Calico's operator, unless another is named.
pub const OPERATOR_NAMESPACE: &str = "tigera-operator";
/// The Secret that the operator reads there and copies to its Guardian.
pub const SECRET: &str = "tigera-managed-cluster-connection";

/// As whom the server asks whether requests get through: the user of Kubernetes who has no rights. Where users are named,
/// this one is, too, or the cluster would never count as connected.
const PROBED_AS: &str = "system:anonymous";

/// Where the operator runs Guardian, and the account that it runs as.
const ACCOUNT: (&str, &str) = ("calico-system", "guardian");
/// The role that lets it act as others.
const ROLE: &str = "moorline-guardian";

/// What somebody wants of it, as typed.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// `--operator-namespace`.
    pub operator_namespace: Option<String>,
    /// `--allow-user`: the only users that it may act as, by their names.
    pub allow_users: Vec<String>,
    /// `--allow-group`: the only groups that these may be in, by their names.
    pub allow_groups: Vec<String>,
}

/// What is wanted of it, as meant.
#[derive(Clone, Debug)]
pub struct Install {
    namespace: String,
    narrowing: Narrowing,
}

/// What Guardian shows and trusts, in PEM.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// All of it.
    Whole(Certificates<'a>),
    /// The tunnel's authorities alone: certificate and key are with the owner, who puts them there.
    Authorities(&'a str),
}

/// What one cluster is to apply. No `Debug`: it may hold a key.
#[derive(Clone, Copy)]
pub struct Manifest<'a> {
    /// What is wanted of it.
    pub install: &'a Install,
    /// Which cluster it is.
    pub cluster: &'a ClusterName,
    /// What Guardian dials.
    pub address: &'a Address,
    /// What it shows and trusts.
    pub credential: Credential<'a>,
}

impl Written {
    /// What it means.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn resolve(self) -> Result<Install, Vec<Problem>> {
        let Self { operator_namespace, allow_users, allow_groups } = self;
        let mut problems = Vec::new();
        let namespace = operator_namespace.unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
        Problem::unless_a_name("--operator-namespace", &namespace, &mut problems);
        for (field, names) in [("--allow-user", &allow_users), ("--allow-group", &allow_groups)] {
            for name in names.iter().filter(|name| name.is_empty() || name.ends_with('*')) {
                let what = format!("{name:?} is no name");
                let remedy = "write whole names: Guardian is held by Kubernetes' roles alone, which know no beginnings";
                problems.push(Problem::new(field, what, remedy));
            }
        }
        let narrowing = Narrowing { allow_users, allow_groups, ..Narrowing::none() };
        if problems.is_empty() { Ok(Install { namespace, narrowing }) } else { Err(problems) }
    }
}

impl Install {
    /// The namespace of Calico's operator.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What whoever applies it should know of whom Guardian may act as.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let Narrowing { allow_users, allow_groups, .. } = &self.narrowing;
        let unnamed = [("user", allow_users, "--allow-user"), ("group", allow_groups, "--allow-group")];
        let unnamed = unnamed.into_iter().filter(|(_, names, _)| names.is_empty());
        let remark = |(one, _, flag): (&str, _, &str)| {
            format!(
                "Kubernetes' roles have no denials, so Guardian's account may act as any {one} there, and Moorline's server \
                 alone refuses parts of Kubernetes, such as system:masters; {flag} names who may be"
            )
        };
        unnamed.map(remark).collect()
    }

    /// The command that puts certificate and key of their owner beside the authorities. A patch, so that to apply the
    /// manifest again takes neither away; the key is on no command line.
    #[must_use]
    pub fn completion(&self) -> String {
        let ([_, certificate, key], namespace) = (FILES, &self.namespace);
        format!(
            "kubectl create secret generic {SECRET} --from-file={certificate}=CERTIFICATE --from-file={key}=KEY \
             --dry-run=client --output=json | kubectl patch secret {SECRET} --namespace={namespace} --type=merge \
             --patch-file=/dev/stdin"
        )
    }
}

impl Manifest<'_> {
    /// Everything in one stream, for `kubectl apply --filename -`.
    ///
    /// # Errors
    /// A value cannot be written as YAML.
    pub fn stream(&self) -> Result<String, InvalidYaml> {
        let mut narrowing = self.install.narrowing.clone();
        if !narrowing.allow_users.is_empty() {
            narrowing.allow_users.push(PROBED_AS.to_owned());
        }
        let mut objects = rbac::to_act(&narrowing, ROLE, ACCOUNT);
        objects.iter_mut().for_each(relabel);
        objects.extend([self.secret(), self.connection()]);
        let documents: Vec<String> = objects.iter().map(Node::to_yaml).collect::<Result<_, _>>()?;
        Ok(documents.join("---\n"))
    }

    /// The Secret alone.
    #[must_use]
    pub fn secret(&self) -> Node {
        let contents = match self.credential {
            Credential::Whole(Certificates { authorities, certificate, key }) => {
                FILES.into_iter().zip([authorities, certificate, key]).collect()
            }
            Credential::Authorities(authorities) => vec![(FILES[0], authorities)],
        };
        let data = contents.into_iter().map(|(file, text)| (file.to_owned(), BASE64_STANDARD.encode(text).into()));
        map! {
            "apiVersion" => "v1",
            "kind" => "Secret",
            "metadata" => map! {
                "name" => SECRET,
                "namespace" => self.install.namespace.as_str(),
                "labels" => labels(),
                "annotations" => map! {
                    "moorline.io/cluster" => self.cluster.as_str(),
                    "moorline.io/management-cluster-addr" => self.address.to_string(),
                },
            },
            "type" => "Opaque",
            "data" => Node::Map(data.collect()),
        }
    }

    /// Where Guardian dials, and that it believes the authorities of the Secret and no others.
    fn connection(&self) -> Node {
        map! {
            "apiVersion" => "operator.tigera.io/v1",
            "kind" => "ManagementClusterConnection",
            "metadata" => map! { "name" => "default", "labels" => labels() },
            "spec" => map! {
                "managementClusterAddr" => self.address.to_string(),
                "tls" => map! { "ca" => "Tigera" },
            },
        }
    }
}

fn labels() -> Node {
    map! { "app.kubernetes.io/name" => ROLE, "app.kubernetes.io/part-of" => "moorline" }
}

fn relabel(object: &mut Node) {
    if let Some(metadata) = object.entry("metadata") {
        metadata.set("labels", labels());
    }
}
