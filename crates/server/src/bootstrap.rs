//! The state directory: what a server keeps, and how it is filled on the first start.
//!
//! Called by the composition root, and by the `moorline` command line, which reads the admin token and the gateway's
//! authority from it. Nothing that exists is ever overwritten: a half of a pair is reported, not replaced, since agents
//! or users may hold certificates of the lost half. What a crash left half made is finished at the next start.

pub(crate) mod overlap;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_ca::Authority;
use moorline_model::Timestamp;
use moorline_process::private_file::{create_private, is_exposed, private_dir};
use rand::Rng as _;

use crate::config::{Problem, Problems};

/// How long the authorities live that are made here.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The group that the first policy gives all rights over clusters, and the first token is in.
pub const ADMIN_GROUP: &str = "moorline:admins";

/// The user of the first token.
pub const ADMIN_USER: &str = "admin";

/// Bytes of randomness in the first token.
const TOKEN_BYTES: usize = 32;

/// Which of the three authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Signs agents and the tunnel door.
    Tunnel,
    /// Signs the gateway door.
    Gateway,
    /// Signs users.
    User,
}

impl Which {
    const ALL: [Self; 3] = [Self::Tunnel, Self::Gateway, Self::User];

    fn stem(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel-ca",
            Self::Gateway => "gateway-ca",
            Self::User => "user-ca",
        }
    }

    fn common_name(self) -> &'static str {
        match self {
            Self::Tunnel => "moorline tunnel CA",
            Self::Gateway => "moorline gateway CA",
            Self::User => "moorline user CA",
        }
    }
}

/// The names of the files in a state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The state directory at `path`, whether it exists or not.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Static tokens of users.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.path.join("tokens.csv")
    }

    /// Who may do what.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.path.join("policy.yaml")
    }

    /// Where the audit trail is written, unless it is told otherwise.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.path.join("audit.log")
    }

    /// The cluster store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("clusters.redb")
    }

    /// The authority that signed the gateway's own certificate: what users' kubeconfigs trust.
    #[must_use]
    pub fn gateway_ca_certificate(&self) -> PathBuf {
        self.certificate(Which::Gateway)
    }

    /// The authority that users' client certificates chain to.
    #[must_use]
    pub fn user_ca_certificate(&self) -> PathBuf {
        self.certificate(Which::User)
    }

    /// The first token of the user [`ADMIN_USER`] in `tokens.csv`; none where somebody took it out, or keeps its hash
    /// only. Blocks on the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn admin_token(&self) -> io::Result<Option<String>> {
        let table = fs::read_to_string(self.tokens())?;
        let mut lines = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let line = lines.find_map(|line| {
            let (token, rest) = line.split_once(',')?;
            (rest.split(',').next() == Some(ADMIN_USER) && !token.starts_with("sha256:")).then(|| token.to_owned())
        });
        Ok(line)
    }

    /// Makes what is not there: on the first start everything, later nothing. Blocks on the disk.
    ///
    /// # Errors
    /// Every problem: files that cannot be written, halves of pairs, private files that others can read.
    pub(crate) fn fill(&self, api_group: &str, now: Timestamp) -> Result<(), Problems> {
        let mut problems = Problems::default();
        if problems.keep(private_dir(&self.path).map_err(|error| self.io(&self.path, &error))).is_none() {
            return problems.into_result();
        }
        for which in Which::ALL {
            if let Err(problem) = self.ensure_authority(which, now) {
                problems.0.push(problem);
            }
        }
        problems.keep(self.ensure(&self.tokens(), first_tokens));
        problems.keep(self.ensure(&self.policy(), || first_policy(api_group)));
        let private = Which::ALL.map(|which| self.key(which));
        for path in private.into_iter().chain([self.tokens()]) {
            if is_exposed(&path).unwrap_or(false) {
                problems.add(
                    path.display().to_string(),
                    "is secret and can be read by other users of this machine",
                    format!("run: chmod 600 {}", path.display()),
                );
            }
        }
        problems.into_result()
    }

    /// An authority of a filled directory. Blocks on its files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn authority(&self, which: Which) -> Result<Authority, Problem> {
        let (certificate, key) = (self.certificate(which), self.key(which));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| self.io(path, &error));
        let pem = moorline_ca::Zeroizing::new(read(&key)?);
        Authority::from_pem(&read(&certificate)?, &pem).map_err(|error| Problem {
            at: format!("{} and {}", certificate.display(), key.display()),
            what: error.to_string(),
            remedy: "restore both files from a backup".to_owned(),
        })
    }

    pub(crate) fn certificate(&self, which: Which) -> PathBuf {
        self.path.join(format!("{}.crt", which.stem()))
    }

    fn key(&self, which: Which) -> PathBuf {
        self.path.join(format!("{}.key", which.stem()))
    }

    fn ensure_authority(&self, which: Which, now: Timestamp) -> Result<(), Problem> {
        let (certificate, key) = (self.certificate(which), self.key(which));
        let pending = self.path.join(format!("{}.key.new", which.stem()));
        let half = |there: &Path, missing: &Path| Problem {
            at: missing.display().to_string(),
            what: format!("is missing, but its other half {} is there", there.display()),
            remedy: "restore it from a backup; without one, move the other half away as well, and a new authority is \
                     made: whatever the old one signed is then refused"
                .to_owned(),
        };
        match (certificate.exists(), key.exists()) {
            (true, true) => return Ok(()),
            (true, false) if pending.exists() => return self.finish(which, &pending),
            (true, false) => return Err(half(&certificate, &key)),
            (false, true) => return Err(half(&key, &certificate)),
            (false, false) => {}
        }
        if pending.exists() {
            // Nobody ever saw its certificate, so it has signed nothing.
            fs::remove_file(&pending).map_err(|error| self.io(&pending, &error))?;
        }
        // Made for servers, the name is what Calico's agent takes for the one to verify.
        let server = (which == Which::Tunnel).then_some(crate::tunnel::SERVER_NAME);
        let authority = Authority::generate_for_server(which.common_name(), server, now, AUTHORITY_LIFE)
            .map_err(|error| Problem { at: which.stem().to_owned(), what: error.to_string(), remedy: String::new() })?;
        create_private(&pending, authority.key_pem().as_bytes()).map_err(|error| self.io(&pending, &error))?;
        create_private(&certificate, authority.certificate_pem().as_bytes())
            .map_err(|error| self.io(&certificate, &error))?;
        self.finish(which, &pending)
    }

    /// The last step of making an authority, also of one that a crash interrupted: a key gets its name when its
    /// certificate is on the disk, so that a key with that name which has no certificate was never left by us.
    fn finish(&self, which: Which, pending: &Path) -> Result<(), Problem> {
        let (certificate, key) = (self.certificate(which), self.key(which));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| self.io(path, &error));
        let pem = moorline_ca::Zeroizing::new(read(pending)?);
        Authority::from_pem(&read(&certificate)?, &pem).map_err(|error| Problem {
            at: format!("{} and {}", certificate.display(), pending.display()),
            what: error.to_string(),
            remedy: "restore the certificate's own key from a backup".to_owned(),
        })?;
        fs::rename(pending, &key).map_err(|error| self.io(&key, &error))?;
        tracing::info!(authority = which.stem(), directory = %self.path.display(), "made a certificate authority");
        Ok(())
    }

    fn ensure(&self, path: &Path, content: impl FnOnce() -> String) -> Result<(), Problem> {
        if path.exists() {
            return Ok(());
        }
        create_private(path, content().as_bytes()).map_err(|error| self.io(path, &error))?;
        tracing::info!(file = %path.display(), "made a first version");
        Ok(())
    }

    fn io(&self, path: &Path, error: &io::Error) -> Problem {
        Problem {
            at: path.display().to_string(),
            what: error.to_string(),
            remedy: format!("give this user the directory {}, or name another by --state-dir", self.path.display()),
        }
    }
}

