//! Calico's Guardian itself, as `.ci/kubernetes-tools` builds it.
//!
//! Its ports and the place of its service account are fixed, so it runs in a network namespace and a mount namespace of
//! its own; the tunnel and the kube-apiserver are led in under their own addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;

use super::namespace::Namespace;
use super::{Settings, Signal, send};
use crate::kubernetes::{Program, Tools, say_skipped};

/// Where it takes connections from the pods of its cluster.
const LISTENER: u16 = 8080;

/// `$1`: the service account's directory; `$2`: where to leave the process' number; then variables and the program.
/// Which capital letters a proxy's variables have does not matter: there are none.
const RUN: &str = r#"
set -e
account=$1; pid=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$(readlink -f /var/run)"
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$account" /var/run/secrets/kubernetes.io/serviceaccount
echo $$ >"$pid.new"
mv "$pid.new" "$pid"
exec env -i "$@"
"#;

/// A running Guardian. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Real {
    program: Option<Program>,
    // Ends after the program.
    namespace: Namespace,
    guardian: PathBuf,
    settings: Settings,
}

impl Real {
    /// The tools, where it can run. Says loudly what is skipped otherwise.
    ///
    /// # Panics
    /// When that is missing which `MOORLINE_REQUIRE_KUBERNETES=1` or `MOORLINE_REQUIRE_NAMESPACES=1` says may not be.
    #[must_use]
    pub fn possible_or_skip() -> Option<Tools> {
        let tools = Tools::require_or_skip()?;
        if Namespace::possible() {
            return Some(tools);
        }
        #[expect(clippy::disallowed_methods, reason = "whether it may be skipped is for whoever runs it to say")]
        let required = std::env::var("MOORLINE_REQUIRE_NAMESPACES").is_ok_and(|value| value == "1");
        assert!(!required, "namespaces are required here, and `unshare --net --mount` does not work");
        say_skipped("`unshare --net --mount` does not work here, in which the real Guardian runs");
        None
    }

    /// Starts it. It connects in its own time.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(tools: &Tools, settings: &Settings) -> Result<Self> {
        let mut namespace = Namespace::new()?;
        namespace.lead_out(settings.tunnel)?;
        let apiserver = settings.kube_apiserver.rsplit('/').next().unwrap_or_default();
        namespace.lead_out(apiserver.parse::<SocketAddr>().with_context(|| settings.kube_apiserver.clone())?)?;
        let guardian = tools.guardian().to_owned();
        let mut real = Self { program: None, namespace, guardian, settings: settings.clone() };
        real.start_again()?;
        Ok(real)
    }

    /// Ends it if it still runs, and starts it, as a kubelet does when it has ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.program = None;
        let settings = &self.settings;
        let pid = self.pid_file();
        if pid.exists() {
            std::fs::remove_file(&pid)?;
        }
        let of = |path: &Path| path.display().to_string();
        let mut arguments = vec![format!("--net={}", self.namespace.path())];
        arguments.extend(["unshare", "--mount", "sh", "-c", RUN, "guardian"].map(str::to_owned));
        arguments.extend([of(&settings.account), of(&pid)]);
        arguments.extend([
            format!("GUARDIAN_VOLTRON_URL={}", settings.tunnel),
            format!("GUARDIAN_CERT_PATH={}", of(&settings.files)),
            format!("GUARDIAN_K8S_ENDPOINT={}", settings.kube_apiserver),
            format!("GUARDIAN_CA_FILE={}", of(&settings.account.join("ca.crt"))),
            format!("GUARDIAN_TUNNEL_DIAL_RETRY_INTERVAL={}ms", settings.retry.as_millis()),
            of(&self.guardian),
        ]);
        self.program = Some(Program::start("guardian", Path::new("nsenter"), arguments, &settings.files, None)?);
        Ok(())
    }

    /// A connection to its listener, as a pod of its cluster makes it.
    ///
    /// # Errors
    /// When it does not listen, which it does from its first session on.
    pub fn connect(&self) -> Result<TcpStream> {
        self.namespace.connect(LISTENER)
    }

    /// Fails, with the end of its log, when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.program.as_mut().context("not started")?.check()
    }

    /// Stops it, lets it go on, or ends it.
    ///
    /// # Errors
    /// When it has not started yet, or has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(std::fs::read_to_string(self.pid_file())?.trim().parse()?, signal)
    }

    /// All that it and those before it have logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.settings.files.join("guardian.log")).unwrap_or_default()
    }

    fn pid_file(&self) -> PathBuf {
        self.settings.files.join("guardian.pid")
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.program = None;
    }
}
