//! Finds the real programs that the tests run, and says what to do when one is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The script that installs the programs and knows where they are, from the repository's root.
const INSTALLER: &str = ".ci/kubernetes-tools";

/// The variable that turns a missing program from a skipped test into a failed one.
const REQUIRED: &str = "MOORLINE_REQUIRE_KUBERNETES";

/// Where the real programs are.
#[derive(Debug, Clone)]
pub struct Tools {
    pub(super) etcd: PathBuf,
    pub(super) kube_apiserver: PathBuf,
    pub(super) kubelet: PathBuf,
    pub(super) dex: PathBuf,
    helm: PathBuf,
    kube_score: PathBuf,
    guardian: PathBuf,
    kubectl_old: PathBuf,
    kubectl_new: PathBuf,
    kubectl_machine: Option<PathBuf>,
}

/// Programs that were not found.
#[derive(Debug)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; to install: {INSTALLER}", self.0)
    }
}

impl std::error::Error for Missing {}

/// A kubectl to test with: clients of different ages speak different protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kubectl {
    /// One that upgrades to SPDY only.
    Old,
    /// The newest known one, which upgrades to WebSocket.
    New,
    /// Whatever this machine has; not there on every machine.
    Machine,
}

impl fmt::Display for Kubectl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Machine => "machine",
        })
    }
}

impl Tools {
    /// Asks the install script where everything is.
    pub fn find() -> Result<Self, Missing> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let output = Command::new(root.join(INSTALLER))
            .arg("--where")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Missing(format!("cannot run the install script: {error}")))?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Missing(format!("the install script failed: {problem}")));
        }
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut found: BTreeMap<&str, PathBuf> = listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(_, path)| !path.is_empty())
            .map(|(name, path)| (name, PathBuf::from(path)))
            .collect();
        let mut absent = Vec::new();
        let mut need = |name: &'static str| {
            found.remove(name).unwrap_or_else(|| {
                absent.push(name);
                PathBuf::new()
            })
        };
        let tools = Self {
            etcd: need("etcd"),
            kube_apiserver: need("kube-apiserver"),
            kubelet: need("kubelet"),
            dex: need("dex"),
            helm: need("helm"),
            kube_score: need("kube-score"),
            guardian: need("guardian"),
            kubectl_old: need("kubectl-old"),
            kubectl_new: need("kubectl-new"),
            kubectl_machine: found.remove("kubectl-machine"),
        };
        if absent.is_empty() { Ok(tools) } else { Err(Missing(format!("missing: {}", absent.join(", ")))) }
    }

    /// The tools, or `None` after a loud line that says what is missing.
    ///
    /// # Panics
    ///
    /// When a program is missing and `MOORLINE_REQUIRE_KUBERNETES=1` says that none may be.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test decides here, from its environment, whether it may be skipped"
    )]
    #[must_use]
    pub fn require_or_skip() -> Option<Self> {
        match Self::find() {
            Ok(tools) => Some(tools),
            Err(missing) => {
                let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
                assert!(!required, "real Kubernetes is required here ({REQUIRED}=1) but {missing}");
                say_skipped(&format!("real Kubernetes: {missing}"));
                None
            }
        }
    }

    /// Every kubectl there is: the old, the new, and the machine's own if it has one.
    #[must_use]
    pub fn kubectls(&self) -> Vec<Kubectl> {
        let mut all = vec![Kubectl::Old, Kubectl::New];
        all.extend(self.kubectl_machine.is_some().then_some(Kubectl::Machine));
        all
    }

    /// A helm that knows no cluster and no repositories, and keeps what it must keep in this directory.
    #[must_use]
    pub fn helm(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.helm);
        command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
        command
    }

    /// kube-score, which tells what is unwise in manifests.
    #[must_use]
    pub fn kube_score(&self) -> Command {
        let mut command = Command::new(&self.kube_score);
        command.env_clear();
        command
    }

    /// Calico's Guardian, v3.31.0, by its path.
    #[must_use]
    pub fn guardian(&self) -> &Path {
        &self.guardian
    }

    /// A kubectl that uses this kubeconfig, and keeps its caches beside it.
    #[must_use]
    pub fn kubectl(&self, version: Kubectl, kubeconfig: &Path) -> Command {
        let program = match version {
            Kubectl::Old => &self.kubectl_old,
            Kubectl::New => &self.kubectl_new,
            Kubectl::Machine => self.kubectl_machine.as_ref().unwrap_or(&self.kubectl_new),
        };
        let mut command = Command::new(program);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env_remove("KUBECONFIG")
            .env("HOME", kubeconfig.parent().unwrap_or_else(|| Path::new("/")))
            .stdin(Stdio::null());
        command
    }
}

/// Says aloud, past the capture of a test's output, that something was not tested.
pub fn say_skipped(what: &str) {
    // Not a print macro: those are held back for tests that pass, as a skipped one does.
    if let Err(error) = writeln!(std::io::stderr(), "\n==== SKIPPED: {what} ====\n") {
        tracing::warn!(%error, what, "skipped, and stderr does not take the news");
    }
}