fn first_tokens() -> String {
    let mut bytes = [0_u8; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "# Static tokens: token,user,uid,\"group1,group2\". A token may be written as sha256: and its SHA-256 in hex.\n\
         # Read again when it changes.\n\
         {token},{ADMIN_USER},{ADMIN_USER},\"{ADMIN_GROUP}\"\n"
    )
}

fn first_policy(api_group: &str) -> String {
    format!(
        "# Who may do what with which cluster, in the grammar of Kubernetes RBAC. Read again when it changes.\n\
         # `get` on a managedcluster's name is the right to send requests to that cluster: what they may do there is\n\
         # for that cluster's own RBAC to say.\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRole\n\
         metadata:\n  name: moorline-admin\n\
         rules:\n\
         - apiGroups: [\"{api_group}\"]\n  resources: [\"certificateauthorities\", \"managedclusters\", \"managedclusters/token\", \"users\"]\n  verbs: [\"*\"]\n\
         # Whoever makes a token for somebody must have the right to act as them (kubectl --as), group by group.\n\
         - apiGroups: [\"\"]\n  resources: [\"users\", \"groups\", \"serviceaccounts\"]\n  verbs: [\"impersonate\"]\n\
         - apiGroups: [\"authentication.k8s.io\"]\n  resources: [\"uids\"]\n  verbs: [\"impersonate\"]\n\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRoleBinding\n\
         metadata:\n  name: moorline-admins\n\
         subjects:\n\
         - apiGroup: rbac.authorization.k8s.io\n  kind: Group\n  name: \"{ADMIN_GROUP}\"\n\
         roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: moorline-admin\n"
    )
}

#[cfg(test)]
mod tests;
